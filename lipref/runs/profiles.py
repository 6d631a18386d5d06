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
# Of `lipref bench`: numbers of images, sides of pictures, timed calls and rounds.
BENCH = {
    "smoke": {"sizes": "XS", "batch_size": 4, "image_sizes": "32", "repeats": 1, "rounds": 1},
    "paper": {"sizes": "XS,S,M,L", "batch_size": 256, "image_sizes": "32,64", "repeats": 10, "rounds": 3},
}
BENCH_USUAL = {"sizes": "S", "batch_size": 32, "image_sizes": "32", "repeats": 10, "rounds": 3}
# Of `lipref race`; None: what the recipe of a layer says.
RACE = {
    "smoke": {
        "dataset": "digits", "minutes": "0.1", "seeds": "0", "size": "XS", "batch_size": 64, "learning_rate": 0.01,
        "weight_decay": 3e-5,
    },
    "goals": {
        "dataset": "imagefolder:data/datasets/cifar10-jpeg", "minutes": "1,5,10,30", "seeds": "0,1,2", "size": None,
        "batch_size": None, "learning_rate": None, "weight_decay": None,
    },
}  # fmt: skip
USUAL_BATCH = 256


def profile(name: str) -> dict:
    """The defaults of a profile.

    Raises:
        LiprefError: there is none of that name.
    """
    return _one(PROFILES, name)


def bench(name: str | None) -> dict:
    """The defaults of `lipref bench` under a profile, or with None without one; raises as `profile`."""
    return dict(BENCH_USUAL) if name is None else _one(BENCH, name)


def race(name: str) -> dict:
    """The defaults of `lipref race` under a profile; raises as `profile`."""
    return _one(RACE, name)


def _one(known: dict[str, dict], name: str) -> dict:
    if name not in known:
        raise LiprefError(f"unknown profile {name!r}; known: {', '.join(known)}")
    return dict(known[name])


def usual_batch(dataset: str) -> int:
    """Images per step where nothing else is asked for."""
    smoke = PROFILES["smoke"]
    return smoke["batch_size"] if dataset == smoke["dataset"] else USUAL_BATCH
