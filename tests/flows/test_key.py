"""A key that may not do everything, and a venue that answers oddly where it documents nothing: the mirror goes on."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ledger.reconcile import runner
from ledger.stream.consumer import Consumer, Rules
from ledger.stream.lease import ListenKeyLease
from ledger.venue import requests
from ledger.wire.clock import ManualClock
from ledger.wire.http import VenueHttp
from tests.flows.mirrors import eventually, gaps_closed, holds, mirroring, settings_for, venue
from tests.flows.scripted_http import ScriptedHttp, reply
from tests.patience import stretched

MODE = "SELECT mode FROM ledger.venue_state WHERE account = 'main'"
MISSING = "SELECT count(*) FROM ledger_v1.missing_executions"
FOR_GOOD = 1_000_000
DENIED = {"do": "rest_status", "status": 401, "path": "myTrades", "count": FOR_GOOD}


def statuses(sandbox: Any, path: str) -> set[int]:
    """What the calls of this path were answered so far."""
    return {status for _, called, status in sandbox.calls if called.endswith(path)}


async def test_permission_refused_on_my_trades_alone_costs_the_trades_and_nothing_else(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 'permission refused on myTrades alone': 401 with -2015 there, everything else answers."""
    monkeypatch.setattr(runner, "PROBE_AGAIN_S", 1.0)
    async with venue("full") as sandbox:
        await sandbox.step(60)
        await sandbox.fault(DENIED)
        async with mirroring(settings_for(sandbox, keepalive_s=1), database_url):
            await gaps_closed(conn, 1)
            assert await conn.fetchval(MODE) == "orders_quote"
            assert await conn.fetchval("SELECT count(*) FROM ledger_v1.balances") > 0
            assert await conn.fetchval(MISSING) > 0, "what REST does not tell of the past is shown"
            await sandbox.until(
                lambda: ("PUT", "/api/v1/userDataStream", 200) in sandbox.calls and sandbox.sockets == 1
            )
            assert statuses(sandbox, "/myTrades") == {401}
            assert statuses(sandbox, "/userDataStream") == {200}

            sandbox.faults._spoilt.clear()  # the key is given the permission
            await eventually(conn, MODE, lambda mode: mode == "trades")
            await eventually(conn, MISSING, lambda count: count == 0)
            proof = await holds(conn, sandbox, gaps=1)
            assert proof.fills == proof.venue_fills


@pytest.mark.parametrize(
    "odd",
    [
        {"do": "rest_html", "status": 403},
        {"do": "rest_html", "status": 200},
        {"do": "rest_status", "status": 403},
        {"do": "rest_status", "status": 500},
    ],
)
async def test_a_probe_that_was_answered_oddly_once_is_no_mode_for_the_day(
    odd: dict[str, Any], database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PROBE_AGAIN_S", 1.0)
    async with venue("mixed") as sandbox:
        await sandbox.step(60)
        await sandbox.fault({**odd, "path": "myTrades", "count": 3})
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await gaps_closed(conn, 1)
            await eventually(conn, MODE, lambda mode: mode == "trades")
            await eventually(conn, MISSING, lambda count: count == 0)
            proof = await holds(conn, sandbox, gaps=1)
            assert proof.fills == proof.venue_fills


async def test_an_endpoint_nobody_needs_that_never_answers_clearly_holds_nothing_up(
    database_url: str, conn: Any
) -> None:
    async with venue("full") as sandbox:
        await sandbox.step(40)
        await sandbox.fault({"do": "rest_html", "status": 403, "path": "exchangeInfo", "count": FOR_GOOD})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            assert await conn.fetchval(MODE) == "trades"
            await holds(conn, sandbox, gaps=1)


async def test_trades_that_a_firewall_begins_to_hide_are_worked_without(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PROBE_AGAIN_S", 1.0)
    async with venue("full") as sandbox:
        await sandbox.step(40)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            assert await conn.fetchval(MODE) == "trades"
            await sandbox.fault({"do": "rest_html", "status": 403, "path": "myTrades", "count": FOR_GOOD})
            await sandbox.fault({"do": "drop"})
            await sandbox.step(20)
            await gaps_closed(conn, 2)
            assert await conn.fetchval(MODE) == "orders_quote"

            sandbox.faults._spoilt.clear()
            await eventually(conn, MODE, lambda mode: mode == "trades")
            await eventually(conn, MISSING, lambda count: count == 0)
            await holds(conn, sandbox, gaps=2)


# --- the stream comes first ---------------------------------------------------------------------------------------


def consumer(http: VenueHttp, clock: ManualClock) -> Consumer:
    lease = ListenKeyLease(http, clock, keepalive_s=1500, ttl_s=3600)
    rules = Rules("ws://127.0.0.1:9", silence_s=75, max_age_s=82_800, rest_lag_s=10)
    writer = cast(Any, SimpleNamespace())
    return Consumer("main", rules, lease, writer, clock, random.Random(1))


async def test_a_venue_that_answers_anything_is_asked_for_the_listen_key_at_once() -> None:
    clock = ManualClock()
    async with ScriptedHttp([reply(503), reply(200, "{}")]) as server:
        http = VenueHttp(server.url, "key", "secret", clock)
        try:
            it = consumer(http, clock)
            assert await it._connect() is None
            waiting = asyncio.create_task(it._pause(9))
            await clock.until_asleep(1.0)
            clock.advance(1.0)
            await clock.until_asleep()
            assert not waiting.done()
            await http.send(requests.account())
            assert await asyncio.wait_for(waiting, stretched(5)) is True
        finally:
            await http.close()


@pytest.mark.parametrize("refused", [reply(410, "<html>410 Gone</html>"), reply(200, '{"code":0,"data":{}}')])
async def test_a_venue_that_refuses_the_listen_key_is_asked_every_fifteen_seconds_whatever_else_it_answers(
    refused: bytes,
) -> None:
    clock = ManualClock()
    async with ScriptedHttp([refused, reply(200, "{}")]) as server:
        http = VenueHttp(server.url, "key", "secret", clock)
        try:
            it = consumer(http, clock)
            assert await it._connect() is None
            waiting = asyncio.create_task(it._pause(9))
            await clock.until_asleep()
            await http.send(requests.account())
            clock.advance(7.4)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            clock.advance(7.6)
            assert await asyncio.wait_for(waiting, stretched(5)) is False
        finally:
            await http.close()
