"""What the machine reaches: finite rates on tiny sizes, spreads by their rule, a file that is read again."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.bench import ceilings
from lipref.errors import LiprefError

TINY = ceilings.Sizes(matrix=8, numbers=64, batch=1, channels=2, side=4)


def test_every_rate_is_positive_and_finite():
    told = []
    found = ceilings.measure("cpu", TINY, repeats=2, rounds=3, on_quantity=lambda *step: told.append(step))
    names = [ceilings.FLOAT32, ceilings.FLOAT64, ceilings.CONVOLUTION, ceilings.COPY, ceilings.TRIAD]
    assert list(found["values"]) == names
    for name, value in found["values"].items():
        assert 0 < value["low"] <= value["median"] <= value["high"] < math.inf
        assert (value["repeats"], len(value["rounds"])) == (6, 3)
        assert value["unit"] == ("GB/s" if name in (ceilings.COPY, ceilings.TRIAD) else "GFLOP/s")
    assert "8 x 8" in found["values"][ceilings.FLOAT64]["what"]
    assert [step[0] for step in told] == list(range(15))
    assert {step[1] for step in told} == {15}
    assert found["environment"]["torch"] == found["torch"] == str(torch.__version__)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    most = max(found["values"][name]["median"] for name in (ceilings.FLOAT32, ceilings.CONVOLUTION))
    assert ceilings.of_products(found) == most


def test_rates_are_work_over_time(monkeypatch):
    monkeypatch.setattr(ceilings.workloads, "seconds", lambda function, *_: [function() is None or 2e-9])
    values = ceilings.measure("cpu", TINY, rounds=1)["values"]
    expected = {ceilings.FLOAT32: 2 * 8**3, ceilings.FLOAT64: 2 * 8**3, ceilings.CONVOLUTION: 2 * 4**2 * 9 * 2 * 2,
                ceilings.COPY: 64 * 8, ceilings.TRIAD: 64 * 12}  # fmt: skip
    assert {name: value["median"] for name, value in values.items()} == pytest.approx(
        {name: amount / 2 for name, amount in expected.items()}
    )


def test_the_work_is_what_it_says():
    """The amounts above are those of these operations."""
    work = ceilings._work(torch.device("cpu"), TINY)
    assert torch.equal(work[ceilings.FLOAT32].make()(), torch.full((8, 8), 8 * 0.5 * 0.25))
    assert work[ceilings.FLOAT64].make()().dtype == torch.float64
    assert work[ceilings.CONVOLUTION].make()().shape == (1, 2, 4, 4)
    assert torch.equal(work[ceilings.COPY].make()(), torch.full((64,), 0.5))
    assert torch.equal(work[ceilings.TRIAD].make()(), torch.full((64,), 1.5))


def test_the_precision_of_products_comes_back():
    before = torch.get_float32_matmul_precision()
    with ceilings._products("high"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@given(st.lists(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_spread_holds_its_rounds(samples):
    found = ceilings.spread(samples)
    together = np.concatenate(samples)
    assert found["rounds"] == [np.median(values) for values in samples]
    assert found["median"] == np.median(together)
    assert found["repeats"] == len(together)
    assert found["low"] <= min(found["rounds"]) <= max(found["rounds"]) <= found["high"]
    assert found["low"] <= np.quantile(together, 0.25) <= np.quantile(together, 0.75) <= found["high"]
    assert together.min() <= found["low"] <= found["high"] <= together.max()


def test_they_are_kept_for_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(ceilings, "CPU", TINY)
    first = ceilings.kept(tmp_path, "cpu")
    assert ceilings.read(tmp_path / ceilings.FILE) == first
    monkeypatch.setattr(ceilings, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert ceilings.kept(tmp_path, "cpu") == first
    monkeypatch.setattr(ceilings, "measure", lambda *_, **__: first | {"seconds": 0.5})
    (tmp_path / ceilings.FILE).write_text(json.dumps(first | {"threads": first["threads"] + 1}))
    assert ceilings.kept(tmp_path, "cpu")["seconds"] == 0.5
    assert ceilings.read(tmp_path / ceilings.FILE)["seconds"] == 0.5


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1, "kind": "ceilings", "values": {}}'])
def test_damaged_ceilings_are_refused(tmp_path, text):
    with pytest.raises(LiprefError, match=r"cannot be read.*lipref growth"):
        ceilings.read(tmp_path / ceilings.FILE)
    (tmp_path / ceilings.FILE).write_text(text)
    with pytest.raises(LiprefError, match="is damaged"):
        ceilings.kept(tmp_path, "cpu")


@pytest.mark.parametrize("given", [{"repeats": 0}, {"rounds": True}, {"rounds": 1.5}])
def test_numbers_below_one_are_refused(given):
    (name,) = given
    with pytest.raises(LiprefError, match=name):
        ceilings.measure("cpu", TINY, **given)
    with pytest.raises(LiprefError, match="side=0"):
        ceilings.Sizes(matrix=1, numbers=1, batch=1, channels=1, side=0)
