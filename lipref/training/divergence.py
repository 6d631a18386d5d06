"""Where non-finite numbers first appear in a network."""

import torch
from torch import Tensor, nn


def find_fault(model: nn.Module, images: Tensor) -> tuple[str | None, str]:
    """The module where non-finite numbers first appear, by one more forward pass in the mode the model is in.

    Args:
        model: Weights and buffers as they were when the trouble was seen; buffers may move, as in any forward pass.
        images: The batch it was seen on.

    Returns:
        The module's name (``named_modules``; the class's name for the model itself), or None when there is no such
        module, and one line that says what was found.
    """
    if not is_finite(images):
        return None, "the images of the batch are not finite"
    finished: list[str] = []
    spoilt: list[str] = []
    entered: list[str] = []

    def enter(name: str):
        return lambda module, arguments: entered.append(name)

    def leave(name: str):
        def look(module: nn.Module, arguments: tuple, output: object) -> None:
            entered.pop()
            finished.append(name)
            if not is_finite(output):
                spoilt.append(name)

        return look

    names = {name: name or type(model).__name__ for name, _ in model.named_modules()}
    handles = [module.register_forward_pre_hook(enter(names[name])) for name, module in model.named_modules()]
    handles += [module.register_forward_hook(leave(names[name])) for name, module in model.named_modules()]
    error = None
    try:
        model(images)  # with gradients, like the pass that failed: some modules look at that
    except torch.linalg.LinAlgError as caught:
        error = " ".join(str(caught).split())
    finally:
        for handle in handles:
            handle.remove()

    weights: dict[str, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_finite(tensor):
            weights.setdefault(names.get(name.rpartition(".")[0], name), name)
    if weights:
        # The gradient flows from the last layer to the first and spoils the weights of all that it reaches: the trouble
        # began at the last of them.
        order = {name: place for place, name in enumerate([*names.values(), *finished])}
        layer = max(weights, key=lambda name: order.get(name, -1))
        return layer, f"{weights[layer]} is not finite"
    if spoilt:
        return spoilt[0], f"the output of {spoilt[0]} is not finite while its weights are"
    if error:
        return entered[-1], f"{entered[-1]} failed: {error}"
    return None, "a second forward pass on the same batch found only finite numbers"


def is_finite(value: object) -> bool:
    """Whether all numbers of a tensor, or of the tensors in a tuple or list, are finite; what has no numbers is."""
    if isinstance(value, tuple | list):
        return all(is_finite(part) for part in value)
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
