"""Profiles: what a name stands for, where a command is not told otherwise."""

from __future__ import annotations

from lipref.errors import LiprefError

# Everything that is given goes before it.
PROFILES = {
    "smoke": {
        "dataset": "digits", "sizes": "XS", "budget": "20 epochs", "batch_size": 64, "search_epochs": 3,
        "cost_sizes": "XS,S", "schedule": "onecycle", "search": "grid", "partial": False,
    },
    # Prach et al., CVPR 2024 (arXiv 2311.16833), appendix E.
    "paper": {
        "dataset": "cifar10", "sizes": "XS,S,M,L", "budget": "24h", "batch_size": 256, "search_epochs": None,
        "cost_sizes": "XS,S,M,L", "schedule": "paper", "search": "random", "partial": True,
    },
}  # fmt: skip
USUAL_BATCH = 256


def profile(name: str) -> dict:
    """The defaults of a profile.

    Raises:
        LiprefError: there is none of that name.
    """
    if name not in PROFILES:
        raise LiprefError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def usual_batch(dataset: str) -> int:
    """Images per step where nothing else is asked for."""
    smoke = PROFILES["smoke"]
    return smoke["batch_size"] if dataset == smoke["dataset"] else USUAL_BATCH
