"""Attacks stay in their ball, succeed where they can, never inside a certified radius, and catch a bound that lies."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from lipref import tensor_files
from lipref.attacks import attack, edge_search, minimum_norm
from lipref.attacks.campaign import Effort, Target, load_target, run_campaign
from lipref.certification.bounds import network_bound
from lipref.certification.certify import certify
from lipref.cli import main
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import convnet
from lipref.runs import experiment
from tests.tiny_runs import CPU, TINY, tiny

QUICK = {"steps": 20, "restarts": 2}


class Liar(nn.Conv2d):
    """A plain convolution that claims to shrink everything tenfold."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__(in_channels, out_channels, kernel_size, padding="same")
        nn.init.dirac_(self.weight)

    def lipschitz_bound(self, size):
        return 0.9


def pictures(count=12):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 3
    bright = torch.zeros(count, 1, 4, 4).scatter_(2, labels[:, None, None, None].expand(-1, 1, 1, 4), 1.0)
    return 0.3 * torch.rand(bright.shape, generator=generator) + 0.7 * bright - 0.4, labels


def trained(layer):
    torch.manual_seed(0)
    model, (x, labels) = convnet("XS", layer, 3, 1, 4), pictures()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(8 * model.train()(x), labels).backward()
        optimizer.step()
    return model.eval()


def certified(model):
    x, labels = pictures()
    return certify(model, [(x, labels)], network_bound(model).bound).radii


@pytest.fixture(scope="module")
def plain():
    return trained("standard")


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_succeeds_inside_a_certified_radius(layer):
    model, (x, labels) = trained(layer), pictures()
    radii = certified(model)
    sure = radii > 1e-6
    assert sure.sum() >= 4
    x, labels, radii = x[sure], labels[sure], radii[sure]
    found = attack(model, x, labels, 0.999 * radii, steps=20, restarts=1)
    edge = edge_search(model, x, labels, radii, found.ends, steps=20)
    assert (found.end_margins > 0).all()
    assert (edge.end_margins > 0).all()
    assert edge.end_margins.shape == (1, len(x))
    assert (edge.end_norms >= 0.999 * radii).all()
    assert (edge.end_norms <= radii).all()
    # The attack is no straw man: somewhat further out it does succeed.
    far = (1000 if layer == "standard" else 20) * radii
    assert attack(model, x, labels, far, steps=5, restarts=1).success.any()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("boxed", [False, True])
def test_attacks_respect_norm_and_box_and_succeed_on_an_unconstrained_network(plain, targeted, boxed):
    x, labels = pictures()
    radii = torch.linspace(0, 1.2, len(x), dtype=torch.float64)
    box = (-0.4, 0.6) if boxed else None
    found = attack(plain, x, labels, radii, targeted=targeted, box=box, **QUICK)
    assert found.perturbations.dtype == found.norms.dtype == torch.float64
    assert torch.equal(found.norms, found.perturbations.flatten(1).norm(dim=1))
    assert (found.end_norms <= radii).all()
    assert found.end_norms[:, -1].max() > 0.5 * radii[-1]
    moved = x.double() + found.ends
    assert not boxed or (moved.min() >= -0.4 - 1e-12 and moved.max() <= 0.6 + 1e-12)
    assert found.success.any()
    # Judged by the network itself, in float64.
    logits = plain.double()(x.double() + found.perturbations)
    plain.float()
    assert torch.equal(found.success, found.margins <= 0)
    assert (logits.argmax(1) != labels)[found.margins < -1e-9].all()
    assert (logits.argmax(1) == labels)[found.margins > 1e-9].all()


def test_gradient_steps_do_more_than_random_starts(plain):
    x, labels = pictures()
    one = attack(plain, x, labels, 0.3, steps=1, restarts=1)
    assert (attack(plain, x, labels, 0.3, steps=20, restarts=1).margins <= one.margins + 1e-6).all()


