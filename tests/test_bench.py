"""`lipref bench`: rounds of ours and of others' in turn, in slices; what fails is kept."""

import json

import pytest
from fake_bench import AUTHORS, Bench, plan

from lipref.bench import foreign, measurements, records, slices, tables
from lipref.bench.requests import Against, shape_of
from lipref.errors import LiprefError
from lipref.runs import profiles


def test_each_round_has_ours_then_theirs_and_nothing_is_measured_twice(tmp_path):
    bench, asked = Bench(), plan(tmp_path, against=(Against(AUTHORS),))
    done = bench.run(asked)
    assert bench.requests == [
        ("ours", "standard", 0), ("theirs", "standard", 0, "train", "infer", "memory"),
        ("ours", "aol", 0), ("theirs", "aol", 0, "train", "infer", "memory"),
        ("ours", "standard", 1), ("theirs", "standard", 1, "train", "infer"),
        ("ours", "aol", 1), ("theirs", "aol", 1, "train", "infer"),
    ]  # fmt: skip
    assert (done.left, done.failures, done.sentence) == ({}, {}, "Nothing is left.")
    again = Bench()
    assert again.run(asked).sentence == "Nothing is left."
    assert again.requests == []
    # The very records of `lipref measure`, with rounds put together.
    folder = tmp_path / measurements.FOLDER
    assert sorted(path.name for path in folder.glob("*/*")) == ["record.json"] * 2
    kept, failures = measurements.run(asked.costs(32))
    assert ([record["config"]["layer"] for record in kept], failures) == (["standard", "aol"], [])
    assert slices.complete(asked) == sorted(kept, key=lambda record: record["config"]["layer"])


def test_others_that_come_later_are_measured_beside_ours_of_the_same_minutes(tmp_path):
    Bench().run(plan(tmp_path))
    later = Bench(our_times=lambda request: [2.0])
    asked = plan(tmp_path, against=(Against(AUTHORS),), quantities=("train",))
    later.run(asked)
    assert [request[:3] for request in later.requests] == [
        ("ours", "standard", 1), ("theirs", "standard", 0), ("ours", "aol", 1), ("theirs", "aol", 0),
        ("ours", "standard", 1), ("theirs", "standard", 1), ("ours", "aol", 1), ("theirs", "aol", 1),
    ]  # fmt: skip
    row = tables.table(asked).set_index(["code", "layer", "quantity"]).loc[("authors", "aol", "train")]
    assert (row["median"], row.ratio_to_ours) == (5, 2.5)  # not 5, over ours of before
    assert tables.table(asked).set_index(["code", "layer", "quantity"]).loc[("lipref", "aol", "train"), "median"] == 1


def test_a_slice_leaves_the_rest_says_so_and_goes_on(tmp_path):
    asked = plan(tmp_path, against=(Against(AUTHORS),))
    bench = Bench(lambda request: 4.0)
    done = bench.run(asked, seconds=10)
    assert [request[:2] for request in bench.requests] == [("ours", "standard"), ("theirs", "standard")]
    assert done.left == {"lipref": 3, "authors": 3}
    assert done.sentence == "Left: 6 rounds (3 of lipref, 3 of authors); the same command goes on."
    for left in (4, 2, 0):
        assert sum(bench.run(asked, seconds=10).left.values()) == left
    assert len(bench.requests) == len(set(bench.requests)) == 8


def test_what_overruns_is_stopped_and_what_never_fits_is_set_aside(tmp_path):
    asked = plan(tmp_path, rounds=1)
    slow = Bench(lambda request: 60.0 if request["layer"] == "standard" else 1.0)
    assert slow.run(asked, seconds=30).left == {"lipref": 2}
    assert slow.requests == [("ours", "standard", 0)]
    done = slow.run(asked, seconds=30)
    assert slow.requests[1:] == [("ours", "aol", 0)]  # the others need not wait for it
    assert done.left == {"lipref": 1}
    (line,) = done.too_long
    assert "standard XS at 32x32 needs about 38 s in one piece: give more --seconds" in line
    assert slow.run(asked, seconds=100).sentence == "Nothing is left."
    assert slow.run(asked).sentence == "Nothing is left."


