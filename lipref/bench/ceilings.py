"""What the machine can do at best, measured: matrix products, one convolution, memory traffic."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from lipref.bench import workloads
from lipref.errors import LiprefError
from lipref.runs.provenance import cores, environment, machine, write_json

FORMAT = 1
FILE = "ceilings.json"
GFLOPS, GBS = "GFLOP/s", "GB/s"
FLOAT32, FLOAT64, TF32, BFLOAT16 = "matmul_float32", "matmul_float64", "matmul_tf32", "matmul_bfloat16"
CONVOLUTION, COPY, TRIAD = "convolution", "copy", "triad"
MOST_SECONDS = 1.0  # of one quantity in one round
_GIGA = 1e9
_REMEDY = "lipref growth --out FOLDER writes it"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is computed: products of ``matrix`` x ``matrix``, vectors of ``numbers`` float32, one 3x3 convolution.

    The convolution maps ``batch`` images of ``side`` x ``side`` with ``channels`` channels to as many.
    """

    matrix: int
    numbers: int
    batch: int
    channels: int
    side: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LiprefError(f"{name}={value!r}: give a whole number, at least 1")


# Large enough for full speed, and some seconds in all; the vectors are larger than the caches.
CPU = Sizes(matrix=1024, numbers=2**24, batch=16, channels=128, side=32)
CUDA = Sizes(matrix=8192, numbers=2**28, batch=256, channels=256, side=32)


def measure(
    device: str | torch.device,
    sizes: Sizes | None = None,
    *,
    repeats: int = 5,
    rounds: int = 3,
    on_quantity: Callable[[int, int, str], None] | None = None,
) -> dict:
    """Measure all ceilings of ``device``, in ``rounds``, each call on its own and synchronised.

    A multiply-accumulate is two operations; copying a number moves it twice, ``a + 2 b`` (triad) three times. TF32 and
    bfloat16 are measured on CUDA alone, where the device has them; the convolution runs in float32 as torch is set
    (on CUDA by default with TF32).

    Args:
        sizes: What is computed; None: `CPU` or `CUDA`.
        repeats: Timed calls of a quantity in a round, fewer where they take more than `MOST_SECONDS`.
        on_quantity: Called before each measurement with its number, how many there are, and its name.

    Returns:
        A dict that JSON can hold: ``values``, from the name to ``median, low, high`` (`spread`), ``rounds`` (the median
        of each), ``repeats`` (timed calls in all), ``unit`` and ``what`` in words; and device, machine, cores, threads,
        torch, the sizes and the environment.

    Raises:
        LiprefError: a number below 1.
    """
    for name, value in (("repeats", repeats), ("rounds", rounds)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LiprefError(f"{name}={value!r}: give a whole number, at least 1")
    device = torch.device(device)
    sizes = sizes or (CUDA if device.type == "cuda" else CPU)
    started = time.perf_counter()
    work = _work(device, sizes)
    rates: dict[str, list[list[float]]] = {name: [] for name in work}
    with torch.no_grad():
        for number in range(rounds):
            for place, (name, quantity) in enumerate(work.items()):
                if on_quantity is not None:
                    on_quantity(number * len(work) + place, rounds * len(work), name)
                taken = quantity.seconds(device, repeats)
                rates[name].append([quantity.amount / _GIGA / seconds for seconds in taken])
    values = {
        name: spread(rates[name]) | {"unit": quantity.unit, "what": quantity.what} for name, quantity in work.items()
    }
    return {
        "format": FORMAT, "kind": "ceilings", "sizes": asdict(sizes), **here(device), "values": values,
        "seconds": time.perf_counter() - started, "environment": environment(device),
    }  # fmt: skip


def here(device: torch.device) -> dict:
    """What a ceiling depends on: device, machine, cores, threads and torch."""
    return {
        "device": device.type, "machine": machine(device), "cores": cores(), "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }  # fmt: skip


def of_products(ceilings: dict) -> float:
    """The ceiling of float32 work, in GFLOP/s: the larger of the product's and the convolution's."""
    return max(ceilings["values"][name]["median"] for name in (FLOAT32, CONVOLUTION))


def spread(samples: Sequence[Sequence[float]]) -> dict:
    """What rounds of one quantity say together.

    Returns:
        ``median`` of all samples; ``low`` and ``high``, at each end the outer one of their quartile and of the least or
        largest median of a round; ``repeats``, how many samples; ``rounds``, the median of each.
    """
    medians = [float(np.median(values)) for values in samples]
    together = np.concatenate([np.asarray(values, dtype=float) for values in samples])
    low, median, high = np.quantile(together, [0.25, 0.5, 0.75]).tolist()
    return {
        "median": median, "low": min(low, *medians), "high": max(high, *medians), "repeats": len(together),
        "rounds": medians,
    }  # fmt: skip


def kept(out: Path, device: str | torch.device, on_quantity: Callable[[int, int, str], None] | None = None) -> dict:
    """The ceilings in ``out / "ceilings.json"``; measured anew, and written there, unless they were measured here.

    Raises:
        LiprefError: the file is damaged, or cannot be written.
    """
    path = Path(out) / FILE
    if path.exists():
        found = read(path)
        if all(found.get(name) == value for name, value in here(torch.device(device)).items()):
            return found
    found = measure(device, on_quantity=on_quantity)
    write_json(path, found)
    return found


def read(path: Path) -> dict:
    """The ceilings in a file that `kept` wrote.

    Raises:
        LiprefError: missing or damaged.
    """
    try:
        found = json.loads(Path(path).read_text())
        whole = (found["format"], found["kind"]) == (FORMAT, "ceilings")
        rates = [found["values"][name][end] for name in (FLOAT32, CONVOLUTION, COPY) for end in ("median", "low")]
        if not whole or not all(rate > 0 for rate in rates):
            raise ValueError("no ceilings")
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}): delete it, {_REMEDY}") from None
    return found


