"""Networks that look certified and are not: each is refused, and would pass if its one defence were taken out."""

import math

import pytest
import torch
from jacobian import points, slope_at
from specimens import SHAPE, SPECIMENS, bound_one, of_type, weighted
from torch import nn

from lipref.certification import certify as certification
from lipref.certification.bounds import audit, known, tampering
from lipref.certification.certify import certify
from lipref.errors import LiprefError
from lipref.layers import LAYERS, LipschitzConv2d
from lipref.linalg import polar
from lipref.nets import convnet


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.name)
def test_a_specimen_is_refused_and_would_pass_undefended(specimen, monkeypatch):
    xs = points()

    def make():
        torch.manual_seed(0)
        return specimen.make()

    steep = max(slope_at(make(), x) for x in xs)
    found = audit(make(), SHAPE, check=specimen.check)
    if specimen.says is None:
        assert not found.unproved
        assert found.bound >= steep * (1 - 1e-9)
    else:
        assert found.bound is None
        assert specimen.says in found.unproved[0]
    specimen.undefend(monkeypatch)
    undefended = audit(make(), SHAPE, check=specimen.check)
    assert undefended.unproved == []
    assert undefended.bound < steep * (1 - 1e-9)


def test_a_global_hook(monkeypatch):
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, y: 2 * y)
    try:
        assert "global" in audit(nn.ReLU(), SHAPE).unproved[0]
        monkeypatch.setattr(tampering, "global_hooks", lambda: None)
        assert audit(nn.ReLU(), SHAPE).bound < 1.01
        assert slope_at(nn.ReLU(), points()[1]) > 1.9
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, value) for name in ("cpl", "sll", "lot") for value in (math.nan, math.inf)), ("lot", 1e300)],
)
def test_damaged_weights(name, value, monkeypatch):
    layer = weighted(name, value)()
    assert "weight" in audit(layer, SHAPE).unproved[0]
    monkeypatch.setattr(tampering, "not_finite", lambda value: False)
    monkeypatch.setattr(known, "moderate", lambda module: None)
    assert "finite" in audit(layer, SHAPE).unproved[0]  # Python's max(1, NaN) is 1, that of bounds is not
    assert not torch.isfinite(layer.eval()(points()[1][None])).all()


def test_a_polar_factor_from_a_start_that_is_not_normalised(monkeypatch):
    torch.manual_seed(0)
    layer = LAYERS["bcop"](2, 2, 1, iterations=3).double()
    with torch.no_grad():
        layer.matrix.mul_(4)
    assert audit(layer, SHAPE).bound < 1 + 1e-9
    monkeypatch.setattr(polar, "_norm_bound", lambda a: 1.0)
    steep = slope_at(layer, points()[0])
    assert steep > 1.1
    assert audit(layer, SHAPE).bound >= steep  # the kernel is measured as it is
    bound_one("bcop")(monkeypatch)
    assert audit(layer, SHAPE).bound < steep


def test_a_softplus_jumps_at_its_threshold(monkeypatch):
    x = torch.tensor([[[20.0, 20.0 + 1e-12]]], dtype=torch.float64)
    y = nn.Softplus()(x)
    assert float((y[..., 1] - y[..., 0]).abs()) > 1000 * 1e-12
    assert "jumps" in audit(nn.Softplus(), (1, 1, 2)).unproved[0]
    assert audit(nn.Softplus(threshold=40), (1, 1, 2)).bound == pytest.approx(1)
    of_type(nn.Softplus)(monkeypatch)
    assert audit(nn.Softplus(), (1, 1, 2)).bound is not None


# ---- a bound of one size, weights of another time ----


def test_a_bound_of_another_image_size():
    layer = LAYERS["standard"](1, 1, 3, bias=False).double()
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 1] = torch.tensor([-1.0, 2.0, -1.0])
    small = audit(layer, (1, 1, 1))
    assert small.bound < 1e-9  # on one pixel the taps cancel
    assert slope_at(layer, torch.randn(1, 8, 8)) > 3.9
    assert small.bound_for((1, 1, 1)) == small.bound
    with pytest.raises(LiprefError, match="not \\(1, 8, 8\\)"):
        small.bound_for((1, 8, 8))
    model = convnet("XS_1x1", "aol", 3, 1, 4)
    with pytest.raises(LiprefError, match="expected"):
        model(torch.zeros(1, 1, 8, 8))
    assert "takes images of (1, 4, 4)" in audit(nn.Sequential(model), (1, 8, 8)).unproved[0]


def in_place(layer):
    with torch.no_grad():
        layer.weight.add_(0.5)


def through_data(layer):
    layer.weight.data[0, 0] = 3


def load(layer):
    layer.load_state_dict({name: 2 * value + 1 for name, value in layer.state_dict().items()})


def step(layer):
    layer.weight.grad = torch.randn_like(layer.weight)
    torch.optim.Adam(layer.parameters(), lr=0.5).step()


def to_float64(layer):
    layer.to(torch.float64)


def other_size(layer):
    pass


@pytest.mark.parametrize("edit", [in_place, through_data, load, step, to_float64, other_size])
def test_a_kept_operator_is_never_stale(edit, monkeypatch):
    torch.manual_seed(0)
    size = (6, 5) if edit is other_size else (4, 4)

    def kept_then_edited():
        torch.manual_seed(1)
        layer = LAYERS["lot"](2, 2, 3).eval()
        layer.operator((4, 4))
        edit(layer)
        return layer

    def is_fresh(layer):
        kept, fresh = layer.operator(size)["symbol"], honest(layer, size)["symbol"]
        return kept.shape == fresh.shape and kept.dtype == fresh.dtype and torch.equal(kept, fresh)

    prepare = LipschitzConv2d.operator

    def honest(layer, size):
        layer._cached = None
        return prepare(layer, size)

    assert is_fresh(kept_then_edited())
    careless = lambda self, size: self._cached[1] if self._cached else prepare(self, size)  # noqa: E731
    monkeypatch.setattr(LipschitzConv2d, "operator", careless)
    assert not is_fresh(kept_then_edited())


def test_tied_logits_certify_nothing(monkeypatch):
    batch = [(torch.ones(1, 2), torch.tensor([0]))]
    assert certify(nn.Identity(), batch, 1.0).accuracy.count == 0
    honest = certification.margins
    monkeypatch.setattr(certification, "margins", lambda *a, **k: honest(*a, **k) + 1)
    assert certify(nn.Identity(), batch, 1.0).accuracy.count == 1


@pytest.mark.parametrize("way", ["autocast", "tf32", "bf16"])
def test_low_precision_does_not_reach_the_certificate(way):
    torch.manual_seed(0)
    model = convnet("XS", "aol", 3, 1, 4).eval()
    if way == "bf16":
        model = model.bfloat16()
    batch = [(torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]))]
    double = audit(model.double(), (1, 4, 4)).bound if way == "bf16" else audit(model, (1, 4, 4)).bound
    model = model.bfloat16() if way == "bf16" else model
    radii = certify(model, batch, double).radii
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if way == "tf32" else before)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
            assert audit(model, (1, 4, 4)).bound == double
            found = certify(model, batch, double).radii
            if way == "autocast":  # what float32 would become here, and float64 does not
                conv, x = nn.Conv2d(1, 4, 3), batch[0][0]
                low, high = conv(x), conv.double()(x.double())
                assert (low - high).abs().max() > 1e-4
                assert high.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float64
    assert torch.equal(found, radii)
