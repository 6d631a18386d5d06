"""Notebooks executed by papermill, in grids, and the report made of them.

What papermill lets pass in silence (unknown parameters, a missing tag, text for numbers, a killed kernel, an interrupt)
is an error here.
"""
