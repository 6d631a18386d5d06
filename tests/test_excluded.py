"""The excluded methods in networks: their bounds, their training, and what Figure 6 and Table 3 show of them."""

import json
import math

import pandas as pd
import pytest
import torch
from jacobian import slope_at
from torch import nn
from typer.testing import CliRunner

from lipref.certification.bounds import audit, network_bound
from lipref.certification.certify import certify
from lipref.certification.float_error import evaluation_error
from lipref.cli import main
from lipref.data import Batches, load_dataset, pixels
from lipref.errors import LiprefError
from lipref.layers.excluded import EXCLUDED, BnBConv2d, ECOConv2d, SandwichConv2d
from lipref.nets import convnet
from lipref.paper import comparison, excluded, excluded_tables, figure6
from lipref.paths import RESULTS
from lipref.training import TrainingConfig, train

DIGITS = load_dataset("digits")
RECORDS = RESULTS / "excluded"


def network(layer, size="XS", side=8, **options):
    torch.manual_seed(0)
    return convnet(size, layer, 10, 1, side, **options)


# --- audited


@pytest.mark.parametrize(
    ("layer", "size", "options", "within"),
    [("eco", "XS", {"allow_any_side": True}, (1.3, 1e6)), ("eco", "XS_1x1", {}, (1, 1 + 1e-6)),
     ("sandwich", "XS", {}, (1, 1 + 1e-6)), ("sandwich", "XS_1x1", {}, (1, 1 + 1e-6)),
     ("bnb", "XS_1x1", {}, (1, 1 + 1e-6))],
)  # fmt: skip
def test_the_bound_of_a_network_holds(layer, size, options, within):
    model = network(layer, size, **options)
    found = network_bound(model)
    assert found.unproved == []
    assert within[0] <= found.bound <= within[1]
    assert found.bound >= slope_at(model, torch.randn(1, 8, 8)) * (1 - 1e-9)
    assert evaluation_error(model.float(), found).slope < 1e-6


def test_a_network_whose_features_eco_refuses_has_no_bound():
    model = network("eco")
    for call in (lambda: model(torch.zeros(1, 1, 8, 8)), lambda: network_bound(model)):
        with pytest.raises(LiprefError, match="allow_any_side"):
            call()
    found = audit(model, (1, 8, 8))
    assert found.bound is None
    assert "block0_conv0 (ECOConv2d): its bound fails" in found.unproved[0]


@pytest.mark.parametrize(
    "layer",
    [ECOConv2d(2, 2, 3, allow_any_side=True), ECOConv2d(2, 3, 5, allow_any_side=True), SandwichConv2d(2, 3, 3),
     SandwichConv2d(2, 2, 1), BnBConv2d(2, 2, 1)],
    ids=lambda layer: f"{type(layer).__name__}{layer.kernel_size}",
)  # fmt: skip
def test_the_bound_of_a_folded_layer_holds(layer):
    folded, x = layer.eval().fold((4, 4)), torch.randn(2, 4, 4)
    found = audit(folded, (2, 4, 4))
    assert found.bound == pytest.approx(layer.lipschitz_bound((4, 4)), rel=1e-6)  # rounded to float32 in between
    assert found.bound >= slope_at(folded, x) * (1 - 1e-9)
    with torch.no_grad():
        for number in (*folded.buffers(), *folded.parameters()):
            number.mul_(3)  # nothing is taken from the layer that it was made of
    assert audit(folded, (2, 4, 4)).bound >= slope_at(folded, x) * (1 - 1e-9) > 1.5


def test_a_class_that_overrides_the_map_is_refused():
    class Louder(SandwichConv2d):
        def transform(self, x, operator):
            return 5 * super().transform(x, operator)

    class Liar(ECOConv2d):
        def operator_bound(self, operator, size):
            return 0.1

    for layer in (Louder(2, 2, 3), Liar(2, 2, 3, allow_any_side=True)):
        assert "overrides" in audit(nn.Sequential(layer), (2, 4, 4)).unproved[0]


# --- trained


