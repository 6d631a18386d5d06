"""The paper's claims one by one: do its own numbers support them, and do ours?

A claim (`lipref.claims.claim`) is checked against published numbers and against records (`lipref.claims.evidence`);
`lipref verify` shows what is found (`lipref.claims.report`).
"""

from lipref.claims.catalogue import CLAIMS, chosen
from lipref.claims.claim import NOT_PUBLISHED, Claim, Line, overall
from lipref.claims.evidence import Evidence, folders
from lipref.claims.report import (
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
