"""How cost grows: the grid, what is executed, resumption, fits, tables, the picture and what is committed."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_fingerprint import PACKAGE, imported
from torch import nn
from typer.testing import CliRunner

from lipref.bench import ceilings, scaling, scaling_rounds
from lipref.bench.counting import INPUT, PARAMETER, WHOLE, count_layer
from lipref.bench.scaling import Grid, Plan
from lipref.bench.scaling_parts import AXES, KERNEL, count_running, workload
from lipref.cli.main import app
from lipref.cli.running import LEFT
from lipref.errors import LiprefError
from lipref.layers import LAYERS, LayerSpec, LipschitzConv2d, resolve
from lipref.layers.excluded import EXCLUDED
from lipref.paper import growth as item
from lipref.paper import growth_figure, readable, style
from lipref.paths import RESULTS
from lipref.runs.provenance import NO_NUMBERS

CPU = torch.device("cpu")
SMALL = Grid((2, 4, 8), (4, 5, 6), (1, 2, 3))
LIMITS = {
    "device": "cpu", "machine": "Machine", "cores": 2, "threads": 2,
    "values": {
        name: {"median": rate, "low": rate, "high": rate, "unit": unit, "what": name, "repeats": 3}
        for name, rate, unit in (
            (ceilings.FLOAT32, 100.0, "GFLOP/s"),
            (ceilings.CONVOLUTION, 50.0, "GFLOP/s"),
            (ceilings.COPY, 20.0, "GB/s"),
        )
    },
}  # fmt: skip


# --- the grid


AXIS = st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True)


@given(values=st.tuples(AXIS, AXIS, AXIS))
def test_one_axis_is_varied_at_a_time(values):
    made = Grid(*map(tuple, values))
    centre = made.centre
    for part in (PARAMETER, INPUT, WHOLE):
        points = list(made.points(part))
        assert points[0] == centre
        assert len({tuple(point.values()) for point in points}) == len(points)
        assert all(sum(point[name] != centre[name] for name in AXES) <= 1 for point in points)
        for name, wanted in zip(AXES, values, strict=True):
            seen = {point[name] for point in points}
            assert seen == ({centre["b"]} if part == PARAMETER and name == "b" else set(wanted))
    for name, wanted in zip(AXES, values, strict=True):
        assert sorted(wanted)[(len(wanted) - 1) // 2] == centre[name]


@pytest.mark.parametrize("wrong", [(), (0,), (4, 4), (True,), (2.0,)])
def test_a_wrong_axis_is_refused(wrong):
    with pytest.raises(LiprefError, match="sides="):
        Grid((1,), wrong, (1,))


@pytest.mark.parametrize("name", scaling.GRIDS)
def test_profiles_can_be_fitted(name):
    assert set(scaling.GRIDS) == set(scaling.REPEATS) == set(scaling.ROUNDS)
    assert all(len(item.upper_half(values)) >= 2 for values in scaling.GRIDS[name].axes.values())
    assert scaling.ROUNDS[name] >= 2


@pytest.mark.parametrize("layer", ["lot", "cayley"])
def test_the_dearest_calls_of_the_cpu_profile_are_small(layer):
    """Forward operations, of which a core does some 10^10 a second; forward and backward are about three times that."""
    usual = scaling.GRIDS["cpu"]
    for name, values in usual.axes.items():
        point = usual.centre | {name: values[-1]}
        counts = count_layer(
            lambda point=point: LAYERS[layer](point["c"], point["c"], KERNEL),
            batch=point["b"], channels=point["c"], side=point["s"],
        )  # fmt: skip
        assert all(count.macs < 1.6e10 for count in counts.values())


# --- what is timed


def started(cls, channels=4):
    torch.manual_seed(0)
    layer = cls(channels, channels, KERNEL).train()
    layer(torch.randn(2, channels, 6, 6))  # SOC's first call takes more power iterations
    return layer


@pytest.mark.parametrize("name", [*LAYERS, *EXCLUDED])
def test_the_two_parts_are_the_layer(name):
    """Together they execute what forward and backward of the whole do, and every operation is known."""
    cls = resolve(name).cls
    if name == "bnb":
        cls = lambda *args: resolve("bnb").cls(*args[:2], 1)  # noqa: E731
    shape = (2, 4, 6, 6)
    found = {part: count_running(workload(started(cls), part, shape, CPU)) for part in (PARAMETER, INPUT, WHOLE)}
    assert [unknown for _, unknown in found.values()] == [[], [], []]
    assert found[INPUT][0] > 0
    assert found[PARAMETER][0] + found[INPUT][0] == pytest.approx(found[WHOLE][0], rel=1e-3, abs=8)


@pytest.mark.parametrize(("part", "receivers"), [(PARAMETER, 1), (INPUT, 2)])
def test_gradients_go_to_parameters_or_to_batch_and_operator(part, receivers, monkeypatch):
    seen, differentiate = [], torch.autograd.grad

    def watched(outputs, inputs, gradients, **options):
        found = differentiate(outputs, inputs, gradients, **options)
        seen.append((list(inputs), found))
        return found

    monkeypatch.setattr(torch.autograd, "grad", watched)
    layer = started(LAYERS["aol"])
    workload(layer, part, (2, 4, 6, 6), CPU)()
    ((inputs, found),) = seen
    assert len(inputs) >= receivers
    assert all(value is not None and value.abs().sum() > 0 for value in found)
    parameters = {id(value) for value in layer.parameters()}
    assert {id(value) in parameters for value in inputs} == {part == PARAMETER}


def test_operations_of_the_unconstrained_layer_are_known():
    """A convolution is executed three times: forward, for the batch's gradient, for the kernel's."""
    call = workload(started(LAYERS["standard"]), INPUT, (2, 4, 6, 6), CPU)
    forward = count_layer(lambda: LAYERS["standard"](4, 4, KERNEL), batch=2, channels=4, side=6)[INPUT].macs
    padded = 2 * 4 * 8 * 8
    macs, _ = count_running(call)
    assert 3 * forward <= macs <= 3 * forward * padded / (2 * 4 * 6 * 6)


def test_unknown_operations_are_named():
    macs, unknown = count_running(lambda: torch.linalg.svdvals(torch.eye(3)))
    assert macs == 0
    assert unknown == ["aten._linalg_svd"]


# --- measuring


class Fake:
    """In place of a measurement: seconds that depend on layer, part, point and round alone, and a memory of calls."""

    def __init__(self):
        self.calls, self.stop = [], math.inf

    def __call__(self, spec, part, point, device, *, repeats, max_seconds, counted):
        if len(self.calls) >= self.stop:
            raise KeyboardInterrupt
        round_ = sum(call == (spec.label, part, point) for call in self.calls)
        self.calls.append((spec.label, part, dict(point)))
        batch = 1 if part == PARAMETER else point["b"]
        seconds = 1e-3 * point["c"] ** 2 * point["s"] ** 2 * batch * (1 + round_ / 10)
        macs = 10 * point["c"] ** 3
        return {"seconds": [seconds] * repeats} | ({"macs": macs, "unknown": []} if counted else {})


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setattr(scaling_rounds, "measure_part", made)
    return made


def plan(out, *names, **changes):
    specs = tuple(resolve(name) for name in names or ("aol", "lot"))
    return Plan(**{"specs": specs, "grid": SMALL, "out": out, "repeats": 2, "rounds": 3} | changes)


def without_time(records):
    return [{name: value for name, value in record.items() if name != "environment"} for record in records]


def test_a_killed_measurement_goes_on(tmp_path, fake):
    whole = scaling_rounds.run(plan(tmp_path / "whole"))
    assert whole.done == whole.total == len(fake.calls) == 2 * 3 * (5 + 7)
    expected, fake.calls = fake.calls, []
    for fake.stop in (5, 30, 31, 31, 71):
        with pytest.raises(KeyboardInterrupt):
            scaling_rounds.run(plan(tmp_path / "parts"))
    fake.stop = math.inf
    state = scaling_rounds.run(plan(tmp_path / "parts"))
    assert fake.calls == expected  # nothing twice, and in the same order
    assert without_time(state.records) == without_time(whole.records)
    assert scaling_rounds.run(plan(tmp_path / "parts")).records == state.records
    assert len(fake.calls) == len(expected)
    assert {path.name for path in tmp_path.glob("parts/*/*")} == {"record.json"}


def test_slices_add_up(tmp_path, fake, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(scaling_rounds.time, "perf_counter", lambda: next(clock))
    done = [scaling_rounds.run(plan(tmp_path), seconds=30).done for _ in range(4)]
    assert done == [29, 58, 72, 72]  # the clock is read once before each step
    assert scaling_rounds.run(plan(tmp_path), seconds=30).records == scaling_rounds.run(plan(tmp_path)).records
    assert len(fake.calls) == 72
    early = scaling_rounds.run(plan(tmp_path, "soc"), seconds=0.5)
    assert (early.done, early.records) == (0, [])


def test_rounds_go_over_all_layers(tmp_path, fake):
    told = []
    scaling_rounds.run(plan(tmp_path), on_step=lambda *step: told.append(step))
    order = [label for label, *_ in fake.calls]
    assert order == (["aol"] * 12 + ["lot"] * 12) * 3
    assert [step[:2] for step in told] == [(number, 72) for number in range(72)]
    assert told[0][2] == "aol, parameter, c = 4, s = 5, b = 2; round 1 of 3"


def test_another_plan_is_another_measurement(tmp_path, fake):
    scaling_rounds.run(plan(tmp_path, "aol"))
    count = len(fake.calls)
    scaling_rounds.run(plan(tmp_path, "aol", repeats=3))
    scaling_rounds.run(plan(tmp_path, "aol", grid=Grid((2, 4), (4,), (1,))))
    assert len(fake.calls) == count + 36 + 3 * (2 + 2)
    assert len({path.name for path in tmp_path.glob("growth-aol-*")}) == 3


@pytest.mark.parametrize("where", ["record.json", "round1.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "kind": "growth", "digest": "x", "points": []}'])
def test_damaged_files_are_refused(tmp_path, fake, where, text):
    config = plan(tmp_path, "aol").config(resolve("aol"))
    (tmp_path / config.folder).mkdir()
    (tmp_path / config.folder / where).write_text(text)
    with pytest.raises(LiprefError, match=rf"{where} is .*delete that file"):
        scaling_rounds.run(plan(tmp_path, "aol"))


@pytest.mark.parametrize(("change", "named"), [({"repeats": 0}, "repeats=0"), ({"rounds": True}, "rounds=True"),
                                               ({"specs": ()}, "no layers")])  # fmt: skip
def test_wrong_plans_are_refused(tmp_path, change, named):
    with pytest.raises(LiprefError, match=named):
        plan(tmp_path, **change)
    with pytest.raises(LiprefError, match="once"):
        plan(tmp_path, "aol", "aol")
    with pytest.raises(LiprefError, match="seconds=0"):
        scaling_rounds.run(plan(tmp_path), seconds=0)


class TooLarge(nn.Module):
    """Runs out of memory above four channels."""

    def __init__(self, channels, *_):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        if len(self.weight) > 4:
            raise torch.OutOfMemoryError("too large")
        return x * self.weight


class Fails(TooLarge):
    def forward(self, x):
        raise ValueError("no such layer")


def test_memory_that_runs_out_is_a_result(tmp_path):
    one = LayerSpec("large", TooLarge, "sha")
    state = scaling_rounds.run(plan(tmp_path, specs=(one,), rounds=2, repeats=1))
    assert state.done == state.total == 14
    frame = scaling.points(state.records)
    assert frame[frame.c > 4].seconds.isna().all()
    assert (frame[frame.c <= 4].seconds > 0).all()
    limits = LIMITS | ceilings.here(CPU)
    found = item.table(state.records, limits)
    assert set(found[(found.axis == "c") & (found.measure == "seconds")].place) == {2, 4}
    assert set(found.part) == {WHOLE}
    assert found[found.source == item.PRINTED].empty
    scaling.write(state.records, tmp_path)
    assert len(scaling.read(tmp_path)) == 1


def test_a_layer_that_fails_is_named(tmp_path):
    with pytest.raises(LiprefError, match="bad fails at c = 4, s = 5, b = 2: ValueError: no such layer; mend"):
        scaling_rounds.run(plan(tmp_path, specs=(LayerSpec("bad", Fails, "sha"),)))


def test_ones_own_layer_is_measured_as_a_whole(tmp_path):
    tiny = Grid((2, 4), (4,), (1, 2))
    state = scaling_rounds.run(plan(tmp_path, "examples/my_layer.py:MyConv", "bcop", grid=tiny, rounds=2, repeats=1))
    own, bcop = state.records
    assert {entry["part"] for entry in own["points"]} == {WHOLE}
    assert {entry["part"] for entry in bcop["points"]} == {PARAMETER, INPUT}
    assert all(entry["macs"] > 0 and entry["unknown"] == [] for entry in bcop["points"])
    assert all(len(entry["seconds"]["rounds"]) == 2 for entry in own["points"])
    assert own["config"]["layer_sha256"] is not None
    people = item.people(item.table(state.records, LIMITS | ceilings.here(CPU)))
    assert list(people.part) == [WHOLE, PARAMETER, INPUT]
    before = torch.get_rng_state()
    scaling_rounds.run(plan(tmp_path, "sll", grid=tiny, rounds=1, repeats=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_decides_the_numbers_is_in_the_configuration():
    files = [*(PACKAGE / "bench").glob("scaling*.py"), PACKAGE / "bench" / "ceilings.py"]
    used = {name for path in files for name in imported(path)} | {f"bench/{path.stem}" for path in files}
    assert used - set(NO_NUMBERS) == set(scaling.CODE) - {"linalg"}  # that is what layers compute with


# --- fits


@given(
    power=st.floats(-3, 4), factor=st.floats(1e-6, 1e3),
    places=st.lists(st.integers(1, 512), min_size=2, max_size=8, unique=True),
    drift=st.lists(st.floats(0.5, 2), min_size=1, max_size=5),
)  # fmt: skip
def test_a_power_law_gives_its_exponent(power, factor, places, drift):
    """Whatever a round's own speed is: it shifts the line and leaves its slope."""
    found = item.fit(places, [[factor * speed * place**power for place in places] for speed in drift])
    assert found.value == pytest.approx(power, abs=1e-6)
    assert found.n == len(drift)
    if len(drift) > 1:
        assert found.low - 1e-6 <= power <= found.high + 1e-6
    else:
        assert math.isnan(found.low)
    assert math.isnan(found.bend) or abs(found.bend) < 1e-6


