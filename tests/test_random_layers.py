"""A seeded sample of `random_layers`: no Jacobian exceeds its bound."""

import pytest
from random_layers import draw, exceeds

from lipref.layers import LAYERS


@pytest.mark.parametrize("start", range(0, 160, 20))
def test_no_layer_exceeds_its_bound(start):
    found = [draw(seed) for seed in range(start + 1, start + 21)]
    assert [one for one in found if exceeds(one)] == []


def test_a_bound_that_lies_is_seen(monkeypatch):
    """The comparison can fail: with every bound at nine tenths of itself."""
    for cls in LAYERS.values():
        given = cls.lipschitz_bound
        monkeypatch.setattr(cls, "lipschitz_bound", lambda self, size, given=given: 0.9 * given(self, size))
    assert any(exceeds(draw(seed)) for seed in range(1, 21))
