"""The paper's tables and figures, one file per item, and its claims: what is published, and ours beside it."""