def test_overheads_of_small_places_do_not_count():
    places = [1, 2, 4, 8, 128, 256, 512, 1024]
    values = [[1.0 + 1e-3 * place**2 for place in places]]
    assert item.fit(places, values).value == pytest.approx(2, abs=0.1)
    assert item.slope(places, values[0]) < 1.5
    turned = item.fit(places[::-1], [values[0][::-1]])
    assert (turned.value, turned.bend) == (item.fit(places, values).value, item.fit(places, values).bend)
    bent = item.fit([1, 2, 4, 8, 16], [[1, 1, 1, 2, 8]])
    assert bent.bend == pytest.approx(1)  # from slope 1 to slope 2


@given(st.lists(st.floats(-2, 4), min_size=2, max_size=8))
def test_the_interval_is_students(slopes):
    found = item.fit([2, 4], [[1.0, 2.0**slope] for slope in slopes])
    assert found.value == pytest.approx(np.mean(slopes), abs=1e-9)
    if np.ptp(slopes) > 1e-6:
        expected = stats.t.interval(0.95, len(slopes) - 1, np.mean(slopes), stats.sem(slopes))
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.integers(1, 999), min_size=1, max_size=9, unique=True))
def test_the_upper_half_has_the_largest(places):
    chosen = [places[position] for position in item.upper_half(places)]
    assert chosen == sorted(places)[-len(chosen) :]
    assert len(chosen) == min(len(places), max(2, math.ceil(len(places) / 2)))


