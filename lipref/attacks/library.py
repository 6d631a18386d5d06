"""A second opinion: minimum-norm attacks of the Adversarial Robustness Toolbox (Nicolae et al., arXiv 1807.01069)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn

from lipref.attacks.judging import parameters_of, searched
from lipref.errors import LiprefError

# Carlini and Wagner (S&P 2017), slow; Moosavi-Dezfooli, Fawzi, Frossard (CVPR 2016).
LIBRARY = ("carlini", "deepfool")


def library_perturbations(
    model: nn.Module, images: Tensor, labels: Tensor, method: str, steps: int, batch_size: int
) -> Tensor:
    """What the toolbox finds, ``(N, C, H, W)``, float64, unjudged: it works in float32 and without a box.

    Raises:
        LiprefError: it is not installed.
    """
    try:
        evasion, classification = map(import_module, ("art.attacks.evasion", "art.estimators.classification"))
    except ModuleNotFoundError as error:
        raise LiprefError(
            f"{error.name} is missing: install the extra attacks: pip install 'lipref[attacks]'"
        ) from error
    device, _ = parameters_of(model)
    search = searched(model).float()
    x = images.float()
    with torch.no_grad():
        classes = search(x[:1]).shape[1]
    classifier = classification.PyTorchClassifier(
        search, loss=nn.CrossEntropyLoss(), input_shape=tuple(x.shape[1:]), nb_classes=classes, clip_values=None,
        device_type="gpu" if device.type == "cuda" else "cpu",
    )  # fmt: skip
    if method == "carlini":
        tool = evasion.CarliniL2Method(classifier, max_iter=steps, batch_size=batch_size, verbose=False)
        found = tool.generate(x.cpu().numpy(), y=labels.cpu().numpy())
    else:
        # The paper's overshoot: without it float32 often stops just before the boundary.
        tool = evasion.DeepFool(classifier, max_iter=steps, epsilon=0.02, batch_size=batch_size, verbose=False)
        found = tool.generate(x.cpu().numpy())
    return torch.from_numpy(found).to(images) - images
