"""Statuses are ranked; what we do not know neither opens nor closes an order."""

from __future__ import annotations

import pytest

from ledger.facts.status import TERMINAL, is_terminal, rank


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, -1),
        ("PENDING_NEW", 0),
        ("NEW", 1),
        ("PARTIALLY_FILLED", 2),
        ("PENDING_CANCEL", 2),
        ("new", 2),
        ("SOMETHING_LATER", 2),
        ("FILLED", 3),
        ("CANCELED", 3),
        ("EXPIRED", 3),
        ("EXPIRED_IN_MATCH", 3),
        ("REJECTED", 3),
    ],
)
def test_rank(status: str | None, expected: int) -> None:
    assert rank(status) == expected


def test_terminal_is_what_ranks_highest() -> None:
    assert {status for status in (*TERMINAL, "NEW", "PARTIALLY_FILLED", "SOMETHING") if rank(status) == 3} == TERMINAL
    assert all(is_terminal(status) for status in TERMINAL)
    assert not any(is_terminal(status) for status in (None, "NEW", "PARTIALLY_FILLED", "SOMETHING"))