def test_ours_and_theirs_that_fit_one_by_one_only_are_set_aside(tmp_path):
    """Theirs has ours beside it: slices that hold either, but not both, would begin anew for ever."""
    asked = plan(tmp_path, against=(Against(AUTHORS),), rounds=1, layers=("standard",))
    bench = Bench(lambda request: 20.0)
    first = bench.run(asked, seconds=30)
    assert (first.left, first.too_long, first.time_is_up) == ({"authors": 1}, [], True)
    second = bench.run(asked, seconds=30)
    assert (second.left, second.time_is_up) == ({"authors": 1}, False)
    (line,) = second.too_long
    assert "authors standard XS at 32x32, with ours beside it, needs about 34 s in one piece: give more" in line
    assert bench.run(asked, seconds=100).sentence == "Nothing is left."


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_what_fails_is_told_kept_and_left_and_the_rest_goes_on(tmp_path, who):
    asked = plan(tmp_path, against=(Against(AUTHORS, path=tmp_path / "theirs"),), quantities=("train", "infer"))
    bench = Bench(fails={(who, "standard")}, why=f"it broke in {tmp_path}/theirs/models")
    done = bench.run(asked)
    (line,) = done.failures.values()
    name = "lipref" if who == "ours" else "authors"
    assert line.startswith(f"{name} standard XS at 32x32: it broke in ")
    assert who == "ours" or line.endswith("PATH/models")
    assert done.left == {}
    assert sum(request[:2] == (who, "standard") for request in bench.requests) == (1 if who == "ours" else 2)
    assert sum(request[1] == "aol" for request in bench.requests) == 4
    kept = json.loads((tmp_path / "failures.json").read_text())
    assert [entry["code"] for entry in kept.values()] == [name]
    # In the tables it is named, and not lost.
    table = tables.table(asked)
    lost = table[table.note != ""]
    assert set(zip(lost.code, lost.layer, lost.quantity, strict=True)) == {
        (name, "standard", "train"), (name, "standard", "infer")}  # fmt: skip
    assert lost.note.str.startswith("failed: it broke in").all()
    assert lost["median"].isna().all()
    assert "failed" in tables.people(table)["train ms"].tolist()
    assert f"Failed: {line}" in tables.notes(asked)
    # The next call tells it and leaves it, unless it is asked for.
    again = Bench()
    assert list(again.run(asked).failures.values()) == [line]
    assert not [request for request in again.requests if request[:2] == (who, "standard")]
    assert again.run(asked, again=True).failures == {}
    assert [request for request in again.requests if request[:2] == (who, "standard")]
    assert set(tables.table(asked).note) == {""}
    assert json.loads((tmp_path / "failures.json").read_text()) == {}


def test_a_part_that_fails_leaves_the_others_of_its_network(tmp_path):
    asked = plan(tmp_path, against=(Against(AUTHORS),), layers=("standard",))
    bench = Bench(fails={("infer", "standard")})
    done = bench.run(asked)
    assert list(done.failures.values()) == ["authors standard XS at 32x32: infer broke"]
    assert [request[3:] for request in bench.requests if request[0] == "theirs"] == [
        ("train", "infer", "memory"), ("memory",), ("train",)]  # fmt: skip
    table = tables.table(asked).set_index(["code", "quantity"])
    assert table.loc[("authors", "infer"), "note"] == "failed: infer broke"
    assert table.loc[("authors", "train"), "rounds"] == 2
    assert table.loc[("authors", "train memory"), "median"] == 300
    (tmp_path / "failures.json").write_text("[]")
    with pytest.raises(LiprefError, match="delete that file"):
        Bench().run(asked)


def test_a_killed_part_is_measured_again_beside_ours(tmp_path):
    asked = plan(tmp_path, against=(Against(AUTHORS),), rounds=1, layers=("standard",))
    Bench().run(asked)
    config = asked.theirs(asked.networks()[0], asked.against[0])
    records.path_of(tmp_path, config, 0, "infer").unlink()
    later = Bench()
    later.run(asked)
    assert later.requests == [("ours", "standard", 0), ("theirs", "standard", 0, "infer")]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    asked = plan(tmp_path, against=(Against(AUTHORS),))
    config = asked.theirs(asked.networks()[0], asked.against[0])
    path = records.path_of(tmp_path, config, 0, "train")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(LiprefError, match="delete that file"):
        Bench().run(asked)


def test_the_plain_network_is_always_there_and_wrong_words_are_refused(tmp_path):
    assert plan(tmp_path, layers=("aol",)).layers == ("standard", "aol")
    with pytest.raises(LiprefError, match="--quantities speed: unknown; known: train"):
        plan(tmp_path, quantities=("train", "speed"))
    with pytest.raises(LiprefError, match="no power of two"):
        plan(tmp_path, image_sizes=(20,)).check()
    with pytest.raises(LiprefError, match="--repeats 2 is below --rounds 3"):
        plan(tmp_path, rounds=3)
    with pytest.raises(LiprefError, match="--seconds -1"):
        Bench().run(plan(tmp_path), seconds=-1)
    with pytest.raises(LiprefError, match="unknown profile 'fast'; known: smoke, paper"):
        profiles.bench("fast")
    assert profiles.bench("paper")["image_sizes"] == "32,64"
    for text in ("theirs:/tmp", "authors", "authors:/nowhere", f"authors:{tmp_path}", "orthogonium:/nowhere"):
        with pytest.raises(LiprefError, match=r"known: authors, orthogonium|checkout|the extra bench"):
            foreign.parse(text)
    assert [(shape_of(side).channels, shape_of(side).num_classes) for side in (8, 16, 32, 64)] == [
        (1, 10), (3, 10), (3, 10), (3, 200)]  # fmt: skip