def test_no_slope_where_there_is_none():
    assert math.isnan(item.slope([2, 2], [1, 3]))
    assert math.isnan(item.slope([1, 2], [0, 3]))
    assert math.isnan(item.slope([4], [3]))


# --- tables, words, the picture


def records(*names, powers=(2, 1, 1)):
    """Made records: parameter transformations grow as c^3, input transformations with ``powers`` of c, s and b."""
    found = []
    for name in names or ("standard", "aol", "lot"):
        points = []
        for part in (PARAMETER, INPUT):
            for point in SMALL.points(part):
                exponents = (3, 0, 0) if part == PARAMETER else powers
                size = math.prod(point[axis] ** exponent for axis, exponent in zip(AXES, exponents, strict=True))
                times = [[1e-3 * size * speed] for speed in (0.9, 1.0, 1.1)]
                points.append({"part": part} | point | {"seconds": ceilings.spread(times), "macs": size * 10**7,
                                                       "unknown": []})  # fmt: skip
        config = {"layer": name, "layer_sha256": None, "widths": list(SMALL.widths), "sides": list(SMALL.sides),
                  "batches": list(SMALL.batches), "kernel_size": KERNEL, "device": "cpu", "machine": "Machine",
                  "threads": 2}  # fmt: skip
        found.append({"format": 1, "kind": "growth", "digest": name, "config": config, "points": points})
    return found


