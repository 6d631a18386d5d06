"""The counts of the layers' code: complete, exact where the answer is known, and those that are committed."""

import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from lipref.bench import counting, counting_grid
from lipref.bench.counting import INPUT, LIGHT, PARAMETER, WHOLE, count_layer, is_light
from lipref.bench.counting_grid import BASE, ways_of
from lipref.cli.main import app
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve

EVERY_WAY = [pytest.param(way, id=f"{way.layer}-{way.name}") for name in LAYERS for way in ways_of(resolve(name))]
ON_THE_CPU = [param for param in EVERY_WAY if param.values[0].device == "cpu"]
B, S, C = 2, 6, 4


def built(way, channels=C, kernel_size=3):
    point = BASE | dict(way.iterations) | {"c": channels, "k": kernel_size}
    torch.manual_seed(0)
    return way.build(LAYERS[way.layer], point).train()


class Seen(TorchDispatchMode):
    """Every operation that gets a tensor of more than one number."""

    def __init__(self):
        super().__init__()
        self.operations = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        if any(tensor.numel() > 1 for tensor in tensors):
            self.operations.add(func)
        return func(*args, **(kwargs or {}))


def operations(layer, channels=C):
    with Seen() as seen:
        layer.transform(torch.randn(B, channels, S, S), layer.prepare((S, S)))
    return seen.operations


@pytest.mark.parametrize("channels", [C, 128])  # AOL and SLL take products of taps from 128 channels on
@pytest.mark.parametrize("way", ON_THE_CPU)
def test_every_operation_is_counted_or_light(way, channels):
    found = operations(built(way, channels), channels)
    assert found
    assert not [str(op) for op in found if op._overloadpacket not in counting.formulas() and not is_light(op)]


def test_nothing_heavy_is_in_the_list_of_light_ones():
    words = ("mm", "mv", "dot", "conv", "fft", "solve", "cholesky", "eig", "inverse", "lu_", "qr", "svd", "einsum")
    assert not [name for name in LIGHT if any(word in name for word in words) and not name.endswith("_conj")]
    aten = torch.ops.aten
    assert is_light(aten.add.Tensor)
    assert not any(is_light(op) for op in (aten.mv.default, aten.bmm.default, aten.linalg_qr.default))


def test_an_operation_without_a_formula_is_reported(monkeypatch):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.linalg.qr(x)[0]

    (count,) = count_layer(Strange, batch=B, channels=C, side=S).values()
    assert count.unknown == ("aten.linalg_qr",)
    fewer = {packet: formula for packet, formula in counting.formulas().items() if packet is not torch.ops.aten.mv}
    monkeypatch.setattr("lipref.bench.counting.formulas", lambda: fewer)
    assert count_layer(lambda: LAYERS["soc"](C, C, 3), batch=B, channels=C, side=S)[PARAMETER].unknown == ("aten.mv",)


@pytest.mark.parametrize("size", [(2, 6, 4, 3), (3, 8, 6, 5)])
def test_the_unconstrained_convolution_is_exact(size):
    b, s, c, k = size
    counts = count_layer(lambda: LAYERS["standard"](c, c, k, padding_mode="zeros"), batch=b, channels=c, side=s)
    assert counts[INPUT].macs == b * s**2 * c**2 * k**2
    assert (counts[INPUT].stored, counts[INPUT].given) == (b * s**2 * c, b * s**2 * c)
    kernel = counts[PARAMETER]
    assert (kernel.macs, kernel.stored, kernel.given) == (0, c**2 * k**2, c**2 * k**2)
    circular = count_layer(lambda: LAYERS["standard"](c, c, k), batch=b, channels=c, side=s)[INPUT]
    assert (circular.stored, circular.given) == (b * (s + k - 1) ** 2 * c, 0)  # the padded copy


