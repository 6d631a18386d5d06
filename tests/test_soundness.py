"""The published constants are lower bounds, the proved ones hold, and false certificates are refuted, ours never."""

import json
import math

import pandas as pd
import pytest
import torch
from torch import nn

from lipref import tensor_files
from lipref.attacks import refuted as refuting
from lipref.attacks.campaign import load_target
from lipref.attacks.refuted import SPECIMENS, refuted
from lipref.certification.bounds import audit, network_bound
from lipref.certification.published_constants import as_published, constants, power_iteration, price
from lipref.cli.soundness import do_soundness
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import convnet
from lipref.paper import certificates, published
from lipref.runs import experiment
from lipref.runs.soundness import CONSTANTS, PRICE, PRODUCT, PROVENANCE, Question, measure, untrained
from tests.tiny_runs import CPU, tiny

LINEAR = ("standard", "aol", "bcop", "cayley", "lot", "soc")
QUICK = Question(iterations=20, images=20)


def small(layer, **options):
    torch.manual_seed(1)
    model = convnet("XS_1x1", layer, 3, 1, 4, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("layer", LAYERS)
def test_published_values_are_lower_bounds_and_unvisited_layers_count_as_one(layer):
    found = constants(small(layer), (1, 4, 4), iterations=50, exact=True)
    assert len(found.layers) == 12
    for part in found.layers:
        assert part.visited == (layer in LINEAR)
        if part.visited:
            assert part.published <= part.exact * (1 + 1e-12)
            assert part.exact <= part.proved * (1 + 1e-12)
        else:
            assert (part.published, part.exact) == (1.0, None)
    assert found.published == pytest.approx(math.prod(part.published for part in found.layers))
    assert found.proved == network_bound(small(layer)).bound


def test_power_iteration_approaches_the_norm_from_below():
    torch.manual_seed(0)
    matrix = torch.randn(30, 20, dtype=torch.float64)
    values = [power_iteration(lambda x: x @ matrix.mT, (20,), count, 3) for count in (1, 2, 5, 1000)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-12)
    assert values[0] < 0.95 * values[-1]
    assert power_iteration(lambda x: 0 * x, (4,), 5, 0) == 0


def test_other_modules_count_as_one_unless_they_are_linear():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.weight.fill_(5)
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), norm, nn.Flatten(), nn.Linear(32, 3))
    conv, batch_norm, linear = constants(model, (2, 4, 4), exact=True).layers
    assert (batch_norm.visited, batch_norm.published) == (False, 1.0)
    assert batch_norm.proved > 4.9
    for part in (conv, linear):
        assert part.published == pytest.approx(part.exact, rel=1e-6)


def test_a_cpl_layer_as_published_is_audited_honestly():
    model = small("cpl")
    for layer in model:
        if hasattr(layer, "u"):
            layer.u.copy_(torch.randn_like(layer.u))
    assert audit(model, (1, 4, 4)).bound == pytest.approx(1)
    theirs = as_published(model)
    assert audit(theirs, (1, 4, 4)).bound > 1 + 1e-6
    assert all(layer.eval_iterations is None for layer in model if hasattr(layer, "u"))


@pytest.mark.parametrize("iterations", [0, True, 1.5])
def test_iterations_are_checked(iterations):
    with pytest.raises(LiprefError, match=f"iterations={iterations}"):
        constants(small("aol"), (1, 4, 4), iterations=iterations)


