"""Everything a venue and a network can do wrong, played to a whole mirror: it ends equal to the venue, and it shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve

from ledger.app import Mirror
from ledger.errors import KeyRefused
from ledger.sandbox import dialects, faults
from ledger.sandbox.books import PAIRS, Order
from ledger.sandbox.dialects import event_json
from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import (
    ALL_MARKETS,
    eventually,
    gap,
    gaps_closed,
    holds,
    mirroring,
    proof_of,
    settings_for,
    venue,
)
from tests.flows.proxy import Proxy, before_port
from tests.flows.scripted_http import ScriptedHttp
from tests.patience import stretched
from tests.samples import TEN_FIELDS

SILENCE_S = 3
OPEN_GAPS = "SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NULL"
STREAM_FRAMES = "SELECT stream_frames FROM ledger.accounts WHERE account = 'main'"
THROUGH_MS = "SELECT complete_through_ms FROM ledger_v1.coverage WHERE account = 'main' AND symbol = '*'"
LAST_ERROR = "SELECT last_error FROM ledger.venue_state WHERE account = 'main'"
BLOCKED_MS = "SELECT blocked_until_ms FROM ledger.venue_state WHERE account = 'main'"
PROBLEMS = "SELECT raw, problem FROM ledger_v1.journal WHERE source = 'stream' AND problem IS NOT NULL ORDER BY seq"
FROM_REST = "SELECT count(*) FROM ledger_v1.fills WHERE source = 'rest'"


def equals(wanted: object) -> Callable[[object], bool]:
    return lambda found: found == wanted


def at_least(wanted: int) -> Callable[[int | None], bool]:
    return lambda found: found is not None and found >= wanted


@asynccontextmanager
async def mirrored(
    database_url: str, conn: Any, dialect: str, **settings: Any
) -> AsyncIterator[tuple[Sandbox, Mirror]]:
    """A venue with some actions of history, sixty unless told, and a mirror that has closed its first gap."""
    options, history = settings.pop("options", {}), settings.pop("history", 60)
    async with venue(dialect, **options) as sandbox:
        await sandbox.step(history)
        async with mirroring(settings_for(sandbox, **settings), database_url) as mirror:
            await gaps_closed(conn, 1)
            yield sandbox, mirror


def answers(sandbox: Sandbox, path: str, *statuses: int) -> int:
    """How many of the calls so far went to this path and were answered so."""
    return sum(call[1].endswith(path) and call[2] in statuses for call in sandbox.calls)


# --- frames -------------------------------------------------------------------------------------------------------


async def test_garbage_of_every_kind_is_kept_byte_for_byte_and_the_stream_goes_on(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "full") as (sandbox, _):
        await sandbox.step(10)
        await sandbox.fault({"do": "garbage"})
        await sandbox.step(10)
        await eventually(conn, STREAM_FRAMES, at_least(sandbox.frames_sent))

        kept = await conn.fetch(PROBLEMS)
        stamp = next(int(found[1]) for row in kept if (found := re.search(rb'"E":(\d+),"why"', row["raw"])))
        assert [row["raw"] for row in kept] == faults.garbage("all", stamp)
        assert all(row["problem"] for row in kept)
        assert await conn.fetchval("SELECT unreadable_frames FROM ledger.accounts") == len(kept)
        await holds(conn, sandbox, gaps=1)


async def test_an_oversize_frame_costs_the_connection_and_leaves_an_empty_row(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "documented") as (sandbox, _):
        await sandbox.fault({"do": "garbage", "kind": "oversize"})
        await sandbox.until(lambda: sandbox.sockets == 0)
        await sandbox.step(20)
        await gaps_closed(conn, 2)

        assert [tuple(row) for row in await conn.fetch(PROBLEMS)] == [(b"", "oversize")]
        assert (await gap(conn, 2))["cause"] == "oversize"
        await holds(conn, sandbox, gaps=2)


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_frames_out_of_order_end_in_the_same_rows(dialect: str, database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, dialect) as (sandbox, _):
        await sandbox.fault({"do": "reorder", "n": 60})
        await sandbox.step(60)
        await eventually(conn, STREAM_FRAMES, at_least(sandbox.frames_sent))
        await holds(conn, sandbox, gaps=1)


async def test_doubled_frames_without_trade_ids_end_without_a_double_fill(database_url: str, conn: Any) -> None:
    # Without history: beside a fill lost before its time a double can be told from none of that size.
    async with mirrored(database_url, conn, "documented", history=0) as (sandbox, _):
        await sandbox.fault({"do": "duplicate", "n": 200})
        await sandbox.step(60)
        await eventually(conn, STREAM_FRAMES, at_least(sandbox.frames_sent))
        await holds(conn, sandbox, gaps=1)

        doubles = await conn.fetch("SELECT resolved_at FROM ledger_v1.discrepancies WHERE kind = 'double_frame'")
        assert doubles, "no fill was doubled: the test shows nothing"
        assert all(row["resolved_at"] for row in doubles)


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_frames_that_never_came_are_found_by_the_periodic_reconcile(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, dialect) as (sandbox, _):
        known = await conn.fetchval("SELECT count(*) FROM ledger_v1.orders")
        await sandbox.fault({"do": "silence", "frames_only": True, "for_s": 0.0})
        await sandbox.fault({"do": "drop_frames", "n": 1000})
        await sandbox.step(30)
        await sandbox.fault({"do": "drop_frames", "n": 0})
        await gaps_closed(conn, 2)
        assert (await gap(conn, 2))["cause"] == "deaf", "who lost one frame may have lost others"
        proof = await holds(conn, sandbox, gaps=2)

        assert proof.orders > known
        assert await conn.fetchval(STREAM_FRAMES) == 0
        assert proof.missing == 0 if dialect == "full" else proof.missing > 0


async def test_the_venues_own_sample_becomes_one_order_and_one_fill(database_url: str, conn: Any) -> None:
    sample = msgspec.json.encode(TEN_FIELDS)

    async with venue("documented") as sandbox, streaming([[sample]]) as (stream_url, _):
        async with mirroring(settings_for(sandbox, stream_url=stream_url), database_url):
            await eventually(conn, STREAM_FRAMES, equals(1))
            await gaps_closed(conn, 1)

        (order,) = await conn.fetch("SELECT symbol, order_id, side, status FROM ledger_v1.orders")
        (fill,) = await conn.fetch("SELECT order_id, qty, price, fee, fee_asset, source FROM ledger_v1.fills")
        assert tuple(order) == tuple(TEN_FIELDS[name] for name in ("s", "i", "S", "X"))
        told = [str(fill[name]) for name in ("order_id", "qty", "price", "fee", "fee_asset", "source")]
        assert told == [*(str(TEN_FIELDS[name]) for name in ("i", "l", "L", "n", "N")), "stream"]
        assert (told[3], told[4]) == ("0.64", "USDT")


async def test_ten_thousand_frames_by_two_sockets_in_other_orders_count_once(database_url: str, conn: Any) -> None:
    async with venue("documented") as sandbox:
        frames = frames_of(sandbox, 10_000)
        shuffled = Random(5).sample(frames, len(frames))
        async with (
            streaming([frames]) as (once_url, once_open),
            streaming([shuffled, frames[::-1]]) as (twice_url, twice_open),
        ):
            once = settings_for(sandbox, account="once", stream_url=once_url, reconcile_every_s=300)
            twice = settings_for(sandbox, account="twice", stream_url=twice_url, sockets=2, reconcile_every_s=300)
            async with mirroring(once, database_url), mirroring(twice, database_url):
                await asyncio.gather(once_open(1), twice_open(2))
                sent = "SELECT string_agg(stream_frames::text, ' ' ORDER BY account) FROM ledger.accounts"
                await eventually(conn, sent, equals("10000 20000"), within_s=90)

        for view, columns in (
            ("orders", "symbol, order_id, status"),
            ("fills", "symbol, order_id, side, price, qty, quote_qty, fee, fee_asset, executed_ms"),
            ("balances", "asset"),
        ):
            told = f"SELECT {columns} FROM ledger_v1.{view} WHERE account = $1 ORDER BY {columns}"
            rows = await conn.fetch(told, "once")
            assert rows == await conn.fetch(told, "twice")
            assert len(rows) > 0
        provisional = "SELECT count(*) FROM ledger.fills WHERE account = $1 AND state = 'provisional'"
        assert await conn.fetchval(provisional, "once") == await conn.fetchval(provisional, "twice")


def frames_of(sandbox: Sandbox, count: int) -> list[bytes]:
    """So many frames of a market that trades a millisecond at a time; nobody is sent them."""
    frames: list[bytes] = []
    now_ms = sandbox.now_ms() - 10 * count
    while len(frames) < count:
        now_ms += 1
        told = [event_json(sandbox.dialect, event) for event in sandbox.market.step(now_ms)]
        frames += [msgspec.json.encode(frame) for frame in told if frame is not None]
    return frames[:count]


@asynccontextmanager
async def streaming(
    per_socket: Sequence[Sequence[bytes]],
) -> AsyncIterator[tuple[str, Callable[[int], Any]]]:
    """A stream that tells its n-th socket the n-th list of frames, and then keeps quiet; wait for n sockets."""
    met = asyncio.Condition()
    sockets: list[ServerConnection] = []

    async def tell(socket: ServerConnection) -> None:
        async with met:
            sockets.append(socket)
            number = len(sockets)
            met.notify_all()
        for frame in per_socket[number - 1] if number <= len(per_socket) else ():
            await socket.send(frame, text=True)
        await socket.wait_closed()

    async def opened(count: int) -> None:
        async with met:
            await met.wait_for(lambda: len(sockets) >= count)

    async with serve(tell, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", opened


# --- sockets ------------------------------------------------------------------------------------------------------


async def test_a_silent_socket_is_dead_in_time_and_its_gap_begins_when_it_was_last_heard(
    database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, "full", silence_s=SILENCE_S) as (sandbox, _):
        loop = asyncio.get_running_loop()
        silent_s, silent_ms = loop.time(), sandbox.now_ms()
        await sandbox.fault({"do": "silence"})
        await sandbox.step(30)
        live = "SELECT live FROM ledger_v1.coverage WHERE symbol = '*'"
        await eventually(conn, live, equals(False))
        assert loop.time() - silent_s < stretched(SILENCE_S + 2)
        await gaps_closed(conn, 2)

        found = await gap(conn, 2)
        assert found["cause"] == "silent"
        assert found["from_ms"] <= silent_ms < found["until_ms"]
        await holds(conn, sandbox, gaps=2)


@pytest.mark.parametrize("dialect", ["documented", "orders_quote"])
async def test_an_old_order_that_lost_a_fill_and_was_closed_live_before_the_walk_is_asked_for(
    dialect: str, database_url: str, conn: Any
) -> None:
    """Ten fields tell no executed quantity: the last fill alone looks like all of it."""
    options = {"history": 300}
    async with mirrored(database_url, conn, dialect, rest_lag_s=3, history=0, options=options) as (sandbox, _):
        key = next(order.key for order in sandbox.books.open_orders() if order.status == "NEW")
        step = PAIRS[key[0]].step
        await sandbox.fault({"do": "refuse_ws", "for_s": 2})
        await sandbox.fault({"do": "drop"})
        await sandbox.until(lambda: sandbox.sockets == 0)
        left = sandbox.hit(key, step).left
        await sandbox.until(lambda: sandbox.sockets == 1)
        assert sandbox.hit(key, left).status == "FILLED"
        await gaps_closed(conn, 2)
        proof = await holds(conn, sandbox, gaps=2)
        assert proof.missing >= 1
        missing = "SELECT missing_qty FROM ledger_v1.missing_executions WHERE symbol = $1 AND order_id = $2"
        assert await conn.fetchval(missing, *key) == step


@asynccontextmanager
async def mirrored_by_two(database_url: str, conn: Any, dialect: str) -> AsyncIterator[tuple[Sandbox, Proxy]]:
    """A mirror with two sockets that go through a proxy."""
    async with venue(dialect) as sandbox, before_port(sandbox.port) as proxy:
        await sandbox.step(60)
        settings = settings_for(sandbox, stream_url=f"ws://127.0.0.1:{proxy.port}", sockets=2, silence_s=SILENCE_S)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 1)
            await sandbox.until(lambda: sandbox.sockets == 2)
            yield sandbox, proxy


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_two_sockets_never_double_anything_and_losing_one_opens_no_gap(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with mirrored_by_two(database_url, conn, dialect) as (sandbox, proxy):
        await sandbox.step(40)
        await eventually(conn, STREAM_FRAMES, at_least(sandbox.frames_sent))
        proxy.lines[0].cut()
        await sandbox.until(lambda: sandbox.sockets == 1)
        await sandbox.step(40)
        await sandbox.until(lambda: sandbox.sockets == 2)
        await sandbox.step(40)
        await holds(conn, sandbox, gaps=1)
        sessions = "SELECT count(DISTINCT session_id) FROM ledger_v1.journal WHERE source = 'stream'"
        assert await conn.fetchval(sessions) == 3


async def test_a_socket_that_was_deaf_while_the_other_was_away_is_a_gap(database_url: str, conn: Any) -> None:
    async with mirrored_by_two(database_url, conn, "full") as (sandbox, proxy):
        deaf, other = proxy.lines
        deaf_ms = sandbox.now_ms()
        deaf.hushed = True
        other.cut()
        await sandbox.until(lambda: sandbox.sockets == 1)
        await sandbox.step(40)  # nobody hears these, yet one socket looks alive all the time
        await gaps_closed(conn, 2)
        found = await gap(conn, 2)
        assert found["cause"] == "silent"
        assert found["from_ms"] <= deaf_ms < found["until_ms"]
        await holds(conn, sandbox, gaps=2)


async def test_rotation_opens_the_new_socket_before_it_closes_the_old(database_url: str, conn: Any) -> None:
    async with venue("full", rate=300.0) as sandbox:
        sandbox.pause()
        await sandbox.step(20)
        settings = settings_for(sandbox, connection_max_age_s=1, reconcile_every_s=300, symbols=ALL_MARKETS)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 1)
            from_rest, made = await conn.fetchval(FROM_REST), sandbox.frames_made
            sandbox.resume()
            opened = sandbox.sockets_opened
            await sandbox.until(lambda: sandbox.sockets_opened >= opened + 3, timeout_s=stretched(20))
            sandbox.pause()
            proof = await holds(conn, sandbox, gaps=1)
            assert sandbox.frames_made - made > 500
            assert proof.fills == proof.venue_fills
            assert await conn.fetchval(FROM_REST) == from_rest, "the stream alone told everything"


async def test_a_position_without_clock_ends_right(database_url: str, conn: Any) -> None:
    await _ends_right_without_clock(database_url, conn, sockets=1)


async def test_a_position_without_clock_ends_right_with_two_sockets(database_url: str, conn: Any) -> None:
    await _ends_right_without_clock(database_url, conn, sockets=2)


async def _ends_right_without_clock(database_url: str, conn: Any, *, sockets: int) -> None:
    without = {"position_clock": False}
    async with mirrored(database_url, conn, "documented", options=without, sockets=sockets) as (sandbox, _):
        await sandbox.until(lambda: sandbox.sockets == sockets)
        await sandbox.step(60)
        await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
        await sandbox.fault({"do": "drop"})
        await sandbox.step(40)
        await gaps_closed(conn, 2)
        await sandbox.step(40)
        await holds(conn, sandbox, gaps=2)


# --- listen key ---------------------------------------------------------------------------------------------------


async def test_an_announced_end_of_the_listen_key_gets_a_new_one(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "full") as (sandbox, _):
        await sandbox.fault({"do": "expire_key"})
        await sandbox.step(30)
        await gaps_closed(conn, 2)
        assert (await gap(conn, 2))["cause"] == "listenKeyExpired"
        await holds(conn, sandbox, gaps=2)


async def test_an_unannounced_end_of_the_listen_key_is_a_gap_since_the_venue_last_confirmed_it(
    database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, "full", keepalive_s=4) as (sandbox, _):
        extended = sum(method == "PUT" for method, _, _ in sandbox.calls)
        await sandbox.until(lambda: sum(method == "PUT" for method, _, _ in sandbox.calls) > extended)
        expired_ms = sandbox.now_ms()
        await sandbox.fault({"do": "expire_key", "announce": False})
        await sandbox.step(30)
        # Pings still flow, so this time counts as covered until the venue refuses to extend the key.
        await eventually(conn, THROUGH_MS, at_least(expired_ms + 1))
        await gaps_closed(conn, 2)
        found = await gap(conn, 2)
        assert found["cause"] == "listen key lost: -1125"
        assert found["from_ms"] <= expired_ms < found["until_ms"]
        await holds(conn, sandbox, gaps=2)


async def test_a_key_that_had_died_before_its_socket_was_lost_is_a_gap_from_the_last_word_of_it(
    database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, "full", reconcile_every_s=300) as (sandbox, _):
        expired_ms = sandbox.now_ms()
        await sandbox.fault({"do": "expire_key", "announce": False})
        await sandbox.step(30)
        # Pings still flow, so this time counts as covered until the reconnect shows that the key was another's.
        await eventually(conn, THROUGH_MS, at_least(expired_ms + 500))
        await sandbox.fault({"do": "drop"})
        await gaps_closed(conn, 2)
        assert (await gap(conn, 2))["from_ms"] <= expired_ms
        await holds(conn, sandbox, gaps=2)


# --- REST ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 418])
async def test_a_silence_the_venue_wants_stops_every_call_and_outlives_a_restart(
    status: int, database_url: str, conn: Any
) -> None:
    async with venue("documented") as sandbox:
        await sandbox.step(60)
        settings = settings_for(sandbox, keepalive_s=1)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 1)
            await sandbox.fault({"do": "rest_status", "status": status, "retry_after": 3})
            await sandbox.until(lambda: sandbox.calls[-1][2] == status)
            await eventually(conn, BLOCKED_MS, at_least(1))
            await sandbox.fault({"do": "drop"})
            await sandbox.step(30)
        calls = len(sandbox.calls)
        blocked_ms = await conn.fetchval(BLOCKED_MS)
        async with mirroring(settings, database_url):
            await sandbox.until(lambda: len(sandbox.calls) > calls, timeout_s=stretched(20))
            assert sandbox.now_ms() >= blocked_ms
            await gaps_closed(conn, 2)
            await holds(conn, sandbox, gaps=2)
        assert list(sandbox.rest.impolite) == []


async def test_spoilt_answers_are_never_read_as_empty(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "full", reconcile_every_s=300) as (sandbox, _):
        for spoilt in (
            {"do": "rest_status", "status": 500, "path": "/openOrders"},
            {"do": "rest_html", "status": 502, "path": "/account"},
            {"do": "rest_html", "status": 200, "path": "/allOrders"},
            {"do": "rest_delay", "s": 1.0, "path": "/allOrders"},
            {"do": "rest_truncate", "path": "/myTrades"},
        ):
            await sandbox.fault(spoilt)
        trades = answers(sandbox, "/myTrades", 200)
        await sandbox.fault({"do": "drop"})
        await sandbox.step(30)
        # The last of them is met here; it is asked again a second later at the earliest.
        await sandbox.until(lambda: answers(sandbox, "/myTrades", 200) > trades, timeout_s=stretched(30))
        assert await conn.fetchval(OPEN_GAPS) == 1
        await gaps_closed(conn, 2)
        assert answers(sandbox, "/openOrders", 500) == answers(sandbox, "/account", 502) == 1
        proof = await holds(conn, sandbox, gaps=2)
        assert proof.fills == proof.venue_fills


OLD = {"history": 80, "history_days": 1}
"""Orders that no list which is asked for after a gap holds any more."""
COVERED = "SELECT complete_through_ms FROM ledger_v1.coverage WHERE symbol = '*'"
UNKNOWN = "SELECT count(*) FROM ledger_v1.discrepancies WHERE kind = 'order_unknown' AND resolved_at IS {}"


async def healed_while_unknown(sandbox: Sandbox, conn: Any, times: int) -> None:
    """An outage is healed while so many questions for single orders are answered that there is no such order."""
    await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
    await sandbox.fault({"do": "drop"})
    await sandbox.fault({"do": "rest_not_found", "n": times})
    await sandbox.step(60)
    await gaps_closed(conn, 2)


async def test_not_found_never_closes_an_order_and_is_noted_until_the_venue_knows_it_again(
    database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, "documented", options=OLD) as (sandbox, _):
        await healed_while_unknown(sandbox, conn, 1000)
        asked = answers(sandbox, "/order", 400)
        noted = await conn.fetchval(UNKNOWN.format("NULL"))
        assert 0 < noted < asked, "each was asked for more than once before its gap was closed"
        closed = "SELECT symbol, order_id FROM ledger_v1.orders WHERE status NOT IN ('NEW', 'PARTIALLY_FILLED')"
        resting = {order.key for order in sandbox.books.open_orders()}
        assert resting.isdisjoint({tuple(row) for row in await conn.fetch(closed)})
        gap_ms = (await gap(conn, 2))["from_ms"]
        assert await conn.fetchval(COVERED) == gap_ms, "coverage ends where nobody can tell what became of an order"
        await sandbox.fault({"do": "rest_not_found", "n": 0})
        await eventually(conn, UNKNOWN.format("NULL"), lambda count: count == 0, within_s=60)
        await holds(conn, sandbox, gaps=2)
        assert await conn.fetchval(UNKNOWN.format("NOT NULL")) == noted
        assert await conn.fetchval(COVERED) > gap_ms
        waiting = "SELECT count(*) FROM ledger.order_checks WHERE reason = 'unknown_to_venue'"
        await eventually(conn, waiting, lambda count: count == 0, within_s=60)


async def test_an_order_that_rest_does_not_know_yet_is_asked_for_once_more_before_its_gap_closes(
    database_url: str, conn: Any
) -> None:
    async with mirrored(database_url, conn, "documented", options=OLD) as (sandbox, _):
        await healed_while_unknown(sandbox, conn, 3)
        assert answers(sandbox, "/order", 400) == 3, "no order was asked for singly: the test shows nothing"
        was_open = "SELECT symbol, order_id FROM ledger_v1.orders WHERE status IN ('NEW', 'PARTIALLY_FILLED')"
        resting = {order.key for order in sandbox.books.open_orders()}
        assert {tuple(row) for row in await conn.fetch(was_open)} == resting
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.discrepancies WHERE kind = 'order_unknown'") == 0


@pytest.mark.parametrize(("offset_ms", "dialect"), [(90_000, "documented"), (-90_000, "documented"), (-90_000, "full")])
async def test_a_venue_with_another_clock_is_measured_and_everything_heals(
    offset_ms: int, dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.fault({"do": "clock_offset", "ms": offset_ms})
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(30)
            await sandbox.fault({"do": "drop"})
            await sandbox.step(30)
            await gaps_closed(conn, 2)
            await holds(conn, sandbox, gaps=2)
            assert abs((await gap(conn, 2))["until_ms"] - sandbox.now_ms()) < 30_000


async def test_a_redirect_is_not_followed(database_url: str, conn: Any) -> None:
    async with ScriptedHttp() as elsewhere, mirrored(database_url, conn, "documented") as (sandbox, _):
        for path in ("/account", "/userDataStream"):
            await sandbox.fault({"do": "redirect", "path": path, "to": elsewhere.url})
        await sandbox.fault({"do": "drop"})
        await sandbox.step(30)
        await gaps_closed(conn, 2)
        assert answers(sandbox, "/account", 302) == answers(sandbox, "/userDataStream", 302) == 1
        await holds(conn, sandbox, gaps=2)
        assert elsewhere.asked == []


@pytest.mark.parametrize(("wrong", "named"), [("api_secret", "SDX_API_SECRET"), ("api_key", "SDX_API_KEY")])
async def test_a_refused_key_is_not_hammered_with(wrong: str, named: str, database_url: str, conn: Any) -> None:
    async with venue("documented") as sandbox:
        await sandbox.step(60)
        refused = settings_for(sandbox, **{wrong: SecretStr("no-such-key-or-secret")}, keepalive_s=1)
        async with mirroring(refused, database_url, first_contact=False) as mirror:
            error = await eventually(conn, LAST_ERROR, lambda told: told is not None and named in told)
            assert "no-such-key-or-secret" not in error
            with pytest.raises(KeyRefused):
                await mirror.first_contact()
            refusals = [call for call in sandbox.calls if call[2] in (400, 401)]
            assert 1 <= len(refusals) <= 2, "a signed call and one for the listen key"
            # Two keep-alives and two looks for gaps later, nobody has asked anything more that would be refused.
            await quiet_for(conn, 2)
            assert [call for call in sandbox.calls if call[2] in (400, 401)] == refusals
            if wrong == "api_secret":
                assert sandbox.sockets == 1, "the listen key takes no signature: the stream is up meanwhile"

        async with mirroring(settings_for(sandbox), database_url, adopt_key=True):
            await gaps_closed(conn, 1)
            proof = await proof_of(conn, sandbox)
            assert proof.differences == []


async def quiet_for(conn: Any, seconds: int) -> None:
    """Let the database's clock go on so far."""
    until = await conn.fetchval("SELECT clock_timestamp() + make_interval(secs => $1)", seconds)
    await eventually(conn, "SELECT clock_timestamp()", lambda now: now >= until)


