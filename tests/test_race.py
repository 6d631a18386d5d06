"""Time to CRA: the runs, in slices; the goals; what is never looked at."""

import json
import time

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from lipref.cli.main import app
from lipref.cli.running import LEFT
from lipref.data import load_dataset
from lipref.errors import LiprefError
from lipref.paper import time_to_cra
from lipref.runs import experiment, race
from lipref.runs.race import ENTRIES, FILE, GOALS
from lipref.runs.records import row
from lipref.training.speed import Speed

SETTINGS = {"batch_size": 32, "weight_decay": 1e-5}
SHORT = 0.02  # minutes


def contest(out, layers=("aol",), step=0.1, rates=(0.01,), **changes):
    given = {
        "minutes": (SHORT,),
        "seeds": (0,),
        "data": load_dataset("digits", limit_train=128, limit_test=32),
        "device": "cpu",
    }
    one = race.Race(entries=tuple(race.entries(layers, ("XS",), rates, **SETTINGS)), out=out, **(given | changes))
    if step is not None and not (out / FILE).exists():
        fix(one, step)
    return one


def fix(one, step):
    """As if the steps had been timed."""
    questions = [one.question(entry) for entry in one.entries]
    lines = [
        {"question": question, "step_seconds": step}
        for place, question in enumerate(questions)
        if question not in questions[:place]
    ]
    one.out.mkdir(exist_ok=True)
    (one.out / FILE).write_text(json.dumps(lines))


def test_every_one_of_the_seven_has_a_recipe_and_the_papers_learning_rate():
    assert [entry.layer for entry in ENTRIES] == ["aol", "bcop", "cayley", "cpl", "lot", "sll", "soc"]
    for entry in ENTRIES:
        settings = entry.settings("cifar10-jpeg", "cuda", 3, 1)
        assert settings.epochs == 3
        assert settings.seed == 1
        assert settings.speed == entry.speed
        assert entry.settings("cifar10-jpeg", "cpu", 3, 1).speed == Speed()


def test_a_layer_without_recipe_or_learning_rate_is_refused():
    with pytest.raises(LiprefError, match=r"'standard' has no recipe.*known: aol"):
        race.entries(["standard"])
    with pytest.raises(LiprefError, match="--learning-rate"):
        ENTRIES[0].settings("digits", "cpu", 1, 0)


def test_a_step_is_measured_once(tmp_path):
    one = contest(tmp_path, step=None)
    seconds = one.step_seconds(one.entries[0])
    assert seconds > 0
    assert one.step_seconds(one.entries[0], read_only=True) == seconds
    (line,) = json.loads((tmp_path / FILE).read_text())
    assert line["environment"]["device"]["type"] == "cpu"


@pytest.mark.parametrize("weights", [True, False])
def test_without_its_weights_a_run_is_still_done(tmp_path, weights):
    (record,) = contest(tmp_path, weights=weights).records()
    assert bool(list(tmp_path.rglob("weights.safetensors"))) == weights
    (again,) = contest(tmp_path, weights=weights).records(read_only=True)
    assert again == record


def test_the_measured_step_decides_the_epochs(tmp_path):
    (record,) = contest(tmp_path, step=0.1).records()  # four steps an epoch: 2.9 of them in 97 % of the time
    assert record["config"]["settings"]["epochs"] == 2
    (short,) = contest(tmp_path / "short", step=1.0).records()
    assert "shorter than one epoch" in str(short)


def test_a_slice_ends_at_a_step_and_the_next_goes_on(tmp_path, monkeypatch):
    whole, sliced = contest(tmp_path / "whole", minutes=(0.03,)), contest(tmp_path / "sliced", minutes=(0.03,))
    (expected,) = whole.records()
    monkeypatch.setattr("lipref.runs.race.CHECKPOINT_SECONDS", 0.0)
    seen, ended = [], 0
    while True:
        start = len(seen)

        def count(_, progress, start=start):
            if progress:
                seen.append(progress.step)
                if len(seen) - start == 5:
                    raise race.SliceEnded

        try:
            (found,) = sliced.records(on_progress=count)
            break
        except race.SliceEnded:
            ended += 1
            if ended == 3:
                break
    if ended == 3:
        (found,) = sliced.records()
    assert ended == 3
    assert found["certificate"] == expected["certificate"]
    assert found["digest"] == expected["digest"]
    with pytest.raises(race.SliceEnded):
        list(contest(tmp_path / "late").records(deadline=time.monotonic() - 1))