def test_aol_counts_its_self_correlation():
    counts = count_layer(lambda: LAYERS["aol"](C, C, 3), batch=B, channels=C, side=S)[PARAMETER]
    assert counts.macs == 45 * C**3  # a product for each pair of the nine taps, half of them
    (way,) = ways_of(resolve("aol"))
    wide = count_layer(lambda: built(way, 128), batch=B, channels=128, side=S)[PARAMETER]
    assert wide.macs == 45 * 128**3
    # The kernel, as it is, as taps and scaled, its self-correlation at half of the shifts, and a scale per channel.
    assert (27 + 13) * C**2 <= counts.stored <= (27 + 13) * C**2 + 4 * C


@pytest.mark.parametrize("recompute", [False, True])
def test_soc_stores_one_activation_per_term_or_one_in_all(recompute):
    for terms in (1, 5, 8):
        options = {"train_terms": terms, "recompute": recompute}
        counts = count_layer(lambda given=options: LAYERS["soc"](C, C, 3, **given), batch=B, channels=C, side=S)
        assert counts[INPUT].macs == terms * B * S**2 * C**2 * 9
        # Of each term the images, 1 / j, and the kernel times that.
        assert counts[INPUT].stored == (B * S**2 * C if recompute else terms * (B * S**2 * C + 9 * C**2 + 1))


@pytest.mark.parametrize("way", ON_THE_CPU)
def test_shapes_alone_give_what_numbers_give(way):
    """The same on numbers, by torch's counter over the whole forward pass."""
    counts = count_layer(lambda: built(way), batch=B, channels=C, side=S)
    layer, kept = built(way), {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (tensor, storage.nbytes() // tensor.element_size() * (1 + tensor.is_complex()))
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=counting.formulas())
    x = torch.randn(B, C, S, S, requires_grad=True)
    with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    assert sum(part.macs for part in counts.values()) == pytest.approx(counter.get_total_flops() / 2, abs=1)
    assert sum(part.stored for part in counts.values()) == sum(numbers for _, numbers in kept.values())


def operated(function):
    with FlopCounterMode(display=False, custom_mapping=counting.formulas()) as counter:
        function()
    return counter.get_total_flops()


def test_formulas_are_those_of_the_text():
    real, spd = torch.randn(5, 3, 3), torch.eye(3).expand(5, 3, 3).contiguous()
    many = real.to(torch.complex64)
    assert operated(lambda: real @ real) == 2 * 5 * 27
    assert operated(lambda: many @ many) == 8 * 5 * 27
    assert operated(lambda: torch.mv(real[0], real[0, 0])) == 18
    assert operated(lambda: torch.dot(many[0, 0], many[0, 0])) == 24
    assert operated(lambda: torch.linalg.cholesky(spd)) == 5 * 27 / 3
    assert operated(lambda: torch.cholesky_solve(real, spd)) == 2 * 5 * 27
    assert operated(lambda: torch.linalg.solve_triangular(spd, real, upper=True)) == 5 * 27
    assert operated(lambda: torch.linalg.eigh(spd)) == 9 * 5 * 27
    # torch computes vectors too wherever a gradient or a mode may want them; this is what it does without.
    values_alone = torch.ops.aten._linalg_eigh
    assert operated(lambda: values_alone(spd, "L", False)) == pytest.approx(4 / 3 * 5 * 27)
    x = torch.randn(7, 8, 16)
    transform = 5 * 128 * math.log2(128)
    assert operated(lambda: torch.fft.fft2(x.to(torch.complex64))) == 7 * transform
    assert operated(lambda: torch.fft.rfft2(x)) == 7 * transform / 2
    assert operated(lambda: torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 16))) == 7 * transform


