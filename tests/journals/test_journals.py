"""Journals of earlier releases still tell what they told: the same rows, byte for byte, from the journal alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ledger.replay import SCRATCH, Replay, scratch
from ledger.wire import postgres
from tests import journals
from tests.histories import rows

DIALECTS = ("documented", "orders_quote", "mixed", "full")


def name_of(path: Path) -> str:
    return path.name.removesuffix(".jsonl.gz")


def test_every_dialect_and_the_hard_cases_are_recorded() -> None:
    names = {name_of(path).rpartition("-")[2] for path in journals.files()}
    assert names >= {*DIALECTS, "everything"}


@pytest.mark.parametrize("path", journals.files(), ids=name_of)
async def test_a_recorded_journal_is_replayed_to_the_rows_of_its_release(
    path: Path, conn: Any, database_url: str
) -> None:
    recorded = journals.read(path)
    await journals.load(conn, recorded)
    assert await rows(conn, "SELECT * FROM ledger.broken_chain($1)", recorded.account) == []
    async with postgres.reading(database_url, writes=True) as writer, scratch(writer):
        replay = Replay(conn, writer, recorded.account)
        await replay.start()
        await replay.forward(len(recorded.inbox))
        columns = {table: names for table, (names, _) in recorded.dumps.items()}
        found = await journals.dumps(conn, SCRATCH, recorded.account, columns)
    assert found == {table: sha256 for table, (_, sha256) in recorded.dumps.items()}


async def test_the_file_of_everything_holds_everything(conn: Any) -> None:
    (path,) = [path for path in journals.files() if name_of(path).endswith("everything")]
    recorded = journals.read(path)
    await journals.load(conn, recorded)
    assert len(recorded.inbox) >= 200
    assert {source for (source,) in await rows(conn, "SELECT DISTINCT source FROM ledger.inbox")} == {
        "stream",
        "rest",
        "operator",
    }
    sessions = await conn.fetchval("SELECT count(DISTINCT session_id) FROM ledger.inbox WHERE source = 'stream'")
    assert sessions >= 4, "two sockets, lost once"
    assert await conn.fetchval("SELECT count(*) FROM ledger.batches WHERE clockless") > 0
    doubles = "SELECT count(*) - count(DISTINCT (session_id, raw)) FROM ledger.inbox WHERE source = 'stream'"
    assert await conn.fetchval(doubles) > 0
    assert await conn.fetchval("SELECT count(*) FROM ledger.inbox WHERE kind = 'myTrades'") > 0
    assert await conn.fetchval("SELECT count(*) FROM ledger.inbox WHERE problem IS NOT NULL") > 0
