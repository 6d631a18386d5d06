"""The code gives the committed values of tests/goldens (`goldens`, which also writes them)."""

import goldens
import pytest
import torch

# Largest distance from the stored value, relative to its norm, and why it is not 0.
TOLERANCES = {
    "evaluation": 1e-12,  # one formula in float64: only the order of sums may change
    "folded": 1e-12,  # the same operator
    "bound": 1e-9,  # allowances for rounding may be counted otherwise, and are far below this
    "rounding": 1e-6,  # no more than the slack that the bound takes for its own arithmetic
    "training": 1e-6,  # iterations may converge, or stop, otherwise in their last digits
    "gradient": 1e-6,  # as in training
    "buffer": 1e-6,  # as in training; counters are whole numbers below 1e6, so exact
    "margins": 1e-10,  # a network of evaluated layers, and cancellation between logits
    "radii": 1e-10,  # margins divided by the bound
    "evaluation_error": 1e-6,  # as rounding
}


def distance(found: torch.Tensor, golden: torch.Tensor) -> float:
    """Relative to the golden's norm; not a number where a value is not."""
    if found.shape != golden.shape:
        return float("inf")
    difference, norm = torch.linalg.vector_norm(found - golden), torch.linalg.vector_norm(golden)
    return float(difference / norm) if norm else float(difference)


@pytest.mark.parametrize(
    ("name", "shape"), goldens.cases(), ids=lambda part: part if isinstance(part, str) else goldens.label(part)
)
def test_layer(name, shape):
    stored = goldens.under(goldens.stored_layer(name), f"{goldens.label(shape)}/")
    golden = goldens.under(stored, "values/")
    found = dict(goldens.layer_values(name, shape, goldens.under(stored, "state/")))
    assert found.keys() == golden.keys()
    distances = {key: distance(found[key], golden[key]) for key in golden}
    assert not {key: far for key, far in distances.items() if not far <= TOLERANCES[key.split("/")[2]]}


def test_every_stored_layer_is_compared():
    stored = {path.stem: goldens.stored_layer(path.stem) for path in (goldens.FOLDER / "layers").iterdir()}
    labels = {(name, key.split("/")[0]) for name, tensors in stored.items() for key in tensors}
    assert labels == {(name, goldens.label(shape)) for name, shape in goldens.cases()}


def test_state_dicts():
    stored = goldens.stored("states")
    assert goldens.layer_layouts() == stored["layers"]
    assert goldens.network_layouts() == stored["networks"]


def test_certificate_of_the_saved_network():
    found, golden = goldens.certificate(), goldens.stored("network/certificate")
    assert found.keys() == golden.keys()
    for key in ("labels", "predictions", "layers", "sizes"):
        assert found[key] == golden[key]
    # Each number by itself: radii and margins are compared picture by picture.
    for key in ("margins", "radii", "bound", "bounds", "evaluation_error"):
        tolerance = TOLERANCES[{"bounds": "bound"}.get(key, key)]
        assert found[key] == pytest.approx(golden[key], rel=tolerance, abs=0)


def test_tables_of_the_figures():
    assert goldens.figure_hashes() == goldens.stored("figures")