def test_the_edge_search_goes_on_from_where_the_attack_ended():
    model, (x, labels) = trained("cpl"), pictures()
    found = attack(model, x, labels, 0.2, steps=2, restarts=2)
    edge = edge_search(model, x, labels, 0.2, found.ends, steps=20)
    assert (edge.margins < found.margins).all()
    assert edge_search(model, x, labels, 0.2, torch.zeros_like(found.ends), steps=20).margins.isfinite().all()


@pytest.mark.parametrize("method", ["pgd", "deepfool", "carlini"])
def test_minimum_norm_is_the_distance_to_the_boundary_of_a_linear_network(method):
    if method != "pgd":
        pytest.importorskip("art", reason="the extra attacks is not installed")
    torch.manual_seed(0)
    model, (x, _) = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), pictures(8)
    weight, logits = model[1].weight.detach().double(), model(x).detach().double()
    labels = logits.argmax(1)
    labels[0] = logits[0].argmin()
    gaps = logits.gather(1, labels[:, None]) - logits
    distances = gaps / (weight[labels][:, None] - weight).norm(dim=2)
    exact = distances.scatter(1, labels[:, None], torch.inf).amin(1).clamp_min(0)
    found = minimum_norm(model, x, labels, 0.999 * exact, steps=20, method=method)
    assert not found.violations.any()
    assert found.norms[0] == 0
    hit = found.norms.isfinite()
    assert hit.all() or (method == "carlini" and hit[1:].any())
    assert (found.norms >= exact * (1 - 1e-6)).all()
    assert method == "carlini" or (found.norms <= 1.05 * exact + 1e-6).all()
    assert torch.allclose(found.perturbations.flatten(1).norm(dim=1)[hit], found.norms[hit])
    # A radius that is claimed too large is a violation.
    claimed = 1.1 * found.norms
    claimed[~hit] = 1.0
    caught = minimum_norm(model, x, labels, claimed, steps=20, method=method).violations
    assert caught[1:][hit[1:]].all()


@pytest.mark.parametrize("layer", ["aol", "cpl"])
def test_autoattack_agrees_with_pgd_and_finds_nothing_inside(layer):
    pytest.importorskip("art", reason="the extra attacks is not installed")
    model, (x, labels) = trained(layer), pictures()
    radii = certified(model)
    least = float(radii[radii > 0.001].min())
    sure = radii >= least
    inside = attack(model, x[sure], labels[sure], least * (1 - 1e-9), method="autoattack", steps=20, restarts=1)
    assert (inside.end_margins > 0).all()
    far = 20 * float(radii.max())
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, again = (attack(model, x, labels, far, method="autoattack", steps=20, restarts=1) for _ in range(2))
    assert torch.equal(one.ends, again.ends)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert (one.end_norms <= far).all()
    other = attack(model, x, labels, far, steps=20, restarts=1)
    assert one.success[~(certified(model) > 0)].all()
    assert (one.success == other.success).float().mean() > 0.8
    assert (one.success & sure).any()


def test_the_same_seed_gives_the_same_numbers(plain):
    x, labels = pictures()
    first, again, other = (attack(plain, x, labels, 0.1, seed=seed, **QUICK) for seed in (1, 1, 2))
    assert torch.equal(first.ends, again.ends)
    assert not torch.equal(first.ends, other.ends)
    # Nor is the model touched, or the global random state.
    state = torch.get_rng_state()
    plain.train()
    attack(plain, x, labels, 0.1, **QUICK)
    assert plain.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in plain.parameters())
    plain.eval()


def target(model):
    x, labels = pictures()
    return Target(model, x.double(), labels, list(range(len(x))), (-0.4, 0.6), {"digest": "0", "config": {}})


