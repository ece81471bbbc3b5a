"""When the stream cannot be opened at all: a gap row at once, REST alone brings the rows in, and status says so."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.db import reads
from ledger.reconcile import runner
from ledger.stream import consumer, liveness
from tests.flows.mirrors import eventually, gap, gaps_closed, holds, mirroring, settings_for, venue

FOR_GOOD = 1_000_000
GONE = {"do": "rest_html", "status": 410, "path": "userDataStream", "count": FOR_GOOD}
ROWS = "SELECT count(*) FROM ledger_v1.gaps"


def at_least(wanted: int) -> Any:
    return lambda found: found is not None and found >= wanted


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """REST is walked after a second without a socket."""
    monkeypatch.setattr(runner, "OUTAGE_PATIENCE_S", 1.0)


@pytest.mark.parametrize(
    "refusal",
    [
        GONE,
        {"do": "rest_status", "status": 401, "path": "userDataStream", "count": FOR_GOOD},
        {"do": "refuse_ws", "for_s": 100_000},
    ],
    ids=["410 for good", "no key for the stream", "sockets are refused"],
)
async def test_without_a_socket_there_is_a_gap_row_and_rest_brings_the_rows(
    refusal: dict[str, Any], database_url: str, conn: Any
) -> None:
    """Case 'listen key gone for good': POST answers 410 with HTML, everything else answers."""
    async with venue("full") as sandbox:
        await sandbox.step(60)
        await sandbox.fault(refusal)
        async with mirroring(settings_for(sandbox), database_url):
            await eventually(conn, ROWS, at_least(1))
            row = await gap(conn, 1)
            assert (row["cause"], row["from_ms"], row["until_ms"], row["closed_at"]) == ("start", None, None, None)
            truth = sandbox.truth()
            await eventually(conn, "SELECT count(*) FROM ledger_v1.orders", at_least(len(truth["orders"])))
            await eventually(conn, "SELECT count(*) FROM ledger_v1.fills", at_least(len(truth["fills"])))

            await sandbox.step(30)  # the periodic pass brings what happens now
            await eventually(conn, "SELECT count(*) FROM ledger_v1.fills", at_least(len(sandbox.truth()["fills"])))
            (status,) = await reads.status(conn)
            assert (status["live"], status["open_gaps"], status["complete_through_ms"]) == (False, 1, None)
            assert (status["outage_cause"], status["outage_since"]) == ("start", row["opened_at"])
            assert status["stream_error"]
            assert await conn.fetchval(ROWS) == 1, "one row, however many attempts"

            sandbox.faults._spoilt.clear()
            sandbox._refuse_ws_until_s = 0.0
            await sandbox.until(lambda: sandbox.sockets == 1, timeout_s=40)
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
            row = await gap(conn, 1)
            assert row["until_ms"] is not None
            (status,) = await reads.status(conn)
            assert (status["live"], status["outage_since"], status["stream_error"]) == (True, None, None)


async def test_an_outage_that_a_restart_falls_into_stays_one_row(database_url: str, conn: Any) -> None:
    async with venue("mixed") as sandbox:
        await sandbox.step(40)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.fault({"do": "refuse_ws", "for_s": 100_000})
            await sandbox.fault({"do": "drop"})
            await eventually(conn, ROWS, at_least(2))
            lost = await gap(conn, 2)
            assert (lost["cause"], lost["until_ms"]) == ("lost", None)
        await sandbox.step(20)
        async with mirroring(settings_for(sandbox), database_url):
            await sandbox.until(lambda: sandbox.calls[-1][1].endswith("userDataStream"), timeout_s=40)
            sandbox._refuse_ws_until_s = 0.0
            await gaps_closed(conn, 2)
            await holds(conn, sandbox, gaps=2)
        again = await gap(conn, 2)
        assert (again["cause"], again["from_ms"], again["opened_at"]) == ("lost", lost["from_ms"], lost["opened_at"])
        assert again["until_ms"] > lost["from_ms"]


async def test_the_row_of_an_outage_that_the_database_lost_is_written_again(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover to a standby that was behind: no attempt to connect is due for a long time."""
    monkeypatch.setattr(consumer, "ROW_AGAIN_S", 0.2)
    async with venue("full") as sandbox, mirroring(settings_for(sandbox), database_url):
        await gaps_closed(conn, 1)
        monkeypatch.setattr(liveness, "backoff_s", lambda *_: 1000.0)
        await sandbox.fault({"do": "refuse_ws", "for_s": 100_000})
        await sandbox.fault({"do": "drop"})
        await eventually(conn, ROWS, at_least(2))
        await conn.execute("DELETE FROM ledger.gaps WHERE until_ms IS NULL")
        await eventually(conn, ROWS, at_least(2))