def test_exponents_stand_side_by_side():
    found = item.table(records(), LIMITS)
    assert list(found.columns) == list(item.COLUMNS)
    lines = item.judged(found).set_index(["layer", "part", "axis"])
    aol = lines.loc[("aol", PARAMETER, "c")]
    assert [aol.measured, aol.counted, aol.printed] == pytest.approx([3, 3, 3])
    assert aol.high - aol.low < 1e-9
    lot = lines.loc[("lot", INPUT, "s")]
    assert [lot.measured, lot.counted, lot.printed] == pytest.approx([1, 1, 2])
    assert math.isnan(lines.loc[("standard", PARAMETER, "c")].printed)  # Table 1 has no operations there
    assert (PARAMETER, "b") not in {(part, axis) for _, part, axis in lines.index}
    shares = found[(found.measure == item.SHARE) & (found.layer == "lot") & (found.part == INPUT)]
    assert shares.value.tolist() == pytest.approx([2 * 10**7 / 1e-3 / 1e9 / 100 * 100] * len(shares))
    assert (shares.low < shares.value).all()
    assert (shares.value < shares.high).all()


def test_tables_and_words_for_people():
    found = item.table(records(), LIMITS)
    people = item.people(found).set_index(["layer", "part"])
    assert people.loc[("LOT", INPUT), "s"] == "1.00 ± 0.00 [1.00, 2.00]"
    assert people.loc[("Standard", PARAMETER), "c"] == "3.00 ± 0.00 [3.00, –]"
    assert people.loc[("Standard", PARAMETER), "b"] == ""
    assert people.loc[("AOL", PARAMETER), "at most channels"] == "512 ms"
    assert people.loc[("AOL", PARAMETER), "of the ceiling"] == "20 %"
    words = item.sentence(found, LIMITS)
    assert "Of 13 measured exponents 9 are within 0.3 of the printed one, 4 are smaller and 0 larger" in words
    assert "furthest off is LOT, parameter, with s^0.0 for s^2.0" in words
    assert "Of 15 measured exponents 15 are within 0.3 of the counted one" in words
    assert "of the machine's measured 100 GFLOP/s" in words
    assert words.endswith("Machine, 2 threads; memory moves 20 GB/s.")
    assert list(item.ceilings_for_people(LIMITS).columns) == ["ceiling", "median", "spread"]
    assert item.ceilings_table(LIMITS).set_index("ceiling")["median"].to_dict() == {
        ceilings.FLOAT32: 100,
        ceilings.CONVOLUTION: 50,
        ceilings.COPY: 20,
    }
    single = item.table(records("aol"), LIMITS)
    single.loc[single.measure == item.EXPONENT, ["low", "high"]] = math.nan
    assert "±" not in item.people(single).to_string()


