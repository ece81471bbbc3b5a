"""Heals gaps over REST: ``plan`` decides what to ask, ``runner`` asks and applies, ``check`` compares balances.

Knows nothing of the stream: an open row in ``gaps`` is all they share.
"""