def test_lots_products_grow_with_its_steps_and_its_eigenvalues_do_not():
    on_cpu, elsewhere = ways_of(resolve("lot"))
    macs = {
        (way.device, t): count_layer(
            lambda way=way, t=t: way.build(LAYERS["lot"], {"c": C, "k": 3, "t": t}),
            batch=B, channels=C, side=S, device=way.device,
        )[PARAMETER].macs
        for way in (on_cpu, elsewhere) for t in (5, 10, 15)
    }  # fmt: skip
    assert macs["cpu", 5] == macs["cpu", 10]
    steps = macs["meta", 10] - macs["meta", 5]
    assert steps == macs["meta", 15] - macs["meta", 10] == 5 * 3 * C**3 * (4 + 4 * ((S + 2) ** 2 - 4) // 2)


@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_committed_counts_are_those_of_this_code(way):
    kept = counting_grid.read_counts()
    point = next(way.points())
    mine = kept[(kept.layer == way.layer) & (kept.way == way.name)]
    base = mine[(mine[list(point)] == pd.Series(point)).all(axis=1)].set_index("part")
    counts = count_layer(
        lambda: way.build(LAYERS[way.layer], point), batch=BASE["b"], channels=BASE["c"], side=BASE["s"],
        device=way.device,
    )  # fmt: skip
    assert set(base.index) == set(counts) == {PARAMETER, INPUT}
    for part, count in counts.items():
        assert (count.macs, count.stored, count.given) == tuple(base.loc[part, ["macs", "stored", "given"]])
        assert base.loc[part, "unknown"] == ""
    assert len(mine) == 2 * len(list(way.points()))


# ---- one's own layers, and files ----

OWN = """
import torch
from torch import nn


class Fails(nn.Module):
    def __init__(self, *args):
        raise ValueError("no such layer")


class Asks(nn.Conv2d):
    def forward(self, x):
        return x if float(self.weight.detach().sum()) > 0 else -x


class Shrinks(nn.Conv2d):
    pass
"""


def test_ones_own_layer_is_counted_live_or_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lipref.bench.counting_grid.AXES", {"b": (256, 512), "s": (32,), "c": (64,), "k": (3,)})
    path = tmp_path / "own.py"
    path.write_text(OWN)
    specs = [resolve(name) for name in ("aol", "examples/my_layer.py:MyConv")]
    specs += [resolve(f"{path}:{name}") for name in ("Fails", "Asks", "Shrinks")]
    counts, lines = counting_grid.counts_of(specs)
    assert list(dict.fromkeys(counts.layer)) == ["aol", "MyConv"]
    own = counts[counts.layer == "MyConv"]
    assert set(own.part) == {WHOLE}
    assert list(own.macs) == [b * 32**2 * 64**2 * 9 for b in (256, 512)]
    fails, asks, shrinks = lines.splitlines()
    assert fails == "Fails is not counted: no such layer"
    assert asks.startswith("Asks is not counted: Asks asks for values")
    assert "(256, 64, 32, 32)" in shrinks


def test_the_command_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lipref.bench.counting_grid.AXES", {"b": (256,), "s": (32,), "c": (64,), "k": (3, 5)})
    result = CliRunner().invoke(app, ["count", "--layers", "standard", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {counting_grid.COUNTS, counting_grid.PROVENANCE}
    pd.testing.assert_frame_equal(counting_grid.read_counts(tmp_path), counting_grid.count([resolve("standard")]))
    before = (tmp_path / counting_grid.COUNTS).read_bytes()
    counting_grid.write_counts([resolve("standard")], tmp_path)
    assert (tmp_path / counting_grid.COUNTS).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("macs", "flops", 1), "columns"),
        (lambda text: text.replace("parameter", "half"), "part"),
        (lambda text: text.replace(",36864,", ",,", 1), "missing"),
        (lambda text: text.replace(",36864,", ",x,", 1), "damaged"),
    ],
)
def test_damaged_counts_are_refused(tmp_path, change, named):
    with pytest.raises(LiprefError, match="lipref count"):
        counting_grid.read_counts(tmp_path)
    (tmp_path / counting_grid.COUNTS).write_text(change((counting_grid.COMMITTED / counting_grid.COUNTS).read_text()))
    with pytest.raises(LiprefError, match=named):
        counting_grid.read_counts(tmp_path)


@pytest.mark.parametrize("name", ["cayley", "lot", "aol", "soc"])
def test_counting_leaves_no_trace_in_what_is_computed_later(name):
    """Constants that are kept are real numbers, also where the first to ask for them was the count."""
    layer = LAYERS[name](6, 6, 3).train()
    for _ in range(2):
        count_layer(lambda: LAYERS[name](6, 6, 3), batch=1, channels=6, side=12)
        assert type(layer(torch.rand(1, 6, 12, 12))) is torch.Tensor