def test_two_machines_are_not_mixed():
    with pytest.raises(LiprefError, match=r"threads 2, the ceilings with 1.*one machine"):
        item.table(records(), LIMITS | {"threads": 1})


def test_layers_are_chosen_in_their_order(tmp_path):
    scaling.write(records("soc", "aol", "mine"), tmp_path)
    (tmp_path / ceilings.FILE).write_text(json.dumps(LIMITS | {"format": 1, "kind": "ceilings"}))

    said = []

    def names(layers):
        return [record["config"]["layer"] for record in item.load(tmp_path, layers, said.append)[0]]

    assert names("all") == ["aol", "soc", "mine"]
    assert names("soc,aol") == ["aol", "soc"]
    assert item.load(tmp_path)[1]["values"] == LIMITS["values"]
    assert not said
    assert names("aol,lot") == ["aol"]
    assert said == [f"not in {tmp_path}: lot; lipref growth --layers NAME measures one"]
    nothing = item.table(*item.load(tmp_path, "lot", said.append))
    assert nothing.empty
    assert readable.or_missing(nothing, item.people, item.NOTHING).iloc[0, 0] == item.NOTHING
    assert item.sentence(nothing, LIMITS) == "Machine, 2 threads; memory moves 20 GB/s."
    assert "was measured" in style.or_blank(growth_figure.growth, nothing, item.NOTHING).axes[0].texts[0].get_text()
    with pytest.raises(LiprefError, match="unknown layer"):
        names("aol,none")
    with pytest.raises(LiprefError, match="lipref growth"):
        item.load("no/such/folder")


