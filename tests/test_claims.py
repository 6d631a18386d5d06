"""Verdicts come from the records alone: equal ones agree, an altered one differs."""

import copy
import json

import claim_records as made
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipref.errors import LiprefError
from lipref.paper import claims
from lipref.paper.claims import scores
from lipref.paper.claims.estimate import Estimate, at_least, at_most, near
from lipref.paper.comparison import AGREES, DIFFERS, NOT_COMPARABLE, NOT_RUN
from lipref.paths import PAPER, ROOT

CIFAR10 = "best-cifar10,accuracy-cifar10,cra-cifar10"


@pytest.fixture(scope="module")
def committed():
    return claims.check(claims.CLAIMS, claims.Evidence())


@pytest.fixture(scope="module")
def whole():
    """All networks of the paper, equal to it, at all budgets; a bound of every layer as in the committed run."""
    networks = [
        *(record for dataset in ("CIFAR-10", "CIFAR-100", "TinyImageNet") for record in made.full(dataset)),
        *made.full("CIFAR-10", kernels=("1x1",)),
    ]
    return networks


def verdicts(folder, only=None):
    found = claims.check(claims.chosen(only), claims.Evidence([folder]))
    return found, found.groupby("claim", sort=False).verdict.agg(claims.overall).to_dict()


def altered(records, change, *places):
    records = copy.deepcopy(records)
    change(*(made.find(records, *place) for place in places))
    return records


# --- the committed records


# Both say what the authors' code costs; on a GPU ours is leaner for CPL, and LOT's steps are no longer the slowest.
OF_THEIR_CODE = {"cpl-soc-ratio", "lot-starved-m"}


def test_the_committed_records_contradict_nothing_but_what_the_authors_code_costs(committed):
    differing = committed[committed.verdict == DIFFERS]
    assert set(differing.claim) == OF_THEIR_CODE
    assert differing.evidence.str.contains("bench-h200").all()
    assert claims.exit_code(committed) == 1
    assert claims.exit_code(committed[~committed.claim.isin(OF_THEIR_CODE)]) == 0
    assert claims.exit_code(committed, strict=True) == 1


def test_ids_are_unique_and_every_claim_has_lines(committed):
    ids = [claim.id for claim in claims.CLAIMS]
    assert len(ids) == len(set(ids))
    assert list(dict.fromkeys(committed.claim)) == ids


def test_every_line_has_evidence_that_is_there(committed):
    for cell in committed.evidence.unique():
        assert all((ROOT / path).exists() for path in cell.split("; ")), cell


def test_published_values_are_the_papers(committed):
    """Independently read: the values of Tables 9 to 11 at 24 h."""
    table = pd.read_csv(PAPER / "paper_accuracy_by_budget.csv")
    table = table.query("kernel_size == 3 and budget_h == 24 and status == 'ok'")
    shown = committed[committed.claim.str.startswith(("cra-", "accuracy-"))]
    assert sorted(shown.published) == pytest.approx(sorted([*table.accuracy_pct, *table.cra36_pct]))


def test_what_the_papers_own_numbers_do_not_support(committed):
    contradicted = committed[committed.supported == DIFFERS]
    found = {claim: set(rows.what.str.split(":").str[0]) for claim, rows in contradicted.groupby("claim")}
    assert found == {
        "radar-robust-accuracy": {"AOL", "BCOP", "SLL"}, "bounds": {"CPL"},
        "logged-constants": {"BCOP", "CPL", "SLL", "SOC"},
    }  # fmt: skip
    (aol,) = contradicted[contradicted.what.str.startswith("AOL")].itertuples()
    assert (aol.published, "SLL (1, score 3)" in aol.note) == (5, True)


def test_measurements_say_where_they_were_made(committed):
    ours = committed[committed.evidence.str.contains("costs.json")]
    ours = ours[ours.claim.str.contains("cpl-|overhead|grows")]
    on_gpu = ours.evidence.str.contains("h200")
    assert ours[on_gpu].note.str.contains(r"32x32 pictures, CUDA \(NVIDIA H200\)").all()
    ours = ours[~on_gpu]
    assert len(ours) > 20
    assert ours.note.str.contains("(?:8x8|32x32) pictures, CPU").all()
    sizes = ours[ours.claim == "cpl-soc-ratio"]
    assert set(sizes.verdict) == {NOT_COMPARABLE}
    assert set(ours[ours.claim == "cpl-cheaper-than-soc"].verdict) == {AGREES}


