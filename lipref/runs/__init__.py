"""Many runs: plans, records, provenance, and the choice among records."""
