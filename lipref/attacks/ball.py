"""The l2 ball around every image, and the box of pixels."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from lipref.errors import LiprefError

# Above the rounding of a float64 norm of 10^5 numbers, below anything that changes an attack.
ALLOWANCE = 1e-10

Box = tuple[Tensor | float, Tensor | float]


def norms(perturbations: Tensor) -> Tensor:
    """l2 norms ``(N,)`` of ``(N, C, H, W)``."""
    return perturbations.flatten(1).norm(dim=1)


def scaled(perturbations: Tensor, lengths: Tensor) -> Tensor:
    """``perturbations`` ``(N, C, H, W)`` with the l2 norms ``lengths`` ``(N,)``; zeros stay zeros."""
    tiny = torch.finfo(perturbations.dtype).tiny
    return perturbations * (lengths / norms(perturbations).clamp_min(tiny))[:, None, None, None]


def into_ball(perturbations: Tensor, radii: Tensor) -> Tensor:
    """Those that are longer than their radius, minus `ALLOWANCE`, scaled back to it."""
    return scaled(perturbations, torch.minimum(norms(perturbations), radii * (1 - ALLOWANCE)))


def into_box(perturbations: Tensor, images: Tensor, box: Box | None) -> Tensor:
    """``perturbations`` cut so that ``images`` plus them stay between ``box[0]`` and ``box[1]``; None: as they are."""
    if box is None:
        return perturbations
    low, high = (torch.as_tensor(end, dtype=images.dtype, device=images.device) for end in box)
    return (images + perturbations).clamp(low, high) - images


def random_directions(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on the unit sphere, in the shape, dtype and on the device of ``like`` ``(N, C, H, W)``."""
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)  # on the CPU: the same on every device
    return scaled(drawn, torch.ones(len(drawn), dtype=torch.float64)).to(like)


def random_in_ball(like: Tensor, radii: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in the balls of ``radii`` ``(N,)``."""
    share = torch.rand(len(like), generator=generator, dtype=torch.float64) ** (1 / like[0].numel())
    return random_directions(like, generator) * (share.to(radii) * radii).to(like)[:, None, None, None]


def generator(purpose: str, seed: int) -> torch.Generator:
    """A stream of its own for every purpose, on the CPU."""
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little"))


def radii_of(radius: float | Tensor, images: Tensor) -> Tensor:
    """``radius``, one number or one per image, as float64 ``(N,)`` on the device of ``images``.

    Raises:
        LiprefError: another shape, or a radius that is negative or not finite.
    """
    radii = torch.as_tensor(radius, dtype=torch.float64, device=images.device)
    if radii.shape not in ((), (len(images),)):
        raise LiprefError(f"radius has shape {tuple(radii.shape)}: give one number, or one for each of {len(images)}")
    radii = radii.expand(len(images))
    bad = radii[~(torch.isfinite(radii) & (radii >= 0))]
    if len(bad):
        raise LiprefError(f"radius={float(bad[0])}: give finite radii of 0 or more, in l2 over inputs in [0, 1]")
    return radii


def check_counts(**counts: int) -> None:
    """Refuse numbers of steps, restarts and the like below 1."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise LiprefError(f"{name}={count!r}: give a whole number of at least 1")
