"""What the service wrote is what its journal says: in every dialect, after every loss, beside a running service."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import app
from ledger.app import Database
from ledger.replay import Result
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
    assert [table.live_rows > 0 for table in after.tables[:4]] == [True] * 4
    assert after == await replayed(database_url)
