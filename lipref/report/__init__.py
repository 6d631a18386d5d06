"""Notebooks executed by papermill, in grids, and the report made of them."""
