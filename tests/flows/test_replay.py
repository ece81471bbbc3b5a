"""What the service wrote is what its journal says: in every dialect, after every loss, beside a running service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger import app
from ledger.app import Database
from ledger.reconcile import runner
from ledger.replay import Result
from ledger.venue import requests
from tests.flows.mirrors import gaps_closed, mirroring, proof_of, settings_for, venue


def database(url: str) -> Database:
    return Database(url, url, url, embedded=False)


async def replayed(url: str, *, swap: bool = False) -> Result:
    """The journal of the one account there is, told again."""
    (result,) = await app.replay_all(database(url), None, swap=swap)
    return result


def differences(result: Result) -> list[Any]:
    return [difference for table in result.tables for difference in table.first]


@pytest.mark.parametrize(
    ("dialect", "sockets"), [("documented", 1), ("documented", 2), ("orders_quote", 1), ("mixed", 2), ("full", 1)]
)
async def test_the_journal_of_a_mirror_that_lost_much_says_what_the_mirror_holds(
    dialect: str, sockets: int, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox, sockets=sockets), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(100)
            await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
            await sandbox.fault({"do": "drop"})
            await sandbox.step(60)
            await gaps_closed(conn, 2)
            await sandbox.fault({"do": "duplicate", "n": 20})
            await sandbox.step(60)
            beside = await replayed(database_url)
            assert differences(beside) == []
            proof = await proof_of(conn, sandbox)
            assert proof.differences == []
    after = await replayed(database_url)
    assert differences(after) == []
    assert after.identical
    assert after.through_seq == await conn.fetchval("SELECT head_seq FROM ledger.accounts")
    filled = {table.table for table in after.tables if table.live_rows}
    assert filled >= {"orders", "fills", "balances", "balance_history"}
    assert after == await replayed(database_url)


async def test_an_answer_that_was_applied_in_parts_is_kept_as_it_came_and_says_the_same_again(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ROWS_PER_CALL_MAX", 3)
    async with venue("full") as sandbox:
        await sandbox.step(200)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            assert (await proof_of(conn, sandbox)).differences == []
    kept = await conn.fetch(
        "SELECT question, raw FROM ledger.inbox WHERE starts_with(question, 'GET#') AND session_id = ("
        " SELECT session_id FROM ledger.inbox WHERE starts_with(question, 'GET#') ORDER BY seq LIMIT 1) ORDER BY seq"
    )
    bodies: dict[tuple[str, int], bytes] = {}
    for question, raw in kept:
        rows = requests.rows_of(question)
        assert rows is not None
        assert rows.last - rows.first < 3
        bodies[question.split(" ", 1)[1], rows.total] = bodies.get((question.split(" ", 1)[1], rows.total), b"") + raw
    assert len(kept) > 3 * len(bodies) > 0
    assert [len(json.loads(body)) for body in bodies.values()] == [total for _, total in bodies]
    again = await replayed(database_url)
    assert differences(again) == []
    assert again.identical
