"""The paper's claims one by one: do its own numbers support them, and do ours?

A claim (`lipref.paper.claims.claim`) is checked against published numbers and against records
(`lipref.paper.claims.evidence`); `lipref verify` shows what is found (`lipref.paper.claims.report`).
"""

from lipref.paper.claims.catalogue import CLAIMS, chosen
from lipref.paper.claims.claim import NOT_PUBLISHED, Claim, Line, overall
from lipref.paper.claims.evidence import Evidence, folders
from lipref.paper.claims.report import (
    READING,
    by_claim,
    by_value,
    check,
    contradicted,
    exit_code,
    grid,
    listing,
    missing,
    say,
    todo,
)

__all__ = [
    "CLAIMS",
    "NOT_PUBLISHED",
    "READING",
    "Claim",
    "Evidence",
    "Line",
    "by_claim",
    "by_value",
    "check",
    "chosen",
    "contradicted",
    "exit_code",
    "folders",
    "grid",
    "listing",
    "missing",
    "overall",
    "say",
    "todo",
]
