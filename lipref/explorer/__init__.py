"""Which layer for what matters to someone: weighted measures, a recommendation with its reason, and controls."""