# --- records equal to the paper, and altered ones


def test_records_equal_to_the_paper_agree_with_all_claims_on_them(tmp_path, whole):
    table, found = verdicts(made.keep(tmp_path, whole, made.published_costs()))
    wrong = table[table.verdict == DIFFERS]
    assert wrong.empty, wrong[["claim", "what", "note"]].to_string()
    agreed = set(found) - {name for name, word in found.items() if word == NOT_RUN}
    assert set(found) - agreed == {"eco-not-1-lipschitz"}
    assert claims.exit_code(table) == 0


@pytest.mark.parametrize(("points", "word"), [(1.4, AGREES), (-1.4, AGREES), (5, DIFFERS), (-5, DIFFERS)])
@pytest.mark.parametrize("measure", ["accuracy", "cra"])
def test_an_altered_value_flips_its_verdict(tmp_path, whole, measure, points, word):
    cifar10 = [record for record in whole if record["config"]["dataset"] == "cifar10"]
    records = altered(cifar10, lambda record: made.alter(record, measure, points), ("soc", "M"))
    table, found = verdicts(made.keep(tmp_path, records), CIFAR10)
    assert found[f"{measure}-cifar10"] == word
    assert claims.exit_code(table) == (word == DIFFERS)
    (line,) = table[(table.claim == f"{measure}-cifar10") & table.what.str.contains("SOC M")].itertuples()
    assert line.verdict == word
    others = table[(table.claim == f"{measure}-cifar10") & (table.verdict != AGREES)]
    assert len(others) == (word == DIFFERS)


@pytest.mark.parametrize(
    ("claim", "measure", "changes"),
    [
        ("best-cifar10", "cra", {("cpl", "S"): 9}),
        ("lot-best-small", "cra", {("lot", "XS"): -6}),
        ("lot-starved-m", "cra", {("lot", "M"): 12}),
        ("cayley-never-leads", "accuracy", {("cayley", "S"): 8}),
        ("1x1-worse", "cra", {(layer, "S_1x1"): 20 for layer in ("aol", "bcop", "cayley", "lot", "soc")}),
        ("radar-robust-accuracy", "cra", {("bcop", size): 20 for size in ("XS", "S", "M")}),
        ("radar-accuracy", "accuracy", {("bcop", size): 20 for size in ("XS", "S", "M")}),
        ("m-beats-l", "cra", {(layer, "L"): 20 for layer in ("cayley", "sll", "soc", "cpl", "aol")}),
    ],
)
def test_a_claim_on_several_networks_can_differ(tmp_path, whole, claim, measure, changes):
    records = copy.deepcopy(whole)
    for place, points in changes.items():
        # M against L counts over the three data sets: all are altered.
        for record in records:
            same = (record["config"]["layer"], record["config"]["size"]) == place
            if same and (record["config"]["dataset"] == "cifar10" or claim == "m-beats-l"):
                made.alter(record, measure, points)
    table, found = verdicts(made.keep(tmp_path, records), claim)
    assert found[claim] == DIFFERS
    assert claims.exit_code(table) == 1


def test_scores_are_of_the_papers_runs_and_measurements(tmp_path, whole):
    costs = made.published_costs()
    other = made.run("CIFAR-10", "cpl", "S", 1, 1)
    other["config"]["settings"]["epochs"] = 20  # another training counts for nothing
    table, found = verdicts(made.keep(tmp_path / "equal", [*whole, other], costs), "cpl-all-rounder")
    assert found == {"cpl-all-rounder": AGREES}
    assert table.note.str.contains("32x32 pictures, CUDA").all()
    for record in costs:
        if record["config"]["layer"] == "cpl":
            record["train_peak_bytes"] *= 50
    _, found = verdicts(made.keep(tmp_path / "altered", whole, costs), "cpl-all-rounder")
    assert found == {"cpl-all-rounder": DIFFERS}


