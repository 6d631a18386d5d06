"""All claims, in the order in which they are shown."""

from __future__ import annotations

from lipref.errors import LiprefError
from lipref.paper.claims import accuracies, bounds, costs, methods, scores, sizes, structure
from lipref.paper.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    *accuracies.CLAIMS, *sizes.CLAIMS, *methods.CLAIMS, *scores.CLAIMS, *costs.CLAIMS, *structure.CLAIMS,
    *bounds.CLAIMS,
)  # fmt: skip


def chosen(only: str | None = None) -> tuple[Claim, ...]:
    """The claims whose ids are named, separated by commas; all for None or an empty text.

    Raises:
        LiprefError: an unknown id.
    """
    if not only:
        return CLAIMS
    known = {claim.id: claim for claim in CLAIMS}
    for name in only.split(","):
        if name not in known:
            raise LiprefError(f"unknown claim {name!r}; known: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(only.split(",")))
