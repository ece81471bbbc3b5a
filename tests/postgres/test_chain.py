"""The chain over the journal: nothing is changed unseen, and what was changed is named."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ledger.db import apply
from ledger.db.apply import Entry
from ledger.db.coverage import stream_down
from ledger.db.rows import lay
from ledger.facts.identity import SessionMemory
from tests.histories import ACCOUNT, T_MS, Session, fill, head_seq, known, order, rows

STORY = 10
"""Rows of the journal in these tests: batches of 3, 1, 4 and 2."""


@pytest.fixture
async def told(conn: Any) -> Any:
    """An account with ten rows in its journal, as superuser."""
    await known(conn)
    stream = Session()
    for size in (3, 1, 4, 2):
        entries = [stream.entry(order("NEW", 7), raw=b'{"e":"told"}', received_ms=T_MS + 1) for _ in range(size)]
        await apply.apply(conn, stream.batch(*entries))
    assert await head_seq(conn) == STORY
    return conn


async def broken(conn: Any) -> list[tuple[Any, ...]]:
    return await rows(conn, "SELECT seq, problem FROM ledger.broken_chain($1)", ACCOUNT)


async def by_force(conn: Any, sql: str) -> None:
    """What a superuser can do who switches the guard off."""
    await conn.execute("SET session_replication_role = replica")
    await conn.execute(sql)
    await conn.execute("SET session_replication_role = origin")


async def test_what_was_written_is_a_whole_chain(told: Any) -> None:
    assert await broken(told) == []
    assert await rows(told, "SELECT first_seq, last_seq, length(marks) FROM ledger.batches ORDER BY last_seq") == [
        *((1, 3, 24), (4, 4, 8), (5, 8, 32), (9, 10, 16)),
    ]


@pytest.mark.parametrize("seq", [1, 4, 6, 10])
@pytest.mark.parametrize(
    "change",
    [
        "raw = '{}'",
        "kind = 'other'",
        "source = 'rest'",
        "frame_no = 99",
        "problem = 'none'",
        "venue_ms = NULL",
        "question = ''",
        "asked_seq = 0",
        "received_at = received_at + interval '1 microsecond'",
        "session_id = gen_random_uuid()",
    ],
)
async def test_one_changed_field_of_one_row_is_found(told: Any, seq: int, change: str) -> None:
    await by_force(told, f"UPDATE ledger.inbox SET {change} WHERE seq = {seq}")
    assert await broken(told) == [(seq, "the row is not what was written")]


@pytest.mark.parametrize("seq", [1, 6, 10])
async def test_a_row_that_is_gone_is_found(told: Any, seq: int) -> None:
    await by_force(told, f"DELETE FROM ledger.inbox WHERE seq = {seq}")
    assert await broken(told) == [(seq, "the row is gone")]


async def test_two_rows_that_changed_places_are_found(told: Any) -> None:
    await by_force(
        told,
        "ALTER TABLE ledger.inbox DROP CONSTRAINT inbox_numbers_are_positive;"
        "UPDATE ledger.inbox SET seq = -seq WHERE seq IN (6, 7);"
        "UPDATE ledger.inbox SET seq = 13 + seq WHERE seq < 0",
    )
    assert await broken(told) == [(6, "the row is not what was written")]


async def test_a_row_put_at_the_end_is_found(told: Any) -> None:
    await told.execute(
        "INSERT INTO ledger.inbox SELECT account, 11, source, gen_random_uuid(), 1, received_at, kind, venue_ms,"
        " asked_seq, question, raw, problem FROM ledger.inbox WHERE seq = 10"
    )
    assert await broken(told) == [(11, "the row is in no batch: it was not written by the service")]


async def test_a_tail_cut_off_with_its_batch_is_found_by_the_account(told: Any) -> None:
    await by_force(told, "DELETE FROM ledger.inbox WHERE seq >= 9; DELETE FROM ledger.batches WHERE last_seq = 10")
    assert await broken(told) == [(9, "the journal ends at 8, its account says 10")]


async def test_a_batch_that_is_gone_or_rewritten_is_found(told: Any) -> None:
    await by_force(told, "UPDATE ledger.batches SET digest = sha256('x') WHERE last_seq = 4")
    assert await broken(told) == [(4, "the digest of the rows 4 to 4 is not what was written")]
    await by_force(told, "DELETE FROM ledger.batches WHERE last_seq = 4")
    assert await broken(told) == [(4, "the chain goes on at 5, expected 4")]


@pytest.mark.parametrize("table", ["inbox", "batches"])
@pytest.mark.parametrize("sentence", ["UPDATE {} SET account = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_owner_cannot_change_it_by_mistake(told: Any, table: str, sentence: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"{table} is append-only"):
        await told.execute(sentence.format(f"ledger.{table}"))


async def test_a_batch_sent_twice_is_one_link(told: Any) -> None:
    batch = Session(session_id=UUID(int=5)).batch(
        Entry(1, T_MS, "told", T_MS, b"{}", None, lay([fill()])),
    )
    first, second = await apply.apply(told, batch), await apply.apply(told, batch)
    assert (first.last_seq, second.last_seq, second.repeated) == (11, 11, True)
    assert await broken(told) == []
    assert first.digest == await told.fetchval("SELECT head_digest FROM ledger.accounts")


async def test_a_leader_that_was_replaced_writes_nothing(told: Any) -> None:
    await told.execute("UPDATE ledger.accounts SET fence = 8")
    late = apply.build(ACCOUNT, UUID(int=6), "stream", [Entry(1, T_MS, "x", T_MS, b"{}", None, ())], SessionMemory())
    with pytest.raises(asyncpg.PostgresError, match="led by number 8, not by 7") as refused:
        await apply.apply(told, late, fence=7)
    assert refused.value.sqlstate == "SDX01"
    with pytest.raises(asyncpg.PostgresError, match="led by number 8"):
        await stream_down(told, ACCOUNT, fence=7)
    assert await head_seq(told) == STORY
    assert (await apply.apply(told, late, fence=8)).last_seq == STORY + 1
