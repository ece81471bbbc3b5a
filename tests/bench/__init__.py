"""``scripts/bench``: how fast the whole service is, as ratios to what the same machine reaches in the same run.

No timed test: a figure is worth something only beside its reference, and only on a machine that does nothing else.
"""
