"""When an order is asked for again, and whether "there is no such order" is what the venue should say."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger.reconcile.order_checks import (
    ARCHIVED,
    LONGEST_PAUSE_MS,
    SURE_TRIES,
    UNKNOWN_ORDER,
    agrees,
    pause_ms,
)

NO_SUCH_ORDER = -2013


def test_pauses_grow_from_seconds_to_a_day_and_stay_there() -> None:
    pauses = [pause_ms(tries) for tries in range(40)]
    assert pauses[:4] == [2_000, 4_000, 8_000, 16_000]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause_ms(10**9) == LONGEST_PAUSE_MS == 86_400_000


def test_a_person_is_told_after_a_minute_or_two() -> None:
    assert 60_000 <= sum(pause_ms(tries) for tries in range(SURE_TRIES)) <= 180_000


@pytest.mark.parametrize(
    ("code", "status", "executed", "expected"),
    [
        (NO_SUCH_ORDER, "REJECTED", "0", True),
        (NO_SUCH_ORDER, "REJECTED", "1", False),
        (ARCHIVED, "REJECTED", "0", True),
        (ARCHIVED, "NEW", "0", True),
        (ARCHIVED, "CANCELED", "0", True),
        (ARCHIVED, None, "0", True),
        (ARCHIVED, "CANCELED", "0.1", False),
        (NO_SUCH_ORDER, "NEW", "0", False),
        (NO_SUCH_ORDER, "CANCELED", "0", False),
        (NO_SUCH_ORDER, "FILLED", "1", False),
        (NO_SUCH_ORDER, None, "0", False),
    ],
)
def test_there_is_none_agrees_with_an_order_that_never_came_to_be_or_is_archived_without_an_execution(
    code: int, status: str | None, executed: str, expected: bool
) -> None:
    assert code in UNKNOWN_ORDER
    assert agrees(code, status, Decimal(executed)) is expected