def test_the_picture_has_every_layer_and_slope():
    found = item.table(records(), LIMITS)
    figure = growth_figure.growth(found)
    assert len(figure.axes) == 6
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["Standard 2.00 [2.00]", "AOL 2.00 [2.00]", "LOT 2.00 [2.00]"]
    assert "LOT 1.00 [2.00]" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert figure.axes[5].get_legend() is None
    assert "of the ceiling, c = 8" in figure.axes[5].get_xlabel()
    assert [line.get_xdata()[0] for line in figure.axes[5].lines[:3]] == pytest.approx([20.0] * 3)
    alone = growth_figure.growth(found[found.part == INPUT])
    assert len(alone.axes) == 3


@pytest.mark.parametrize(("change", "named"), [
    (lambda table: table.drop(columns="axis"), "no column 'axis'"),
    (lambda table: table[table.measure == item.EXPONENT], "no seconds"),
])  # fmt: skip
def test_a_picture_needs_its_rows(change, named):
    with pytest.raises(LiprefError, match=named):
        growth_figure.growth(change(item.table(records(), LIMITS)))


# --- files


def test_files_are_read_as_written(tmp_path):
    assert scaling.write([], tmp_path) == []
    paths = scaling.write(records(), tmp_path)
    assert [path.name for path in paths] == ["growth.csv", "growth.json"]
    assert scaling.read(tmp_path) == records()
    frame = pd.read_csv(tmp_path / "growth.csv")
    assert len(frame) == 3 * (5 + 7)
    assert frame.seconds.gt(0).all()
    with pytest.raises(LiprefError, match=r"cannot be read.*lipref growth"):
        scaling.read(tmp_path / "nowhere")