@dataclass(frozen=True)
class _Quantity:
    """One ceiling: what a call does, how many operations or bytes that are, and in which precision of products."""

    make: Callable[[], Callable[[], object]]
    amount: float
    unit: str
    what: str
    products: str | None = "highest"

    def seconds(self, device: torch.device, repeats: int) -> list[float]:
        """Tensors live for the measurement alone."""
        with _products(self.products):
            return workloads.seconds(self.make(), device, repeats, MOST_SECONDS, 1)


def _work(device: torch.device, sizes: Sizes) -> dict[str, _Quantity]:
    n, size, names = sizes.matrix, sizes.numbers, {FLOAT32: torch.float32, FLOAT64: torch.float64}
    cuda = device.type == "cuda"
    if cuda and torch.cuda.get_device_capability(device) >= (8, 0):
        names[TF32] = torch.float32
    if cuda and torch.cuda.is_bf16_supported():
        names[BFLOAT16] = torch.bfloat16

    def product(dtype: torch.dtype) -> Callable[[], object]:
        a, b = (torch.full((n, n), value, dtype=dtype, device=device) for value in (0.5, 0.25))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    def convolution() -> Callable[[], object]:
        x = torch.full((sizes.batch, sizes.channels, sizes.side, sizes.side), 0.5, device=device)
        kernel = torch.full((sizes.channels, sizes.channels, 3, 3), 0.25, device=device)
        return lambda: torch.nn.functional.conv2d(x, kernel, padding=1)

    def vectors(number: int) -> list[torch.Tensor]:
        return [torch.full((size,), 0.5, device=device) for _ in range(number)]

    def copy() -> Callable[[], object]:
        a, b = vectors(2)
        return lambda: a.copy_(b)

    def triad() -> Callable[[], object]:
        a, b, c = vectors(3)
        return lambda: torch.add(b, c, alpha=2.0, out=a)

    work = {
        name: _Quantity(lambda dtype=dtype: product(dtype), 2 * n**3, GFLOPS,
                        f"product of two {n} x {n} matrices, {name.removeprefix('matmul_')}",
                        "high" if name == TF32 else "highest")
        for name, dtype in names.items()
    }  # fmt: skip
    pixels = sizes.batch * sizes.side**2
    tf32 = ", TF32 allowed" if cuda and torch.backends.cudnn.allow_tf32 else ""
    work[CONVOLUTION] = _Quantity(
        convolution, 18 * pixels * sizes.channels**2, GFLOPS,
        f"3 x 3 convolution, {sizes.channels} to {sizes.channels} channels, batch {sizes.batch} of "
        f"{sizes.side} x {sizes.side}, float32{tf32}", None,
    )  # fmt: skip
    work[COPY] = _Quantity(copy, 8 * size, GBS, f"copy of {size} float32, read and written", None)
    work[TRIAD] = _Quantity(triad, 12 * size, GBS, f"a + 2 b of {size} float32, two read and one written", None)
    return work


@contextlib.contextmanager
def _products(precision: str | None) -> Iterator[None]:
    """``highest``: float32 as it is; ``high``: TF32 on CUDA. None changes nothing."""
    if precision is None:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
