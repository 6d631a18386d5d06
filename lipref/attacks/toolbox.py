"""Attacks of other libraries (extra ``attacks``), judged as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lipref.attacks.perturbation import into_ball, parameters_of, searched
from lipref.errors import LiprefError

# Minimum-norm: Carlini and Wagner (S&P 2017), slow; Moosavi-Dezfooli, Fawzi, Frossard (CVPR 2016).
LIBRARY = ("carlini", "deepfool")
# Within a radius: Croce and Hein (ICML 2020), without their Square attack, which needs a box.
AUTOATTACK = "autoattack"


def library_perturbations(
    model: nn.Module, images: Tensor, labels: Tensor, method: str, steps: int, batch_size: int
) -> Tensor:
    """What the toolbox finds, ``(N, C, H, W)``, float64, unjudged: it works in float32 and without a box.

    Raises:
        LiprefError: it is not installed.
    """
    evasion, classifier = _toolbox(model, images)
    x = images.float().cpu().numpy()
    if method == "carlini":
        tool = evasion.CarliniL2Method(classifier, max_iter=steps, batch_size=batch_size, verbose=False)
        found = tool.generate(x, y=labels.cpu().numpy())
    else:
        # The paper's overshoot: without it float32 often stops just before the boundary.
        tool = evasion.DeepFool(classifier, max_iter=steps, epsilon=0.02, batch_size=batch_size, verbose=False)
        found = tool.generate(x)
    return torch.from_numpy(found).to(images) - images


def autoattack_perturbations(
    model: nn.Module, images: Tensor, labels: Tensor, radius: float, steps: int, restarts: int, seed: int,
    batch_size: int,
) -> Tensor:  # fmt: skip
    """AutoAttack's gradient attacks within one radius: APGD on cross-entropy and on the logit ratio, and DeepFool.

    Returns ``(N, C, H, W)``, float64, unjudged; float32 may leave it outside the ball by its rounding.

    Raises:
        LiprefError: the toolbox is not installed, or fewer than three classes, for which the logit ratio is undefined.
    """
    evasion, classifier = _toolbox(model, images)
    if classifier.nb_classes < 3:
        raise LiprefError(f"method={AUTOATTACK!r} needs three classes or more, not {classifier.nb_classes}: use 'pgd'")
    tools = [
        evasion.AutoProjectedGradientDescent(
            classifier, norm=2, eps=radius, eps_step=2 * radius, loss_type=loss, max_iter=steps,
            nb_random_init=restarts, batch_size=batch_size, verbose=False,
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]  # fmt: skip
    tools.append(evasion.DeepFool(classifier, max_iter=steps, epsilon=0.02, batch_size=batch_size, verbose=False))
    x, y = images.float().cpu().numpy(), labels.cpu().numpy()
    found, rest = x.copy(), np.arange(len(x))
    # The toolbox's own AutoAttack needs a package that it does not install; each tool gets what the others left.
    with _numpy_seeded(seed):
        for tool in tools:
            found[rest] = tool.generate(x[rest], y=y[rest])
            within = into_ball(torch.from_numpy(found - x).double(), torch.full((len(x),), radius, dtype=torch.float64))
            rest = np.flatnonzero(classifier.predict(x + within.float().numpy(), batch_size).argmax(1) == y)
            if not len(rest):
                break
    return torch.from_numpy(found).to(images) - images


def _toolbox(model: nn.Module, images: Tensor) -> tuple[ModuleType, Any]:
    """The toolbox's attacks, and its view of a copy of the network."""
    try:
        evasion, classification = map(import_module, ("art.attacks.evasion", "art.estimators.classification"))
    except ModuleNotFoundError as error:
        raise LiprefError(
            f"{error.name} is missing: install the extra attacks: pip install 'lipref[attacks]'"
        ) from error
    device, _ = parameters_of(model)
    search = searched(model).float()
    with torch.no_grad():
        classes = search(images[:1].float()).shape[1]
    return evasion, classification.PyTorchClassifier(
        search, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=classes, clip_values=None,
        device_type="gpu" if device.type == "cuda" else "cpu",
    )  # fmt: skip


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """The toolbox draws from NumPy's global stream; here from a seed, and the stream as it was afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