async def test_rest_that_trails_the_stream_is_waited_for(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "full", rest_lag_s=2, reconcile_every_s=300) as (sandbox, _):
        await sandbox.fault({"do": "rest_lag", "s": 1.5})
        await sandbox.fault({"do": "drop"})
        await sandbox.step(40)
        await gaps_closed(conn, 2)
        proof = await holds(conn, sandbox, gaps=2)
        assert proof.fills == proof.venue_fills


async def test_a_row_of_a_page_that_cannot_be_read_is_set_aside_and_the_gap_closes(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mirrored(database_url, conn, "full", reconcile_every_s=300) as (sandbox, _):
        await sandbox.step(40)
        spoilt = sandbox.books.open_orders()[0]
        truly = dialects.order_json

        def rendered(dialect: dialects.Dialect, order: Order) -> dict[str, object]:
            row = truly(dialect, order)
            return row | {"origQty": "a lot"} if order.key == spoilt.key else row

        monkeypatch.setattr("ledger.sandbox.rest.order_json", rendered)
        await sandbox.fault({"do": "drop"})
        await sandbox.step(5)
        await gaps_closed(conn, 2)

        found = await conn.fetch(
            "SELECT d.actual, d.evidence_seq, j.source, j.raw, j.problem FROM ledger_v1.discrepancies d"
            " JOIN ledger_v1.journal j ON j.account = d.account AND j.seq = d.evidence_seq"
            " WHERE d.kind = 'rest_row' AND d.resolved_at IS NULL"
        )
        assert found
        for row in found:
            assert row["source"] == "rest"
            assert b"a lot" in row["raw"]
            assert "origQty" in row["actual"]
            assert "set aside" in row["problem"]
        monkeypatch.undo()
        await sandbox.fault({"do": "drop"})
        await gaps_closed(conn, 3)
        await holds(conn, sandbox, gaps=3)