@pytest.mark.parametrize("layer", EXCLUDED)
def test_a_network_trains_and_is_certified(layer):
    data = load_dataset("digits", limit_train=200, limit_test=50)
    model = network(layer, "XS_1x1")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batches = Batches(data.train, data, batch_size=50, seed=0, device="cpu")
    train(model, batches, TrainingConfig(epochs=1, batch_size=50, learning_rate=0.1))
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    found = network_bound(model)
    assert found.bound <= 1 + 1e-6
    test = pixels(data.test, data, "cpu", torch.float64, batch_size=50)
    assert certify(model, test, found.bound).accuracy.total == 50


# --- Figure 6 and Table 3, computed


def test_variance_is_the_mean_squared_distance_from_the_mean():
    x = torch.tensor([[[1.0, 2.0]], [[3.0, 2.0]], [[5.0, 8.0]]])
    assert excluded.variance(x) == pytest.approx((4 + 4 + 0 + 4 + 4 + 16) / 3)


def test_norms_and_variances_layer_by_layer():
    table = excluded.layer_norms(DIGITS, images=40, steps=1, size="XS", layers=("eco", "aol"))
    assert list(table[["layer", "moment"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("eco", "initial"), ("eco", "1 step"), ("aol", "initial")
    ]  # fmt: skip
    eco, trained, aol = (group for _, group in table.groupby(["layer", "moment"], sort=False))
    bounds = {name: bound for name, _, _, bound in network_bound(network("eco", allow_any_side=True)).layers}
    assert list(eco.module) == ["input", *bounds]
    assert list(eco.norm)[1:] == list(bounds.values())
    assert eco.log2_product.iloc[-1] == pytest.approx(math.log2(math.prod(bounds.values())))
    assert eco.log2_product.iloc[-1] > 3
    assert abs(aol.log2_product.iloc[-1]) < 0.01
    assert (aol.variance.diff().dropna() <= 1e-6 * aol.variance.iloc[0]).all()  # a 1-Lipschitz network adds none
    assert trained.variance.iloc[0] == eco.variance.iloc[0]
    assert (trained.norm.to_numpy() != eco.norm.to_numpy()).any()


def test_norms_at_sides():
    table = excluded.side_norms(range(6, 10)).set_index("side")
    assert list(table.divides) == [True, False, False, True]
    assert table.norm[[6, 9]].max() < 1 + 1e-6
    assert table.norm[[7, 8]].min() > 1.3


def test_gradients_of_the_loss_at_every_module():
    table = excluded.gradient_norms(DIGITS, images=16).set_index("module").norm
    model = network("sandwich").train()
    x = DIGITS.test.images[torch.arange(16) * len(DIGITS.test) // 16].float() / 16 - torch.tensor(DIGITS.mean)
    labels = DIGITS.test.labels[torch.arange(16) * len(DIGITS.test) // 16]
    logits, step = model(x).detach().double(), 1e-3  # by differences

    def loss(logits):
        return float(excluded.offset_cross_entropy(logits, labels))

    total = 0.0
    for place in range(logits.numel()):
        change = torch.zeros_like(logits).view(-1)
        change[place] = step
        change = change.view_as(logits)
        total += ((loss(logits + change) - loss(logits - change)) / (2 * step)) ** 2
    assert table["logits"] == pytest.approx(math.sqrt(total), rel=1e-3)
    assert table["flatten"] == table["head"] == pytest.approx(table["logits"])
    assert (table.diff().dropna() >= -1e-9).all()  # towards the end: every module is 1-Lipschitz
    assert table["first"] < 0.1 * table["logits"]


def test_the_command_writes_tables_and_where_they_come_from(tmp_path):
    arguments = ["excluded", "--dataset", "digits", "--images", "20", "--steps", "0", "--out", str(tmp_path)]
    assert CliRunner().invoke(main.app, arguments).exit_code == 0
    (entry,) = json.loads((tmp_path / "provenance.json").read_text())
    assert entry["asked"] == {"dataset": "digits", "fingerprint": DIGITS.fingerprint(), "images": 20, "steps": 0,
                              "seed": 0}  # fmt: skip
    assert entry["environment"]["torch"] == torch.__version__
    table = excluded_tables.eco(tmp_path)
    assert set(table.measure) == {excluded_tables.VARIANCE, excluded_tables.PRODUCT, excluded_tables.NORM}
    with pytest.raises(LiprefError, match="32x32 pictures"):
        excluded_tables.sandwich(tmp_path)
    (tmp_path / "eco_sides.csv").write_text("side,norm\n1,\n")
    with pytest.raises(LiprefError, match=r"eco_sides.csv is damaged.*lipref excluded"):
        excluded_tables.eco(tmp_path)
    with pytest.raises(LiprefError, match=r"has no eco_layers.csv; lipref excluded"):
        excluded_tables.eco(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "value"), [("images", 1), ("steps", -1), ("seed", True), ("images", 2.0)])
def test_bad_questions_are_refused(name, value):
    with pytest.raises(LiprefError, match=f"{name}={value}"):
        excluded.Question(dataset="digits", **{name: value})


def test_more_pictures_than_there_are():
    with pytest.raises(LiprefError, match="360 test pictures"):
        excluded.layer_norms(DIGITS, images=361, steps=0, layers=("aol",), size="XS")


# --- and shown: the committed records


def test_figure_6_shows_that_eco_expands_and_why():
    table = excluded_tables.eco(RECORDS)
    people = excluded_tables.eco_people(table).set_index(["layer", "moment"])
    assert people.loc[("eco", "initial"), "layers"] == 27
    assert people.loc[("eco", "initial"), "product"].startswith("2^1")  # the paper's picture: about 2^14
    assert people.loc[("bcop", "initial"), "product"] == "1.0000"
    sides = table[table.measure == excluded_tables.NORM]
    authors = sides[sides.setting == excluded_tables.AUTHORS]
    paper = pd.read_csv("data/paper/lipschitz_measured_layers.csv").query("method == 'ECO' and mode == 'eval'")
    assert list(authors.value) == list(paper.sigma_max)
    assert authors.value.min() > 1.5
    assert "On sides that 3 divides" in excluded_tables.say_eco(table)
    nothing = comparison.variant(table, "published")
    assert excluded_tables.say_eco(nothing) == excluded_tables.NOTHING_PUBLISHED
    assert len(excluded_tables.eco_sides_people(table)) == len(sides)


def test_figure_6_is_drawn_from_its_table():
    table = excluded_tables.eco(RECORDS)
    left, middle, right = figure6.eco(table).axes
    for axis, measure in ((left, excluded_tables.VARIANCE), (middle, excluded_tables.PRODUCT)):
        lines = {tuple(line.get_ydata()) for line in axis.lines}
        assert lines == {tuple(group.value) for _, group in
                         table[table.measure == measure].groupby(["layer", "moment"])}  # fmt: skip
    drawn = [value for line in right.lines for value in line.get_ydata()]
    assert set(table[table.measure == excluded_tables.NORM].value) <= set(drawn)
    with pytest.raises(LiprefError, match="not above 0"):
        figure6.eco(table.assign(value=-1.0))
    with pytest.raises(LiprefError, match="no column 'moment'"):
        figure6.eco(table.drop(columns="moment"))
    with pytest.raises(LiprefError, match="norm at a side"):
        figure6.eco(table[table.measure != excluded_tables.NORM])


def test_table_3_stands_beside_the_papers():
    table = excluded_tables.sandwich(RECORDS)
    people = excluded_tables.sandwich_people(table)
    paper = excluded_tables.published_gradients()
    assert list(people["gradient at"]) == list(paper.layer)
    assert [float(text) for text in people.paper] == pytest.approx(list(paper.gradient_frobenius_norm), rel=5e-3)
    both = table.pivot(index="measure", columns="source", values="value")
    away = (both.ours / both.paper).map(math.log10)
    shown = people.set_index("gradient at")["log10(ours / paper)"].astype(float)
    assert (shown - away).abs().max() < 0.006
    assert away.abs().max() < 0.5  # the same vanishing, over more than five orders of magnitude
    found = excluded_tables.sandwich_differences(table)
    assert set(found.verdict) == {comparison.NOT_COMPARABLE}
    assert excluded_tables.REASON in excluded_tables.say_differences(table)
    for variant in ("published", "ours"):
        part = comparison.variant(table, variant)
        assert "log10(ours / paper)" not in excluded_tables.sandwich_people(part)
        assert len(excluded_tables.say_sandwich(part).splitlines()) == 1
    assert excluded_tables.say_differences(comparison.variant(table, "published")).endswith("10 not run.")