def test_a_bound_that_lies_is_caught(tmp_path):
    torch.manual_seed(0)
    model = convnet("XS", Liar, 3, 1, 4)
    assert 0 < network_bound(model).bound < 1
    record = run_campaign(target(model), Effort(images=12, restarts=1, steps=20), tmp_path)
    assert record["successes"] > 0
    assert record["refuted"]
    files = sorted((tmp_path / "violations").iterdir())
    assert len(files) == record["successes"]
    tensors, meta = tensor_files.load(files[0])
    assert meta["norm"] < meta["radius"]
    assert meta["image"] in record["refuted"]
    logits = model.double().eval()((tensors["image"] + tensors["perturbation"])[None])[0]
    assert logits.argmax() != meta["label"]


@pytest.mark.slow
def test_a_killed_campaign_goes_on(tmp_path):
    model = trained("aol")
    effort = Effort(images=12, restarts=1, steps=20, chunk=5)

    def kill(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_campaign(target(model), effort, tmp_path / "a", kill)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "chunks").iterdir()}
    assert len(done) == 2
    resumed, whole = (run_campaign(target(model), effort, tmp_path / name) for name in "ab")
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    for record in (resumed, whole):
        del record["seconds"], record["last_seconds"]
    assert resumed == whole
    with pytest.raises(LiprefError, match="--out"):
        run_campaign(target(model), Effort(images=12, restarts=2, steps=20, chunk=5), tmp_path / "a")


def test_the_command_attacks_a_run(tmp_path):
    train = ["train", *TINY, "--layer", "cpl", "--epochs", "1", "--learning-rate", "0.05", "--out", str(tmp_path)]
    assert CliRunner().invoke(main.app, train).exit_code == 0
    (run,) = (path.parent for path in tmp_path.glob("*/record.json"))
    few = ["attack", str(run), "--images", "20", "--restarts", "1", "--steps", "20"]
    result = CliRunner().invoke(main.app, few, catch_exceptions=False)
    assert result.exit_code == 0
    record = json.loads((run / "attack" / "attack.json").read_text())
    assert record["successes"] == 0
    assert record["end_points"] == 4 * record["attacked_inside"] > 0
    assert record["environment"]["torch"]
    assert len(record["radii"]) == len(record["least_norms"]) == 20
    assert all(own <= norm for own, norm in zip(record["radii"], record["least_norms"], strict=True) if norm)
    for counts in record["fixed"].values():
        assert counts["certified"] <= counts["right"] <= record["accurate"]
    assert "0 successes" in result.output
    for wrong, named in (
        (["--images", "51"], "51"),
        (["--steps", "5"], "steps=5"),
        (["--dataset", "nowhere"], "nowhere"),
    ):
        with pytest.raises(LiprefError, match=named):
            CliRunner().invoke(main.app, [*few, *wrong], catch_exceptions=False)
    with pytest.raises(LiprefError, match=r"record\.json"):
        CliRunner().invoke(main.app, ["attack", str(tmp_path)], catch_exceptions=False)


def test_weights_of_another_run_are_refused(tmp_path):
    folders = []
    for seed in (0, 1):
        config, data, spec = tiny(seed=seed)
        experiment.execute(config, data, spec, tmp_path, device=CPU)
        folders.append(tmp_path / config.folder)
    assert load_target(folders[0], 3, CPU).names == load_target(folders[0], 3, CPU, layer="aol").names == [0, 1, 2]
    shutil.copy(folders[1] / "weights.safetensors", folders[0])
    with pytest.raises(LiprefError, match=r"not those of its record\.json"):
        load_target(folders[0], 3, CPU)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"radius": -1.0}, "radius=-1.0"), ({"radius": torch.ones(3)}, "radius has shape"),
        ({"method": "guess"}, "guess"), ({"steps": 0}, "steps=0"), ({"restarts": 0}, "restarts=0"),
        ({"method": "autoattack", "radius": torch.arange(1.0, 13.0)}, "one positive radius"),
        ({"method": "deepfool", "targeted": True}, "deepfool"), ({"box": (0.0, 0.1)}, "box"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, "labels"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(plain, change, named):
    x, labels = pictures()
    with pytest.raises(LiprefError, match=named):
        attack(**({"model": plain, "images": x, "labels": labels, "radius": 0.1} | change))