def test_the_test_images_are_looked_at_once_and_in_tuning_never(tmp_path, monkeypatch):
    looks, certify = [], experiment.certify
    one = contest(tmp_path)

    def spy(model, batches, *rest):
        batches = list(batches)
        looks.append(torch.cat([images for images, _ in batches]))
        return certify(model, iter(batches), *rest)

    monkeypatch.setattr(experiment, "certify", spy)
    list(one.records())
    assert [len(images) for images in looks] == [32]
    list(one.records())
    assert len(looks) == 1
    (held_out,) = contest(tmp_path, validation=True).records()
    assert isinstance(held_out, dict), held_out
    assert len(looks[1]) == 13
    assert held_out["config"]["validation"] == 0.1
    test = {image.numpy().tobytes() for image in looks[0]}
    assert not any(image.numpy().tobytes() in test for image in looks[1])


def made(layer, minutes, seed, cra, trained=None, **changes):
    return {
        "layer": layer, "size": "S", "minutes": minutes, "seed": seed, "cra_36": cra, "accuracy": cra + 0.1,
        "status": "done", "images": "test", "train_minutes": 0.97 * minutes if trained is None else trained,
        "epochs": 3, "compile_seconds": 0.0, "machine": "GPU", "proved": True, "dataset": "cifar10-jpeg",
        "batch_size": 256, "learning_rate": 0.1, "options": "",
    } | changes  # fmt: skip


def test_a_goal_is_met_by_the_mean_over_seeds_within_the_time():
    rows = [
        *(made("cpl", 1.0, seed, cra) for seed, cra in enumerate((0.56, 0.53, 0.56))),
        *(made("soc", 5.0, seed, 0.63) for seed in range(3)),
        made("soc", 5.0, 0, 0.9, images="validation"), made("soc", 10.0, 0, 0.66),
    ]  # fmt: skip
    found = time_to_cra.goals(pd.DataFrame(rows), [("cpl", "S"), ("soc", "S")])
    assert found.reached.tolist()[:4] == ["55.0", "63.0", "66.0", "66.0"]
    assert found.met.tolist()[:4] == ["yes", "yes", "too few seeds", "no"]
    assert found.by[0] == "CPL S, 1 min, n = 3, GPU"
    layers = found[found.goal.str.contains("2 h")].set_index("goal")
    assert float(layers.loc["SOC S, the paper's 2 h", "CRA 36/255 wanted"]) > 40
    assert layers.loc["CPL S, the paper's 2 h", "met"] == "no"
    on_digits = time_to_cra.goals(pd.DataFrame([made("cpl", 1.0, 0, 0.9, dataset="digits")]), [("cpl", "S")])
    assert set(on_digits.reached) == {"not measured"}
    nothing = time_to_cra.goals(pd.DataFrame(), [("cpl", "S")])
    assert set(nothing.reached) == {"not measured"}
    assert len(nothing) == len(GOALS) + 1


@pytest.mark.parametrize("bad", [{"trained": 1.01}, {"status": "diverged"}, {"proved": False}])
def test_no_seed_may_be_left_out_of_a_goal(bad):
    rows = [made("cpl", 1.0, seed, 0.6) for seed in range(3)]
    assert time_to_cra.goals(pd.DataFrame(rows), []).met[0] == "yes"
    assert time_to_cra.goals(pd.DataFrame([*rows, made("cpl", 1.0, 3, 0.6, **bad)]), []).reached[0] == "not measured"
    other = time_to_cra.goals(pd.DataFrame([*rows, made("cpl", 1.0, 0, 0.5, machine="another")]), [])
    assert other.reached[0] == "60.0"


def test_the_table_has_mean_and_spread_and_names_what_diverged():
    table = pd.DataFrame(
        [made("cpl", 1.0, 0, 0.50), made("cpl", 1.0, 1, 0.52), made("aol", 1.0, 0, 0.6, status="diverged")]
    )
    first, second = time_to_cra.people(table).itertuples()
    assert first.layer == "CPL"
    assert first._7 == "51.0 ± 1.4"
    assert first.n == 2
    assert second.n == "0/1"
    assert second._7 == "diverged"