def test_a_network_that_is_missing_leaves_its_claims_open(tmp_path, whole):
    records = [record for record in whole if record["config"]["layer"] != "cayley"]
    table, found = verdicts(made.keep(tmp_path, records), "best-cifar10,cayley-never-leads,cra-cifar10")
    assert found["cayley-never-leads"] == NOT_RUN
    assert table[table.what.str.contains("lead over")].verdict.item() == NOT_RUN
    assert found["cra-cifar10"] == AGREES
    assert (claims.exit_code(table), claims.exit_code(table, strict=True)) == (0, 1)


def test_a_run_that_diverged_differs(tmp_path):
    record = made.run("CIFAR-10", "soc", "M", 77, 66)
    lost = {"what": "loss", "step": 3, "epoch": 0, "layer": "head"}
    record |= {"status": "diverged", "diverged": lost, "certificate": None}
    _, found = verdicts(made.keep(tmp_path, [record]), CIFAR10)
    assert (found["cra-cifar10"], found["accuracy-cifar10"], found["best-cifar10"]) == (DIFFERS,) * 3


def test_several_seeds_are_one_mean(tmp_path):
    records = [made.run("CIFAR-10", "soc", "M", 76.9, cra, seed=seed) for seed, cra in enumerate((60.3, 66.3, 72.3))]
    table, _ = verdicts(made.keep(tmp_path, records), "cra-cifar10")
    (line,) = table[table.verdict != NOT_RUN].itertuples()
    assert (line.verdict, line.note, round(line.ours, 6)) == (AGREES, "3 seeds", 66.3)
    assert line.high - line.low < 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 20}, "epochs: 20, not 2412"), ({"batch_size": 64}, "batch: 64, not 256"),
        ({"schedule": "constant"}, "schedule: constant"), ({"offset": 0.0}, "offset: 0.0"),
        ({"temperature": 1.0}, "temperature: 1.0"),
    ],
)  # fmt: skip
def test_another_training_is_not_compared(tmp_path, change, reason):
    record = made.run("CIFAR-10", "soc", "M", 10, 1)
    record["config"]["settings"] |= change
    table, found = verdicts(made.keep(tmp_path, [record]), "cra-cifar10")
    assert found["cra-cifar10"] == NOT_COMPARABLE
    assert table[table.verdict == NOT_COMPARABLE].note.item().startswith(reason)


@pytest.mark.parametrize("config", [{"train_images": 4500}, {"test_images": 1000}, {"validation": 0.1},
                                    {"dataset": "cifar10-jpeg"}])  # fmt: skip
def test_other_pictures_are_not_compared(tmp_path, config):
    record = made.run("CIFAR-10", "soc", "M", 10, 1)
    record["config"] |= config
    for share in (record["certificate"]["accuracy"], *record["certificate"]["cra"].values()):
        share.update(made.share(100 * share["value"], record["config"]["test_images"]))
    _, found = verdicts(made.keep(tmp_path, [record]), "cra-cifar10")
    assert found["cra-cifar10"] == NOT_COMPARABLE


# --- costs, bounds, parameters, budgets


@pytest.mark.parametrize(
    ("claim", "layer", "quantity", "factor"),
    [
        ("cpl-cheaper-than-soc", "cpl", "train_seconds", 4), ("cpl-cheaper-than-soc", "cpl", "train_peak_bytes", 4),
        ("no-inference-overhead", "aol", "folded_peak_bytes", 1.1),
        ("cayley-never-leads", "cayley", "train_peak_bytes", 0.1), ("time-grows", "lot", "train_seconds", 0.1),
        ("memory-grows", "lot", "train_peak_bytes", 0.1),
    ],
)  # fmt: skip
def test_an_altered_measurement_flips_its_verdict(tmp_path, claim, layer, quantity, factor):
    costs = json.loads((made.COMMITTED / "costs.json").read_text())
    _, before = verdicts(made.keep(tmp_path / "as it is", costs=costs), claim)
    record = made.find(costs, layer, "S")
    if "seconds" in quantity:
        record[quantity] |= {name: factor * record[quantity][name] for name in ("median", "low", "high")}
    else:
        record[quantity] *= factor
    table, after = verdicts(made.keep(tmp_path / "altered", costs=costs), claim)
    assert (before[claim], after[claim], claims.exit_code(table)) == (AGREES, DIFFERS, 1)


