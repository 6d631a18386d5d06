"""One layer's two halves as workloads, forward and backward: what they take, and what they execute."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lipref.bench import workloads
from lipref.bench.counting import FLOPS_PER_MAC, INPUT, PARAMETER, WHOLE, formulas, is_light
from lipref.errors import LiprefError
from lipref.layers import LayerSpec, LipschitzConv2d

SEED = 0
KERNEL = 3
AXES = ("c", "s", "b")  # channels, image side, batch
# What the backward passes add to what is neither a product nor a transform.
LIGHT_BACKWARD = frozenset(
    ("diag_embed", "index_add", "index_put", "masked_fill_", "new_empty_strided", "select_backward", "slice_backward")
)


def parts_of(cls: type[nn.Module]) -> tuple[str, ...]:
    """`PARAMETER` and `INPUT`, or `WHOLE` for a module without such parts."""
    return (PARAMETER, INPUT) if issubclass(cls, LipschitzConv2d) else (WHOLE,)


def workload(
    layer: nn.Module, part: str, shape: tuple[int, int, int, int], device: torch.device
) -> Callable[[], object]:
    """Forward and backward of one part of a layer in training, ready to be called often.

    * `PARAMETER`: `prepare`, and from a gradient for every tensor of the operator the parameters' gradients.
    * `INPUT`: `transform` of a batch by an operator that is there, and from a gradient for the result the gradients of
      the batch and of the operator.
    * `WHOLE`: a module without such parts, from the batch to all gradients.

    The three gradients are random numbers, made before; the first two parts together are a layer's training step.

    Args:
        layer: In float32, on ``device``.
        shape: of the input, ``(batch, channels, side, side)``.
    """
    layer, size = layer.train(), shape[2:]
    own = [p for p in layer.parameters() if p.requires_grad]
    if part == PARAMETER:
        operator = layer.prepare(size)
        gradients = {name: torch.randn_like(value) for name, value in operator.items() if value.requires_grad}

        def prepare() -> None:
            operator = layer.prepare(size)
            results = [operator[name] for name in gradients]  # of a layer that transforms nothing: its parameters
            torch.autograd.grad(results, own, list(gradients.values()), allow_unused=True)

        return prepare
    x = torch.randn(shape, device=device, requires_grad=True)
    if part == INPUT:
        operator = {name: v.detach().requires_grad_(v.requires_grad) for name, v in layer.prepare(size).items()}
        leaves = [value for value in operator.values() if value.requires_grad]
        gradient = torch.randn_like(layer.transform(x, operator))
        return lambda: torch.autograd.grad(layer.transform(x, operator), [x, *leaves], gradient, allow_unused=True)
    gradient = torch.randn_like(layer(x))

    def whole() -> None:
        layer(x).backward(gradient)  # not by `grad`, which hooks on modules, such as a counter's, do not allow
        for value in (x, *own):
            value.grad = None

    return whole


def count_running(function: Callable[[], object]) -> tuple[int, list[str]]:
    """Multiply-accumulates of real numbers that a call executes, as `lipref.bench.counting` counts them.

    Returns:
        The number, and the names of operations that are neither counted nor known to be light.
    """
    counter, unknown = FlopCounterMode(display=False, custom_mapping=formulas()), set()
    with _Seen(unknown), counter:
        function()
    return round(counter.get_total_flops() / FLOPS_PER_MAC), sorted(unknown)


class _Seen(TorchDispatchMode):
    """Notes every operation that is neither counted nor light."""

    def __init__(self, unknown: set[str]) -> None:
        super().__init__()
        self.unknown = unknown
        self.counted = {*formulas(), torch.ops.aten.convolution_backward}  # torch's own formula knows that one

    def __torch_dispatch__(self, func: Any, types, args=(), kwargs=None):
        packet = func._overloadpacket
        light = is_light(func) or packet.__name__ in LIGHT_BACKWARD
        if func.namespace != "prim" and packet not in self.counted and not light:
            self.unknown.add(str(packet))
        return func(*args, **(kwargs or {}))


def measure_part(
    spec: LayerSpec, part: str, point: dict[str, int], device: torch.device, *, repeats: int, max_seconds: float,
    counted: bool,
) -> dict[str, Any]:  # fmt: skip
    """Time one part of a layer of ``c`` to ``c`` channels at a point; sets the global random state.

    Args:
        point: ``c``, ``s`` and ``b``.
        repeats: Timed calls, after two that are not; no more begins where ``max_seconds`` are used up.
        counted: Whether to count what one call executes, too.

    Returns:
        ``seconds`` (a list; None where memory ran out), and if counted ``macs`` and ``unknown``, see `count_running`.

    Raises:
        LiprefError: a layer that fails.
    """
    try:
        return _measured(spec, part, point, device, repeats, max_seconds, counted)
    except LiprefError:
        raise
    except Exception as error:
        if not _out_of_memory(error):
            text = " ".join(f"{type(error).__name__}: {error}".split())
            place = ", ".join(f"{name} = {value}" for name, value in point.items())
            raise LiprefError(f"{spec.label} fails at {place}: {text}; mend the layer, or leave it out") from error
    gc.collect()  # only here, where the exception no longer holds the tensors of its frames
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {"seconds": None, **({"macs": None, "unknown": []} if counted else {})}


def _measured(spec, part, point, device, repeats, max_seconds, counted) -> dict[str, Any]:
    torch.manual_seed(SEED)
    layer = spec.cls(point["c"], point["c"], KERNEL).to(device)
    call = workload(layer, part, (point["b"], point["c"], point["s"], point["s"]), device)
    found = {}
    if counted:
        call()  # SOC's first call takes more power iterations than the others
        found = dict(zip(("macs", "unknown"), count_running(call), strict=True))
    return {"seconds": workloads.seconds(call, device, repeats, max_seconds, 1)} | found


def _out_of_memory(error: Exception) -> bool:
    texts = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED")  # the CPU's allocator, cuBLAS and cuSOLVER
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )
