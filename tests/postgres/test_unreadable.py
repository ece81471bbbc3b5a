"""Reports that could not be read: what they leave open until REST was asked, and what a remark costs (nothing)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger import kept
from ledger.db import apply, coverage, order_checks, reads
from ledger.db.apply import WalkStep
from ledger.facts.types import Exact, Fill, Order
from ledger.stream.consumer import read, understand
from ledger.wire.socket import Received
from tests.histories import ACCOUNT, T_MS, Socket, doubts, known, order, read_over_rest, rest, rows, trade
from tests.samples import ten_fields

MARKET = "ZECUSDT"
UNREADABLE = {
    "e": "executionReport",
    "s": MARKET,
    "i": 15,
    "S": "BUY",
    "x": "TRADE",
    "X": "FILLED",
    "l": "ten",
    "L": "2.00",
    "T": T_MS,
    "t": 900,
}
LAG_MS = 1000


async def hears(conn: Any, socket: Socket, *events: dict[str, Any]) -> None:
    for event in events:
        socket.frame_no += 1
        received = Received(socket.session_id, socket.frame_no, json.dumps(event).encode(), T_MS + 5)
        await socket_apply(conn, socket, received)


async def socket_apply(conn: Any, socket: Socket, received: Received) -> None:
    await apply.apply(conn, socket.batch(read(received), through_ms=T_MS + 60_000))


async def live(conn: Any) -> Socket:
    """A stream that is live, with no gap behind it."""
    await known(conn)
    gap = await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS - 10_000)
    await coverage.close_gap(conn, ACCOUNT, gap.gap_id, complete_from_ms=None)
    await read_over_rest(conn, MARKET, "BTCUSDT")
    return Socket()


async def covered(conn: Any, symbol: str = "*") -> int | None:
    through: int | None = await conn.fetchval(
        "SELECT complete_through_ms FROM ledger_v1.coverage WHERE symbol = $1", symbol
    )
    return through


async def due(conn: Any, now_ms: int) -> list[tuple[str, str, int]]:
    found = await order_checks.due(conn, ACCOUNT, now_ms=now_ms, lag_ms=LAG_MS, longest_ms=86_400_000, limit=9)
    return [(check.reason, *check.key) for check in found]


async def test_its_order_is_asked_for_and_coverage_ends_there_until_rest_has_told_it(conn: Any) -> None:
    socket = await live(conn)
    await hears(conn, socket, UNREADABLE)

    assert await doubts(conn) == [("unreadable_report", True)]
    assert await covered(conn) == T_MS - 1
    assert await due(conn, T_MS + LAG_MS - 1) == [], "REST may not know of it yet"
    assert await due(conn, T_MS + LAG_MS) == [("unreadable_report", MARKET, 15)]
    assert await reads.to_do(conn, ACCOUNT, now_ms=T_MS + LAG_MS, longest_ms=86_400_000) == (False, True)

    walker = rest()
    told = order("FILLED", 15, symbol=MARKET, executed_qty="10", updated_ms=T_MS, created_ms=T_MS - 5)
    await walker.tell(conn, told, asked_ms=LAG_MS - 1, lag_ms=LAG_MS)
    assert await covered(conn) == T_MS - 1, "this answer may be of before"
    await walker.tell(conn, trade(900, symbol=MARKET, order_id=15, qty="10"), told, asked_ms=LAG_MS, lag_ms=LAG_MS)
    assert await doubts(conn) == [("unreadable_report", False)]
    assert await covered(conn) == T_MS + 60_000
    await order_checks.done(conn, ACCOUNT, (MARKET, 15), ["unreadable_report"], quiet_ms=T_MS)
    assert await due(conn, T_MS + 99_000) == []


async def test_the_same_report_over_two_sockets_is_one_hole_and_a_later_one_another(conn: Any) -> None:
    socket = await live(conn)
    await hears(conn, socket, UNREADABLE)
    await hears(conn, Socket(), UNREADABLE)
    assert await doubts(conn) == [("unreadable_report", True)]
    await rest().tell(conn, order("FILLED", 15, symbol=MARKET), asked_ms=5000, lag_ms=LAG_MS)
    await hears(conn, socket, UNREADABLE | {"T": T_MS + 6000})
    assert await doubts(conn) == [("unreadable_report", False), ("unreadable_report", True)]
    assert await covered(conn) == T_MS + 5999
    assert await due(conn, T_MS + 6000 + LAG_MS) == [("unreadable_report", MARKET, 15)]


async def test_microseconds_are_no_time_of_a_trade_but_say_since_when_something_is_missing(conn: Any) -> None:
    socket = await live(conn)
    micros = {"T": T_MS * 1000 + 123, "E": T_MS * 1000 + 123, "l": "10", "n": "0", "N": "USDT"}
    await hears(conn, socket, UNREADABLE | micros)
    assert await covered(conn) == T_MS - 1
    assert await rows(conn, "SELECT symbol, order_id FROM ledger.order_checks") == [(MARKET, 15)]
    assert await rows(conn, "SELECT * FROM ledger.fills") == []


async def test_a_report_that_names_its_market_alone_has_the_market_walked(conn: Any) -> None:
    socket = await live(conn)
    await hears(conn, socket, {name: value for name, value in UNREADABLE.items() if name != "i"})
    assert await covered(conn) == T_MS - 1
    assert await due(conn, T_MS + 99_000) == []
    assert await reads.active_symbols(conn, ACCOUNT, since_seq=99) == [MARKET]

    def walked(asked_ms: int, from_ms: int | None) -> WalkStep:
        return WalkStep(None, MARKET, "allOrders", 0, None, T_MS + asked_ms, True, 1, covers=0, from_ms=from_ms)

    one = order("FILLED", 15, symbol=MARKET, updated_ms=T_MS)
    await rest().tell(conn, one, asked_ms=500, lag_ms=LAG_MS, walk=walked(500, None))
    await rest().tell(conn, one, asked_ms=5000, lag_ms=LAG_MS, walk=walked(5000, T_MS))
    assert await covered(conn) == T_MS - 1
    await rest().tell(conn, one, asked_ms=5000, lag_ms=LAG_MS, walk=walked(5000, T_MS - 1))
    assert await doubts(conn) == [("unreadable_report", False)]
    assert await reads.active_symbols(conn, ACCOUNT, since_seq=99) == []


async def test_what_rest_tells_of_it_is_no_proof_that_the_socket_is_deaf(conn: Any) -> None:
    socket = await live(conn)
    await hears(conn, socket, UNREADABLE)
    filled = Order(MARKET, 15, "FILLED", executed_qty=Exact("10"), created_ms=T_MS - 5, updated_ms=T_MS)
    made = Fill(MARKET, 15, "BUY", Exact("2"), Exact("10"), T_MS, trade_id=900)
    assert await reads.missed_since_ms(conn, ACCOUNT, [filled], [made]) is None
    other = Order(MARKET, 16, "FILLED", executed_qty=Exact("10"), created_ms=T_MS - 5, updated_ms=T_MS)
    assert await reads.missed_since_ms(conn, ACCOUNT, [other], []) == T_MS


@pytest.mark.parametrize("together", [True, False])
async def test_a_remark_is_in_the_journal_and_counts_as_understood(conn: Any, together: bool) -> None:
    socket = await live(conn)
    odd = ten_fields(f="", m="no")
    await hears(conn, socket, odd)
    if together:
        frames = [json.dumps(one).encode() for one in (ten_fields(i=5, f=""), ten_fields(i=6, l=1))]
        entries = [read(Received(socket.session_id, socket.frame_no + n, raw, T_MS)) for n, raw in enumerate(frames, 1)]
        await apply.apply(conn, socket.batch(*entries))
    (status,) = await reads.status(conn)
    assert (status["unreadable_frames"], status["frames_seen"]) == ((1, 3) if together else (0, 1))
    assert ("l: expected" in (status["last_problem"] or "")) == together
    row = await conn.fetchrow(
        "SELECT source, kind, question, raw, problem FROM ledger.inbox WHERE account = $1 AND seq = 1", ACCOUNT
    )
    assert row["problem"].startswith("remark: field f: expected str of length >= 1, got ''; field m: ")
    assert len(kept.facts(row)) == len(socket_facts(odd))


def socket_facts(event: dict[str, Any]) -> list[Any]:
    return understand(json.dumps(event).encode())[1]
