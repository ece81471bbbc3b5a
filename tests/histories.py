"""What tests tell the database: facts with sensible defaults, sessions that number them, and whole venue histories.

Always holds: everything goes through the same ``build`` and ``apply`` as the service; nothing here writes rows itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from ledger.db import apply, order_checks
from ledger.db.apply import Applied, Batch, Entry
from ledger.db.coverage import register
from ledger.db.rows import lay
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Balance, Exact, Fact, Fill, Order, Settlement, Snapshot
from ledger.sandbox.books import PAIRS, Books, Event, Report
from ledger.sandbox.dialects import DIALECTS, account_json, event_json, order_json, trade_json
from ledger.sandbox.market import Market
from ledger.stream.consumer import read
from ledger.venue import requests, rest_pages
from ledger.venue.requests import Request
from ledger.wire.socket import Received

ACCOUNT = "main"
SYMBOL = "BTCUSDT"
ORDER_ID = 288274
T_MS = 1_717_372_800_000  # 2024-06-03T00:00:00Z


async def known(conn: Any, account: str = ACCOUNT) -> str:
    await register(conn, account, rest_origin="http://127.0.0.1", key_fingerprint="k")
    return account


async def read_over_rest(conn: Any, *symbols: str, account: str = ACCOUNT) -> None:
    """As if these markets had been walked when there was no order in them."""
    sql = "INSERT INTO ledger.coverage (account, symbol) SELECT $1, unnest($2::text[])"
    await conn.execute(sql, account, list(symbols))


async def due_orders(conn: Any, reason: str, now_ms: int, *, account: str = ACCOUNT) -> list[tuple[str, int]]:
    """The orders that are to be asked for at that moment (venue clock) for that reason, REST trailing by nothing."""
    await order_checks.find(conn, account, lag_ms=0)
    checks = await order_checks.due(conn, account, now_ms=now_ms, lag_ms=0, longest_ms=86_400_000, limit=10_000)
    return [check.key for check in checks if check.reason == reason]


def order(status: str | None, order_id: int = ORDER_ID, **told: Any) -> Order:
    numbers: dict[str, Any] = {
        name: Exact(told.pop(name))
        for name in ("price", "orig_qty", "executed_qty", "executed_quote")
        if told.get(name) is not None
    }
    return Order(told.pop("symbol", SYMBOL), order_id, status, **numbers, **told)


def fill(at_ms: int = 0, qty: str = "1", price: str = "100", **told: Any) -> Fill:
    """A stream fill without a trade id; ``at_ms`` counts from ``T_MS``."""
    words: dict[str, Any] = {
        "symbol": SYMBOL,
        "order_id": ORDER_ID,
        "side": "BUY",
        "fee": Exact("0.1"),
        "fee_asset": "USDT",
        "status": "PARTIALLY_FILLED",
    }
    return Fill(price=Exact(price), qty=Exact(qty), executed_ms=T_MS + at_ms, **{**words, **told})


def trade(trade_id: int, at_ms: int = 0, qty: str = "1", price: str = "100", **told: Any) -> Fill:
    """A row of REST's trades."""
    quote = Exact(format(Decimal(qty) * Decimal(price), "f"))
    words = {"quote_qty": quote, "is_maker": True, "status": None}
    return fill(at_ms, qty, price, trade_id=trade_id, **{**words, **told})


def held(asset: str, free: str, locked: str = "0", at_ms: int | None = 0) -> Balance:
    return Balance(asset, Exact(free), Exact(locked), None if at_ms is None else T_MS + at_ms)


def snapshot(*balances: Balance, at_ms: int | None = None) -> Snapshot:
    return Snapshot(balances, None if at_ms is None else T_MS + at_ms)


def settled(executed_qty: str, order_id: int = ORDER_ID) -> Settlement:
    return Settlement(SYMBOL, order_id, Exact(executed_qty))


@dataclass
class Session:
    """One socket or one reconcile run: numbers its frames and remembers what it said."""

    source: Literal["stream", "rest"] = "stream"
    account: str = ACCOUNT
    session_id: UUID = field(default_factory=uuid4)
    memory: SessionMemory = field(default_factory=SessionMemory)
    frame_no: int = 0

    def entry(
        self,
        *facts: Fact,
        raw: bytes = b"{}",
        kind: str = "told",
        venue_ms: int | None = T_MS,
        problem: str | None = None,
        received_ms: int = T_MS,
    ) -> Entry:
        self.frame_no += 1
        return Entry(self.frame_no, received_ms, kind, venue_ms, raw, problem, lay(facts))

    def batch(self, *entries: Entry, **options: Any) -> Batch:
        return apply.build(self.account, self.session_id, self.source, entries, self.memory, **options)

    async def tell(self, conn: Any, *facts: Fact, asked_ms: int = 0, **options: Any) -> Applied:
        """All of this in one frame; ``asked_ms`` (REST) counts from ``T_MS``."""
        return await apply.apply(conn, self.batch(self.entry(*facts, venue_ms=T_MS + asked_ms), **options))

    async def tell_nothing(self, conn: Any, through_ms: int) -> Applied:
        """No frame came; everything before ``through_ms`` of the venue's clock is written."""
        return await apply.apply(conn, self.batch(through_ms=through_ms))


def rest() -> Session:
    return Session("rest")


async def column(conn: Any, sql: str, *values: Any) -> list[Any]:
    return [row[0] for row in await conn.fetch(sql, *values)]


async def rows(conn: Any, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await conn.fetch(sql, *values)]