def test_rates_have_lines_of_their_own_and_the_best_is_drawn():
    table = pd.DataFrame(
        [made("cpl", 1.0, seed, cra, learning_rate=rate)
         for rate, values in ((0.1, (0.50, 0.54)), (0.2, (0.55, 0.51))) for seed, cra in enumerate(values)]
        + [made("cpl", 5.0, 0, 0.6), made("lot", 1.0, 0, 0.4, size="XS"), made("lot", 1.0, 0, 0.3)]
    )  # fmt: skip
    shown = time_to_cra.people(table)
    assert shown["peak lr"].tolist() == ["0.2", "0.1", "0.1", "0.1", "0.1"]
    assert shown["CRA 36/255"].tolist()[:2] == ["53.0 ± 2.8", "52.0 ± 2.8"]
    best = time_to_cra.best_recipes(table)
    assert best.cra_36.tolist() == [0.55, 0.51, 0.6, 0.4]


def test_tables_are_written_where_nothing_is_done(tmp_path, monkeypatch):
    (record,) = contest(tmp_path).records()
    diverged = {name: value for name, value in record.items() if name != "certificate"} | {"status": "diverged"}
    monkeypatch.setattr("lipref.paper.time_to_cra.row", lambda found: row(record) | {"status": "diverged"})
    written = time_to_cra.write([diverged], [("aol", "XS")], tmp_path / "tables")
    assert "race.png" not in {path.name for path in written}
    assert "diverged" in (tmp_path / "tables" / "race.md").read_text()


def test_several_rates_are_tried_on_held_out_images_alone(tmp_path):
    contest(tmp_path, rates=(0.003, 0.01))
    arguments = [
        "race", "--profile", "smoke", "--layers", "aol", "--minutes", str(SHORT), "--batch-size", "32",
        "--weight-decay", "1e-5", "--learning-rate", "0.01,0.003", "--limit-train", "128", "--limit-test", "32",
        "--device", "cpu", "--out", str(tmp_path),
    ]  # fmt: skip
    refused = CliRunner().invoke(app, arguments)
    assert "add --validation" in str(refused.exception)
    found = CliRunner().invoke(app, [*arguments, "--validation"])
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "race.csv")
    assert table.learning_rate.tolist() == [0.003, 0.01]
    assert set(table.images) == {"validation"}
    assert len(json.loads((tmp_path / FILE).read_text())) == 1  # a step takes the same time at every rate


def test_the_command_writes_tables_and_goes_on(tmp_path):
    arguments = [
        "race", "--profile", "smoke", "--layers", "aol,cpl", "--minutes", str(SHORT), "--batch-size", "32",
        "--weight-decay", "1e-5", "--limit-train", "128", "--limit-test", "32",
        "--device", "cpu", "--out", str(tmp_path),
    ]  # fmt: skip
    contest(tmp_path, ("aol", "cpl"))
    ended = CliRunner().invoke(app, [*arguments, "--seconds", "0.001"])
    assert ended.exit_code == LEFT
    assert "0 of 2 runs are done: the same command goes on" in ended.output
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    figure = time_to_cra.race(time_to_cra.rows(json.loads((tmp_path / "records.json").read_text())), GOALS)
    low, high = figure.axes[0].get_xlim()
    assert low < SHORT < high  # its tick is seen
    assert {"race.csv", "race.md", "race.png", "race.pdf", "goals.md", "records.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    table = pd.read_csv(tmp_path / "race.csv")
    assert list(table.layer) == ["aol", "cpl"]
    assert (table.train_minutes > 0).all()
    assert table.cra_36.tolist() == [
        row(record)["cra_36"] for record in json.loads((tmp_path / "records.json").read_text())
    ]
    for wrong in (["--minutes", "0"], ["--profile", "fast"], ["--learning-rate", "0.1,x"], ["--size", "XS,XXL"]):
        refused = CliRunner().invoke(app, ["race", *wrong, "--device", "cpu"])
        assert refused.exit_code != 0
