"""Order statuses: which of two reports of an order is further along.

Always holds: statuses are an open set; one we do not know ranks with PARTIALLY_FILLED, so it neither closes
an order nor takes a closed one back. ``ledger.status_rank`` in db/apply.sql is the same table; a test
compares them.
"""

from __future__ import annotations

TERMINAL = frozenset({"FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "REJECTED"})
"""Nothing follows these but late fills."""

_TERMINAL_RANK = 3
_RANKS = {"PENDING_NEW": 0, "NEW": 1, "PARTIALLY_FILLED": 2} | dict.fromkeys(TERMINAL, _TERMINAL_RANK)


def rank(status: str | None) -> int:
    """0 to 3, the higher rank is the later state of an order; -1 when no status was told."""
    return -1 if status is None else _RANKS.get(status, 2)


def is_terminal(status: str | None) -> bool:
    """True when the order is over; None (not told) is not."""
    return status in TERMINAL
