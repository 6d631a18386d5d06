"""Options that make training faster and do not change the function that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from lipref.errors import LiprefError

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How a training step is computed. Each changes numbers by rounding; evaluation and certificates have none of it.

    Attributes:
        channels_last: Images, activations and kernels lie in memory with the channels innermost; modules of the user's
            own get them row by row.
        precision: ``"float32"``, or ``"bf16"``: the layers' input transformations and the activations between them in
            bfloat16. Parameters, their gradients, the optimizer, the operators' preparation, the loss, and layers that
            work with complex numbers (Cayley, LOT) or recompute in their backward pass stay float32.
        compile: The pass through the network by torch.compile, its operators prepared before by the usual code.
        fused: PyTorch's fused SGD where the device is CUDA. Elsewhere it would round differently for little time, and
            the foreach form is taken, which gives the usual numbers.
        cuda_graphs: The whole pass, gradients included, as one CUDA graph (`lipref.training.cuda_graph`), compiled or
            not. What a module of the user's own decides on the host, as by a counter, is recorded once: leave it out
            for such.

    Raises:
        LiprefError: a value of another type, or an unknown precision.
    """

    channels_last: bool = False
    precision: str = "float32"
    compile: bool = False
    fused: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        for name in ("channels_last", "compile", "fused", "cuda_graphs"):
            if not isinstance(getattr(self, name), bool):
                raise LiprefError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.precision not in PRECISIONS:
            raise LiprefError(f"precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")

    def as_dict(self) -> dict:
        """What is not at its default, so that a run without options is described as before there were any."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @classmethod
    def of(cls, given: Speed | Mapping) -> Speed:
        """From what `as_dict` gave.

        Raises:
            LiprefError: an unknown name or a value that does not fit.
        """
        if isinstance(given, cls):
            return given
        known = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping) or not set(given) <= set(known):
            raise LiprefError(f"speed={given!r}: give a Speed, or a dict of {', '.join(known)}")
        return cls(**given)

    def check_device(self, device: str) -> None:
        """Refuse what ``device`` (``"cpu"``, ``"cuda:0"``) cannot do.

        Raises:
            LiprefError: CUDA graphs elsewhere than on CUDA.
        """
        if self.cuda_graphs and device.split(":")[0] != "cuda":
            raise LiprefError(f"cuda_graphs=True on {device}: CUDA graphs need a CUDA device; leave it out there")


def chosen(device: str, **given: object) -> Speed:
    """The `usual` options of ``device``, with those that are given and not None in their place."""
    return replace(usual(device), **{name: value for name, value in given.items() if value is not None})


def usual(device: str) -> Speed:
    """The options that pay on ``device`` and change numbers by rounding alone: what is taken where none is given.

    On CUDA channels last, fused SGD and CUDA graphs; on a CPU none.
    """
    return Speed(channels_last=True, fused=True, cuda_graphs=True) if device.split(":")[0] == "cuda" else Speed()


def options_of(settings: Mapping) -> str:
    """The training options in the ``settings`` of a record, as ``precision=bf16, ema=0.999``; empty without any."""
    options = dict(settings.get("speed", {})) | ({"ema": settings["ema"]} if settings.get("ema") is not None else {})
    return ", ".join(f"{name}={value}" for name, value in options.items())


def beyond_rounding(settings: Mapping) -> str:
    """Those of `options_of` that make another training than the paper's: its precision, and what is averaged."""
    kept = {"precision": settings.get("speed", {}).get("precision")}
    return options_of({"speed": {name: value for name, value in kept.items() if value}, "ema": settings.get("ema")})