@pytest.mark.parametrize(("factor", "word"), [(1, AGREES), (1.2, AGREES), (1.4, DIFFERS), (0.7, DIFFERS)])
def test_the_size_of_a_ratio_counts_on_the_papers_machine(tmp_path, factor, word):
    costs = made.published_costs()
    for size in ("XS", "S", "M", "L"):
        record = made.find(costs, "cpl", size)
        record["train_peak_bytes"] *= factor
    _, found = verdicts(made.keep(tmp_path / "A100", costs=costs), "cpl-soc-ratio")
    assert found["cpl-soc-ratio"] == word
    for record in costs:
        record["config"]["machine"] = "another GPU"
    table, _ = verdicts(made.keep(tmp_path / "other", costs=costs), "cpl-soc-ratio")
    times = table.what.str.contains("time")
    assert set(table[times].verdict) == {NOT_COMPARABLE}
    assert set(table[~times].verdict) == {word}


def test_a_folded_network_on_a_gpu_may_not_be_slower(tmp_path):
    for factor, word in ((1.03, AGREES), (1.2, DIFFERS)):
        costs = [made.measured("standard", "S"), made.measured("aol", "S", seconds=factor)]
        _, found = verdicts(made.keep(tmp_path / str(factor), costs=costs), "no-inference-overhead")
        assert found["no-inference-overhead"] == word


def test_a_bound_above_1_or_none_differs(tmp_path):
    records = json.loads((made.COMMITTED / "records.json").read_text())
    for number, change in enumerate(({"lipschitz_bound": 1.01}, {"proved": False, "lipschitz_bound": None})):
        changed = altered(records, lambda record, change=change: record["certificate"].update(change), ("cpl", "XS"))
        table, found = verdicts(made.keep(tmp_path / str(number), changed), "bounds,logged-constants")
        assert found == {"bounds": DIFFERS, "logged-constants": DIFFERS}
        assert set(table[table.verdict == DIFFERS].what.str.split(":").str[0]) == {"CPL"}
    changed = altered(records, lambda record: record["layer_bounds"][3].__setitem__(3, 1.5), ("soc", "XS"))
    assert verdicts(made.keep(tmp_path / "layer", changed), "bounds")[1] == {"bounds": DIFFERS}


def test_a_recorded_number_of_parameters_is_counted_again(tmp_path):
    records = json.loads((made.COMMITTED / "records.json").read_text())
    assert verdicts(made.keep(tmp_path / "as it is", records), "parameters")[1] == {"parameters": AGREES}
    changed = altered(records, lambda record: record.update(parameters=95_425), ("aol", "XS"))
    table, found = verdicts(made.keep(tmp_path / "altered", changed), "parameters")
    assert found == {"parameters": DIFFERS}
    assert table[table.verdict == DIFFERS].what.item() == "AOL XS, 8x8x1, as recorded"


def test_known_differences_of_parameters_are_said():
    table = claims.check(claims.chosen("parameters"), claims.Evidence())
    notes = table[table.published.notna() & (table.published != table.ours)]
    assert set(notes.what.str.split().str[0]) == {"BCOP", "Cayley"}
    assert notes.note.str.contains("half of each frame|scale from the start").all()


def test_a_budget_of_other_epochs_differs(tmp_path):
    record = made.run("CIFAR-10", "aol", "L", 73.7, 61.5, budget="10h")
    assert verdicts(made.keep(tmp_path / "a", [record]), "budgets")[1] == {"budgets": AGREES}
    record["config"]["settings"]["epochs"] += 1
    assert verdicts(made.keep(tmp_path / "b", [record]), "budgets")[1] == {"budgets": DIFFERS}


def test_eco_from_a_table_of_excluded_layers(tmp_path):
    folder = made.keep(tmp_path, [made.run("CIFAR-10", "aol", "L", 73.7, 61.5)])
    assert verdicts(folder, "eco-not-1-lipschitz")[1] == {"eco-not-1-lipschitz": NOT_RUN}
    (folder / "excluded").mkdir()
    path = folder / "excluded" / "eco.csv"
    (folder / "excluded" / "eco_sides.csv").write_text("side,kernel_size,norm\n9,3,1.7\n")
    for text, word in (("eco,9,1.7", NOT_RUN), ("eco,8,1.698", AGREES), ("ECO,16,1.0", DIFFERS), ("aol,8,2", NOT_RUN)):
        path.write_text(f"layer,side,sigma_max\n{text}\n")
        assert verdicts(folder, "eco-not-1-lipschitz")[1] == {"eco-not-1-lipschitz": word}, text
    (folder / "excluded" / "eco_sides.csv").write_text("side,kernel_size,norm\n8,3,1.7\n")
    assert verdicts(folder, "eco-not-1-lipschitz")[1] == {"eco-not-1-lipschitz": AGREES}
    (folder / "excluded" / "eco_sides.csv").unlink()
    path.write_text("something,else\n1,2\n")
    assert verdicts(folder, "eco-not-1-lipschitz")[1] == {"eco-not-1-lipschitz": NOT_RUN}


# --- the radar's rule


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 21), min_size=2))
@settings(deadline=None)
def test_scores_that_follow_the_counts_contradict_nothing(counts):
    places = {count: place for place, count in enumerate(sorted(set(counts.values())))}
    assert scores.contradictions(counts, {layer: places[count] for layer, count in counts.items()}) == []


@given(st.lists(st.integers(0, 100), min_size=10, max_size=30, unique=True))
@settings(deadline=None)
def test_the_counts_of_one_data_set_are_fourteen(values):
    networks = {(f"layer{number % 4}", str(number)): value for number, value in enumerate(values)}
    assert sum(scores.counts({"one": networks}).values()) == sum(scores.TOPS)


@given(st.floats(-100, 100), st.floats(0, 10), st.floats(-100, 100))
@settings(deadline=None)
def test_one_sided_verdicts(value, half, threshold):
    ours = Estimate(value, value - half, value + half)
    if abs(abs(threshold - value) - half) > 1e-6:
        assert at_least(threshold, ours) == (AGREES if value + half > threshold else DIFFERS)
        assert at_most(threshold, ours) == (AGREES if value - half < threshold else DIFFERS)
        both = {at_least(threshold, ours), at_most(threshold, ours)}
        assert near(threshold, ours, 0) == (DIFFERS if DIFFERS in both else AGREES)


# --- damaged records


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("certificate"), lambda record: record.update(format=2),
        lambda record: record["config"].pop("layer"), lambda record: record.update(status="perhaps"),
        lambda record: record["certificate"]["accuracy"].update(value=0.99),
        lambda record: record["certificate"]["cra"]["36/255"].update(low=0.1, high=0.9),
        lambda record: record["certificate"]["cra"]["36/255"].update(count=10_001),
        lambda record: record["certificate"]["accuracy"].update(total="all"),
        lambda record: record["certificate"]["accuracy"].update(total=0),
    ],
)  # fmt: skip
def test_a_damaged_run_is_refused(tmp_path, damage):
    record = made.run("CIFAR-10", "soc", "M", 76.9, 66.3)
    damage(record)
    with pytest.raises(LiprefError, match=r"record 0"):
        claims.Evidence([made.keep(tmp_path, [record])])


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("train_seconds"), lambda record: record.update(kind="run"),
        lambda record: record["train_seconds"].update(median=9.0),
        lambda record: record["folded_seconds"].update(low=-1.0), lambda record: record.update(config={}),
    ],
)  # fmt: skip
def test_a_damaged_measurement_is_refused(tmp_path, damage):
    record = made.measured("soc", "M")
    damage(record)
    with pytest.raises(LiprefError, match=r"record 0"):
        claims.Evidence([made.keep(tmp_path, costs=[record])])


def test_a_folder_without_records_and_a_wrong_id_are_refused(tmp_path):
    with pytest.raises(LiprefError, match="neither records"):
        claims.Evidence([tmp_path])
    with pytest.raises(LiprefError, match=r"unknown claim 'best'; known: best-cifar10"):
        claims.chosen("bounds,best")
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(LiprefError, match="damaged"):
        claims.Evidence([tmp_path])


def test_todo_names_commands_and_hours(tmp_path):
    text = "\n".join(claims.todo(claims.Evidence(), ["soc", "lot"]))
    assert "648 GPU hours" in text
    assert "lipref measure" in text