async def fills_of(conn: Any, columns: str = "trade_id, qty", account: str = ACCOUNT) -> list[tuple[Any, ...]]:
    """The visible fills, oldest first."""
    return await rows(
        conn,
        f"SELECT {columns} FROM ledger_v1.fills WHERE account = $1 ORDER BY executed_ms, trade_id, fill_id",
        account,
    )


async def order_of(conn: Any, columns: str, order_id: int = ORDER_ID) -> tuple[Any, ...]:
    (row,) = await rows(conn, f"SELECT {columns} FROM ledger_v1.orders WHERE order_id = $1", order_id)
    return row


async def doubts(conn: Any, account: str = ACCOUNT) -> list[tuple[str, bool]]:
    """(kind, still open) of every discrepancy."""
    return await rows(
        conn,
        "SELECT kind, resolved_at IS NULL FROM ledger_v1.discrepancies WHERE account = $1 ORDER BY discrepancy_id",
        account,
    )


async def head_seq(conn: Any, account: str = ACCOUNT) -> int:
    head: int = await conn.fetchval("SELECT head_seq FROM ledger.accounts WHERE account = $1", account)
    return head


@dataclass(frozen=True)
class Frame:
    """A stream frame as it goes over the socket, and the content of the fill it tells, if it tells one."""

    raw: bytes
    order: tuple[str, int] | None = None
    content: tuple[Any, ...] | None = None
    """What tells two fills apart on a stream without trade ids."""
    once: bool = False


class Venue:
    """A market that has traded for ``steps`` actions, told in one dialect.

    ``books[n]`` are the books after n actions, ``truth`` the last of them.
    """

    def __init__(self, seed: int, steps: int, dialect: str, *, amended: int = 0) -> None:
        """``amended``: after so many of 100 actions a resting order is amended."""
        self.dialect = DIALECTS[dialect]
        market, clock, chance = Market(seed), Random(seed), Random(seed + 1)
        self.frames: list[Frame] = []
        self.books: list[Books] = [market.books.copy()]
        now_ms = T_MS
        for _ in range(steps):
            now_ms += clock.choice((0, 1, 300, 900))
            self._tell(market.step(now_ms))
            self.books.append(market.books.copy())
            if chance.randrange(100) < amended and self._amend(market, now_ms + 1, chance):
                now_ms += 2
                self.books.append(market.books.copy())
        self.truth = market.books

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            told = event_json(self.dialect, event)
            if told is not None:
                self.frames.append(_frame(msgspec.json.encode(told), event))

    def _amend(self, market: Market, now_ms: int, chance: Random) -> bool:
        """Leave some resting order with less, at an instant of its own."""
        resting = [one for one in market.books.open_orders() if one.left > PAIRS[one.symbol].step]
        if not resting:
            return False
        order = chance.choice(resting)
        step = PAIRS[order.symbol].step
        less = chance.randint(1, int(order.left // step) - 1) * step
        self._tell(market.amend(order, order.orig_qty - less, now_ms))
        return True

    def answer(self, request: Request, books: Books) -> bytes:
        """The body of the answer when these are the venue's books."""
        return msgspec.json.encode(self._answer(request, books))

    def _answer(self, request: Request, books: Books) -> object:
        if request.kind == "account":
            return account_json(self.dialect, books)
        if request.kind == "openOrders":
            return [order_json(self.dialect, one) for one in books.open_orders()]
        assert request.symbol is not None
        if request.kind == "allOrders":
            return [order_json(self.dialect, one) for one in books.orders_of(request.symbol)]
        if request.kind == "myTrades":
            return [trade_json(one) for one in books.fills_of(request.symbol)]
        assert request.order_id is not None
        return order_json(self.dialect, books.orders[request.symbol, request.order_id])

    def walk(self, books: Books) -> list[Request]:
        """Everything a complete walk asks."""
        symbols = sorted({one.symbol for one in books.orders.values()})
        asked = [requests.open_orders(), *(requests.all_orders(symbol) for symbol in symbols)]
        if self.dialect.trades:
            asked += [requests.my_trades(symbol) for symbol in symbols]
        return asked


def _frame(raw: bytes, event: object) -> Frame:
    if not isinstance(event, Report):
        return Frame(raw)
    made = event.fill
    if made is None:
        return Frame(raw, event.order.key)
    numbers = (made.symbol, made.order_id, event.order.status, made.time_ms, made.qty, made.price, made.fee)
    return Frame(raw, event.order.key, numbers, event.order.status == "FILLED")


@dataclass
class Socket(Session):
    """A stream session that is told raw frames, as the service reads them."""

    def received(self, frames: Sequence[Frame]) -> Batch:
        entries = []
        for frame in frames:
            self.frame_no += 1
            entries.append(read(Received(self.session_id, self.frame_no, frame.raw, T_MS)))
        return self.batch(*entries)


@dataclass
class Walker(Session):
    """A reconcile session that is told raw answers, as the service reads them."""

    source: Literal["stream", "rest"] = "rest"

    def answered(self, request: Request, body: bytes, asked_ms: int, asked_seq: int | None) -> Batch:
        page = rest_pages.read(request, body)
        assert not page.set_aside, f"the sandbox told rows nobody can read: {page.set_aside}"
        entry = self.entry(*page.facts, raw=body, kind=request.kind, venue_ms=asked_ms)
        return self.batch(entry, question=request.question, asked_seq=asked_seq)


def contents_of(frames: Sequence[Frame]) -> Counter[tuple[Any, ...]]:
    """How often each fill is told; FILLED happens once however often it is told."""
    told = Counter(frame.content for frame in frames if frame.content is not None)
    for frame in frames:
        if frame.once and frame.content is not None:
            told[frame.content] = 1
    return told