def test_the_price_divides_by_what_it_is_given():
    model, x = small("bcop"), torch.rand(40, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        batches = [(x, model.double()(x).argmax(1))]
    counts = {(row.way, row.radius * 255): row.count for row in price(model, batches, 0.01, 1e6)}
    assert counts["published", 36] > counts["undivided", 36] >= counts["proved", 36] == 0
    assert counts["undivided", 0] == counts["proved", 0] == 40
    assert {row.way for row in price(model, batches, 1.0, None)} == {"undivided", "published"}
    assert {row.way for row in price(small("standard"), batches, 1.0, 1.0)} == {"published", "proved"}


# ---- runs and their files ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config, data, spec = tiny("aol")
    root = tmp_path_factory.mktemp("runs")
    experiment.execute(config, data, spec, root, device=CPU)
    return root / config.folder


def test_a_run_is_measured_once_and_told_as_it_was(run, tmp_path):
    assert do_soundness([run], tmp_path, question=QUICK, refuted=False) == []
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not measure(run, "trained", QUICK, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    table = certificates.read_constants(tmp_path)
    assert list(dict.fromkeys(table.moment)) == ["initial", "trained"]
    record = json.loads((run / "record.json").read_text())
    trained = table[table.moment == "trained"].set_index("module")
    assert trained.proved[PRODUCT] == record["certificate"]["lipschitz_bound"]
    assert [bound for *_, bound in record["layer_bounds"]] == list(trained.proved.drop(PRODUCT))
    costs = certificates.read_price(tmp_path)
    assert set(costs.images) == {20}
    entries = json.loads((tmp_path / PROVENANCE).read_text())
    assert [entry["moment"] for entry in entries] == ["initial", "trained"]
    # Another question replaces the rows of this run and moment, and no others.
    assert measure(run, "trained", Question(iterations=5, images=20), tmp_path)
    again = certificates.read_constants(tmp_path)
    assert len(again) == len(table)
    assert set(again[again.moment == "trained"].iterations) == {5}
    pd.testing.assert_frame_equal(again[again.moment == "initial"], table[table.moment == "initial"])


def test_the_untrained_network_is_that_of_the_seed(run):
    target = load_target(run, 1, CPU)
    torch.manual_seed(target.record["config"]["settings"]["seed"])
    expected = convnet("XS", "aol", 10, 1, 8).state_dict()
    state = torch.random.get_rng_state()
    built = untrained(target).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(built[name], value) for name, value in expected.items())
    assert any(not torch.equal(built[name], value) for name, value in target.model.state_dict().items())


def test_what_is_no_run_is_told_and_the_rest_is_done(run, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    (line,) = do_soundness([tmp_path / "empty", run], out, initial=False, question=QUICK, refuted=False)
    assert "record.json" in line
    assert not certificates.read_constants(out).empty
    with pytest.raises(LiprefError, match="'later'"):
        measure(run, "later", QUICK, out)
    tensor_files.replace_file(out / PROVENANCE, b"{")
    with pytest.raises(LiprefError, match="damaged"):
        measure(run, "trained", QUICK, out)
    tensor_files.replace_file(out / CONSTANTS, b"a,b\n1,2\n")
    with pytest.raises(LiprefError, match="columns"):
        certificates.read_constants(out)
    with pytest.raises(LiprefError, match=PRICE):
        certificates.read_price(tmp_path)


# ---- false certificates ----


@pytest.mark.parametrize("name", [specimen.name for specimen in SPECIMENS])
def test_a_claimed_constant_is_refuted_and_the_proved_one_is_not(name):
    (row,) = refuted(images=40, only=name).itertuples()
    assert row.certified_claimed >= 10
    assert row.refuted_claimed >= 1
    assert row.certified_proved >= 10
    assert row.refuted_proved == 0


def test_a_bound_that_lies_is_found_by_the_same_attack(monkeypatch):
    """The zero in the column of our own certificates is an attack's, not a matter of form."""
    honest = refuting.audit

    class Lie:
        bound = 0.01

    monkeypatch.setattr(refuting, "audit", lambda model, shape: Lie)
    (row,) = refuted(images=20, only="AOL, batch norm").itertuples()
    assert row.refuted_proved > 0
    assert honest is not refuting.audit


def test_specimens_and_images_are_checked():
    with pytest.raises(LiprefError, match="only='GroupSort'"):
        refuted(only="GroupSort")
    with pytest.raises(LiprefError, match="images=361"):
        refuted(images=361)


# ---- tables ----


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1 + 4e-11, "1 + 4.0e-11"), (0.995, "1 − 5.0e-03"), (300.52, "300.5"), (math.nan, "not proved")],
)
def test_constants_are_shown_by_their_distance_from_one(value, text):
    assert certificates.constant_text(value) == text


def attack_record(layer, images, right):
    least = [0.2] * (right - 1) + [None] + [0.05] * (images - right)
    radii = [0.19] * (right - 1) + [0.01] * (images - right + 1)
    return {"weights_sha256": f"{layer}-weights-of-64", "images": images, "radii": radii, "least_norms": least,
            "config": {"dataset": "digits", "size": "XS", "layer": layer}, "attacked_inside": images,
            "end_points": 1000 * images, "successes": 0,
            "inside": {"pgd": {"least_margin_left": 0.02}, "edge": {"least_margin_left": 0.015}},
            "beyond": {"2.0": {"successes": images // 2, "images": images}}}  # fmt: skip


def prices(**changes):
    rows = [
        {"dataset": "digits", "size": "XS", "layer": layer, "seed": 0, "moment": "trained", "radius": radius,
         "way": way, "count": 30 - (way == "proved") - 5 * (radius != "0/255"), "images": 40,
         "digest": "0", "weights": f"{layer}-weights-of"[:10]}
        for layer in ("aol", "bcop") for radius in ("0/255", "36/255") for way in ("undivided", "published", "proved")
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def test_certified_and_attacked_accuracy_are_of_the_same_images(tmp_path):
    for images, right in ((10, 8), (20, 15)):
        (tmp_path / str(images)).mkdir()
        (tmp_path / str(images) / "attack.json").write_text(json.dumps(attack_record("aol", images, right)))
    found = certificates.robustness(prices(), certificates.read_attacks(tmp_path), "digits")
    aol = found[(found.layer == "aol") & (found.radius == 36 / 255)].set_index("way")
    assert (aol.share["attacked"], aol.share["certified"], aol.images["attacked"]) == (0.75, 0.7, 20)
    shown = certificates.attack_table(certificates.read_attacks(tmp_path))
    assert list(shown["end points"]) == ["10,000", "20,000", "30,000"]
    assert list(shown["margin left"]) == ["1.50 %", "1.50 %", ""]
    assert list(shown["beyond, 2.0 x"]) == ["50 %", "50 %", ""]
    assert certificates.attack_table([]).empty
    assert set(found[found.layer == "bcop"].way) == {"certified"}
    assert "20 test images each: aol" in certificates.say_attacks(found)
    assert "No network was attacked" in certificates.say_attacks(certificates.robustness(prices(), [], "digits"))
    with pytest.raises(LiprefError, match="dataset='mnist'"):
        certificates.robustness(prices(), [], "mnist")
    (tmp_path / "10" / "attack.json").write_text("[]")
    with pytest.raises(LiprefError, match="damaged"):
        certificates.read_attacks(tmp_path)


def test_the_price_is_told_in_images():
    table = certificates.price_table(prices(), "digits")
    assert list(table["CRA(36/255), proved"]) == ["60.0", "60.0"]
    assert list(table["published, images more"]) == ["+1", "+1"]


def test_the_authors_logs_are_read_not_typed():
    table = published.logged_constants()
    assert table[table.layer == "cpl"].constant.eq(1).all()
    assert table[table.layer == "aol"].constant.between(0.9, 1, inclusive="neither").all()
    shown = certificates.logged().set_index("layer")["logged constant"]
    assert shown["cpl"] == "1, nothing measured"
    assert shown["aol"].startswith("0.98")
