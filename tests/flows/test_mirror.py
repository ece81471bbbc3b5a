"""The whole mirror against the sandbox venue over real sockets, in every dialect, on a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.mirrors import DIALECTS, eventually, gaps_closed, mirroring, proof_of, settings_for, venue


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_mirror_that_lost_its_connection_twice_equals_the_venue(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(100)
            for gap in (2, 3):
                await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
                await sandbox.fault({"do": "drop"})
                await sandbox.step(60)
                await gaps_closed(conn, gap)
                await sandbox.step(60)
            proof = await proof_of(conn, sandbox)
            assert proof.differences == []
            assert (proof.gaps_opened, proof.gaps_closed) == (3, 3)
            if dialect in ("mixed", "full"):
                assert proof.missing == 0
                assert proof.fills == proof.venue_fills > 0
            else:
                assert proof.missing > 0, "sixty actions behind its back must have held a fill"
            assert sandbox.violations == []


@pytest.mark.parametrize("wanted", [False, True])
async def test_a_clean_stop_ends_the_shared_listen_key_only_when_asked_to(
    wanted: bool, database_url: str, conn: Any
) -> None:
    async with venue("documented") as sandbox:
        async with mirroring(settings_for(sandbox, release_key=wanted), database_url):
            await gaps_closed(conn, 1)
        ended = [call for call in sandbox.calls if call[:2] == ("DELETE", "/api/v1/userDataStream")]
        assert len(ended) == (1 if wanted else 0)
        assert sandbox.violations == []
    assert await conn.fetchval("SELECT live FROM ledger_v1.coverage") is False


async def test_what_the_venue_dates_is_held_against_our_clock_only_as_far_as_that_can_be_trusted(
    database_url: str, conn: Any
) -> None:
    """A Date header of whole seconds shows no clock that is a second off. An answer asked for by it, so much too early,
    would not know of the newest execution and still be believed; coverage would say more than is known."""
    lag_ms, error_ms = 1000, 2000
    async with venue("documented") as sandbox, mirroring(settings_for(sandbox, rest_lag_s=1), database_url):
        await gaps_closed(conn, 1)
        await sandbox.step(20)
        through = "SELECT live_through_ms FROM ledger.coverage WHERE symbol = '*' AND live_through_ms > "
        through_ms = await eventually(conn, through + str(await conn.fetchval(through + "0")), bool)
        assert through_ms <= sandbox.now_ms() - lag_ms - error_ms
        lags_ms = await conn.fetch("SELECT DISTINCT lag_ms FROM ledger.batches WHERE lag_ms > 0")
        assert [row["lag_ms"] for row in lags_ms] == [lag_ms + error_ms]