@pytest.mark.parametrize("change", [
    lambda found: found["config"].pop("layer"), lambda found: found["points"][0].pop("macs"),
    lambda found: found.update(kind="cost"), lambda found: found["points"].append(3),
])  # fmt: skip
def test_damaged_records_are_refused(tmp_path, change):
    made = records()
    change(made[1])
    (tmp_path / "growth.json").write_text(json.dumps(made))
    with pytest.raises(LiprefError, match=r"is damaged.*lipref growth"):
        scaling.read(tmp_path)


def test_records_of_two_grids_are_refused(tmp_path):
    made = records()
    made[2]["config"]["sides"] = [1, 2]
    (tmp_path / "growth.json").write_text(json.dumps(made))
    with pytest.raises(LiprefError, match="standard and lot were not measured alike"):
        scaling.read(tmp_path)


# --- the command


def call(*arguments):
    return CliRunner().invoke(app, ["growth", *arguments])


def test_the_command_measures_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ceilings, "CPU", ceilings.Sizes(matrix=4, numbers=8, batch=1, channels=1, side=2))
    arguments = ["--layers", "standard,cayley", "--widths", "2,4", "--sides", "4,2", "--batches", "1,2",
                 "--profile", "smoke", "--out", str(tmp_path)]  # fmt: skip
    sliced = call(*arguments, "--seconds", "1e-9")
    assert sliced.exit_code == LEFT, sliced.output
    assert "0 of 28 steps are done: the same command goes on" in sliced.output
    assert not (tmp_path / "growth.csv").exists()
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert "steps are done" not in result.output
    assert {"growth.csv", "growth.json", "ceilings.json"} <= {path.name for path in tmp_path.iterdir()}
    before = (tmp_path / "growth.json").read_bytes()
    monkeypatch.setattr(scaling_rounds, "measure_part", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr(scaling_rounds, "measure_part", lambda *_, **__: pytest.fail("measured again"))
    assert call(*arguments).exit_code == 0
    assert (tmp_path / "growth.json").read_bytes() == before
    assert scaling.read(tmp_path)[0]["config"]["widths"] == [2, 4]


@pytest.mark.parametrize(("arguments", "named"), [
    (["--widths", "2,x"], "'x' is no whole number"), (["--sides", "0"], "sides='0'"), (["--batches", "-2"], "'-2'"),
    (["--profile", "tiny"], "unknown profile 'tiny'; known: smoke, cpu, gpu"), (["--rounds", "0"], "rounds=0"),
    (["--layers", "none"], "none"), (["--device", "abacus"], "abacus"),
])  # fmt: skip
def test_wrong_input_is_named(tmp_path, arguments, named):
    result = call(*arguments, "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, LiprefError)
    assert named in str(result.exception)
    assert not (tmp_path / "out").exists()


# --- what is committed


def test_committed_results_are_whole():
    folder = RESULTS / "growth"
    found, limits = item.load("data/results/growth")
    assert [record["config"]["layer"] for record in found] == list(LAYERS)
    for record in found:
        assert not any(entry["unknown"] for entry in record["points"])
        assert all(entry["seconds"] for entry in record["points"])
        assert record["environment"]["commit"]
        assert " growth" in record["environment"]["command"]
    table = item.table(found, limits)
    lines = item.judged(table).set_index(["layer", "part", "axis"])
    assert lines.measured.notna().all()
    assert lines.loc[("standard", INPUT, "b")][["counted", "printed"]].tolist() == pytest.approx([1, 1])
    assert lines.loc[("lot", PARAMETER, "c")].printed == pytest.approx(3)
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "growth.csv"), scaling.points(found), check_dtype=False, rtol=1e-12
    )
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert re.fullmatch(r"[\w .()@-]+", limits["machine"])
    assert all(issubclass(cls, LipschitzConv2d) for cls in LAYERS.values())
