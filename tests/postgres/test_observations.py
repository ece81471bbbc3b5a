"""Seen twice, some time apart, before it counts: the one rule for snapshots, residuals and locks."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from ledger.db import explain, scratch
from ledger.db.explain import Lock
from ledger.db.tables import metadata
from tests.histories import ACCOUNT, known, rows

KEPT = "SELECT kind, subject, value, first_ms, seq FROM ledger.observations ORDER BY 1, 2"


async def observe(conn: Any, value: str, at_ms: int, *, seq: int = 0, moved_seq: int = 0) -> bool | None:
    found: bool | None = await conn.fetchval(
        "SELECT ledger.observe($1, 'lock', 'BTC', $2, $3, 5000, $4, $5)", ACCOUNT, value, at_ms, seq, moved_seq
    )
    return found


async def test_what_is_seen_again_after_the_time_counts_and_stays_so(conn: Any) -> None:
    await known(conn)
    looks = [await observe(conn, "1", at_ms) for at_ms in (1000, 1001, 5999, 6000, 99_000)]
    assert looks == [None, False, False, True, True]
    assert await rows(conn, KEPT) == [("lock", "BTC", "1", 1000, 0)]


async def test_another_value_begins_anew(conn: Any) -> None:
    await known(conn)
    looks = [
        await observe(conn, value, at_ms) for value, at_ms in (("1", 0), ("2", 6000), ("1", 12_000), ("1", 17_000))
    ]
    assert looks == [None, None, None, True]


async def test_what_moved_in_between_begins_anew(conn: Any) -> None:
    await known(conn)
    assert await observe(conn, "1", 0, seq=7) is None
    assert await observe(conn, "1", 6000, seq=9, moved_seq=7) is True
    assert await observe(conn, "1", 6000, seq=9, moved_seq=8) is None
    assert await observe(conn, "1", 10_999, seq=9, moved_seq=9) is False


@pytest.mark.parametrize("other", ["kind", "subject", "account"])
async def test_observations_are_kept_apart(conn: Any, other: str) -> None:
    await known(conn)
    names = {"account": ACCOUNT, "kind": "lock", "subject": "BTC"}
    assert await observe(conn, "1", 0) is None
    names[other] = "other"
    found = await conn.fetchval("SELECT ledger.observe($1, $2, $3, '1', 6000, 5000)", *names.values())
    assert found is None
    assert await observe(conn, "1", 6000) is True


async def test_a_lock_seen_before_a_restart_counts_when_it_is_seen_after_it(conn: Any) -> None:
    await known(conn)
    lock = Lock("BTC", Decimal("3.50"), Decimal("1"), 1, 1)
    assert not await explain.lock_is_confirmed(conn, ACCOUNT, lock, now_ms=1000, after_ms=5000)
    same = Lock("BTC", Decimal("2.5"), Decimal("0.00"), 9, 9)
    assert await explain.lock_is_confirmed(conn, ACCOUNT, same, now_ms=6000, after_ms=5000)
    await explain.forget_locks(conn, ACCOUNT, but=["BTC"])
    assert len(await rows(conn, KEPT)) == 1
    await explain.forget_locks(conn, ACCOUNT, but=[])
    assert await rows(conn, KEPT) == []


def test_a_journal_can_be_applied_again_with_every_function_that_writing_it_took() -> None:
    text = scratch.statements("elsewhere")
    made = set(re.findall(r"CREATE (?:OR REPLACE )?FUNCTION elsewhere\.(\w+)\s*\(", text))
    tables = {table.name for table in metadata.sorted_tables}
    assert set(re.findall(r"\belsewhere\.(\w+)\(", text)) - tables <= made
