"""From REST answers to facts.

Always holds: a row that cannot be read is set aside with its index and the reason, and the rest of the page
is used; what cannot be read as a page at all raises UnreadableFrame, which is never taken for "empty". Only
the account is all or nothing: it is told as complete, so one unreadable balance would turn into a zero that
the venue never said.

The venue shows the order object of its place-an-order page and the account; everything else is read in the
form of the venue it follows, and every field that either form may leave out may be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from ledger.errors import UnreadableFrame
from ledger.facts.decimals import is_zero, shown
from ledger.facts.types import Balance, Fact, Fill, Order, Settlement, Snapshot
from ledger.venue import requests
from ledger.venue.reading import (
    LAST_ID,
    LAST_MS,
    ClientId,
    Id,
    MaybeMs,
    Ms,
    Shape,
    Word,
    amount,
    fits,
    flaw,
    is_nothing,
    known_amount,
    known_ms,
    needed_amount,
    parse,
    read_as,
    read_trusting,
    remark,
    sized_in_quote,
    told_fee,
)
from ledger.venue.requests import Request, Rows

ORDER_FIELDS = ("executedQty", "cummulativeQuoteQty", "updateTime")
"""What an order object may tell beyond its identity and status; which of them decides the recovery mode."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row that could not be read: its place on the page, from 0, and why.

    The rest is as much of what it is about as it tells all the same; ``at_ms`` is its time, venue clock.
    """

    index: int
    problem: str
    symbol: str | None = field(default=None, compare=False)
    order_id: int | None = field(default=None, compare=False)
    trade_id: int | None = field(default=None, compare=False)
    at_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Remark:
    """A row that was understood without fields that only describe: its place on the page, from 0, and which."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Market:
    """A symbol with the two assets it trades."""

    symbol: str
    base: str
    quote: str


@dataclass(frozen=True, slots=True)
class Page:
    """One answer. ``rows`` counts all rows that came, those set aside too: fewer than the limit is the last
    page.

    ``first_ms`` to ``last_id`` are the smallest and largest of the page, rows set aside included where they
    tell them; None on pages without rows. Times are an order's creation (else its update) or a trade's
    execution, ids are order ids or, on myTrades, trade ids. ``fields``: which of executedQty,
    cummulativeQuoteQty and updateTime the venue told on orders. ``markets``: exchangeInfo only.
    ``server_ms``: time only.
    """

    facts: tuple[Fact, ...] = ()
    rows: int = 0
    set_aside: tuple[SetAside, ...] = ()
    first_ms: int | None = None
    last_ms: int | None = None
    first_id: int | None = None
    last_id: int | None = None
    fields: frozenset[str] = frozenset()
    markets: tuple[Market, ...] = ()
    server_ms: int | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def remark(self) -> str | None:
        """What the journal says of rows that were understood without some describing fields; None: of none."""
        return remark([f"row {one.index}: {one.text}" for one in self.remarks])


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of an answer, in order: the ``body`` of all its parts, one after the other, is the answer as it came.

    ``question`` names the rows where the answer has more than one part.
    """

    question: str
    body: bytes


class OrderRow(msgspec.Struct, frozen=True):
    """An order. ``transactTime`` stands for both times in the venue's own, minimal form."""

    orderId: Id
    status: Word
    symbol: Word | None = None
    clientOrderId: ClientId | None = None
    side: Word | None = None
    type: Word | None = None
    timeInForce: Word | None = None
    price: str | None = None
    origQty: str | None = None
    executedQty: str | None = None
    cummulativeQuoteQty: str | None = None
    time: MaybeMs | None = None
    updateTime: MaybeMs | None = None
    transactTime: MaybeMs | None = None


class TradeRow(msgspec.Struct, frozen=True):
    """A trade of one's own order."""

    id: Id
    orderId: Id
    price: str
    qty: str
    time: Ms
    symbol: Word | None = None
    quoteQty: str | None = None
    commission: str | None = None
    commissionAsset: Word | None = None
    isBuyer: bool | None = None
    isMaker: bool | None = None


class BalanceRow(msgspec.Struct, frozen=True):
    """One asset of the account."""

    asset: Word
    free: str
    locked: str


class AccountBody(msgspec.Struct, frozen=True):
    """The account; only what the mirror needs."""

    balances: list[Any]
    updateTime: MaybeMs | None = None


class MarketRow(msgspec.Struct, frozen=True):
    """A symbol of exchangeInfo."""

    symbol: Word
    baseAsset: Word
    quoteAsset: Word


class MarketsBody(msgspec.Struct, frozen=True):
    """The exchangeInfo body."""

    symbols: list[Any]


class TimeBody(msgspec.Struct, frozen=True):
    """The answer of the time endpoint."""

    serverTime: Ms


def read(request: Request, body: bytes) -> Page:
    """What the venue answered to ``request`` with status 200.

    Raises UnreadableFrame when the body is not JSON or not of the shape this question is answered in; ask
    again.
    """
    tree: object = None
    try:
        tree, suspect = parse(body)
        return _READERS[request.kind](request, tree, suspect)
    except UnreadableFrame as error:
        raise UnreadableFrame(f"{request.method} {request.path}: {error}{said(tree)}") from None


def read_part(request: Request, part: Part) -> Page:
    """What a part of the answer to ``request`` says; places count from its first row. Raises as ``read`` does."""
    return read(request, _as_answer(part))


def read_kept(kind: str, question: str, body: bytes) -> Page:
    """What an answer, or a part of one, says that was kept with its question.

    Raises UnreadableFrame as ``read`` does, ValueError when ``question`` is none.
    """
    return read_part(requests.from_question(kind, question), Part(question, body))


def parts(request: Request, body: bytes, rows_max: int) -> list[Part]:
    """The answer to ``request`` in parts of at most ``rows_max`` rows.

    One part, the whole, where it is no list, has no more rows than that, or cannot be cut as it stands.
    """
    whole = [Part(request.question, body)]
    try:
        rows = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return whole
    if len(rows) <= rows_max:
        return whole
    starts = []
    at = 0
    for row in rows:
        text = bytes(row)
        at = body.index(text, at)
        starts.append(at)
        at += len(text)
    told = []
    for first in range(0, len(rows), rows_max):
        past = min(first + rows_max, len(rows))
        start, end = starts[first] if first else 0, starts[past] if past < len(rows) else len(body)
        told.append(Part(requests.with_rows(request.question, Rows(first, past - 1, len(rows))), body[start:end]))
    return told


def joined(pages: Sequence[Page]) -> Page:
    """The answer whose parts say this, at least one."""
    if len(pages) == 1:
        return pages[0]
    offsets = list(accumulate((page.rows for page in pages), initial=0))
    return Page(
        tuple(fact for page in pages for fact in page.facts),
        sum(page.rows for page in pages),
        tuple(
            replace(row, index=offset + row.index)
            for page, offset in zip(pages, offsets, strict=False)
            for row in page.set_aside
        ),
        min((page.first_ms for page in pages if page.first_ms is not None), default=None),
        max((page.last_ms for page in pages if page.last_ms is not None), default=None),
        min((page.first_id for page in pages if page.first_id is not None), default=None),
        max((page.last_id for page in pages if page.last_id is not None), default=None),
        frozenset().union(*(page.fields for page in pages)),
        remarks=tuple(
            replace(one, index=offset + one.index)
            for page, offset in zip(pages, offsets, strict=False)
            for one in page.remarks
        ),
    )


def error(status: int, body: bytes) -> tuple[int | None, str]:
    """The venue's error code (None where it gives none) and a message that can be logged.

    A body that is not JSON, such as a firewall's page, is told by its size only: such pages repeat the
    address they refuse, with its signature.
    """
    try:
        told = json.loads(body)
        told = told.get("error") if isinstance(told.get("error"), dict) else told
        code, message = told.get("code"), told.get("msg", told.get("message"))
    except (ValueError, AttributeError, RecursionError):
        return None, f"HTTP {status} with {len(body)} bytes that are no error of the venue"
    known = code if type(code) is int and abs(code) < 2**31 else None
    if not isinstance(message, str):
        return known, f"HTTP {status} without a message"
    return known, _loggable(message)


def said(tree: object) -> str:
    """What the venue says in an object that it sent in place of an answer; empty where it says nothing."""
    if not isinstance(tree, dict):
        return ""
    code, message = tree.get("code"), tree.get("msg", tree.get("message"))
    words = f" {_loggable(message)!r}" if isinstance(message, str) and message else ""
    number = f" (code {shown(code)})" if isinstance(code, int | str) and not isinstance(code, bool) else ""
    return f"; the venue says{words}{number}" if words or number else ""


def _account(_: Request, tree: object, suspect: bool) -> Page:
    body = read_as(tree, AccountBody)
    seen: set[str] = set()
    balances, set_aside = _read_rows(body.balances, suspect, lambda row: _balance(row, seen))
    snapshot = Snapshot(balances, known_ms(body.updateTime))
    return Page(() if set_aside else (snapshot,), len(body.balances), set_aside)


def _balance(row: object, seen: set[str]) -> Balance:
    told = read_as(row, BalanceRow)
    if told.asset in seen:
        raise UnreadableFrame(f"field asset: expected every asset once, got {shown(told.asset)} again")
    seen.add(told.asset)
    return Balance(told.asset, needed_amount("free", told.free), needed_amount("locked", told.locked))


def _orders(request: Request, tree: object, suspect: bool) -> Page:
    return _order_page(request, _rows(tree), suspect)


def _one_order(request: Request, tree: object, suspect: bool) -> Page:
    """The order asked for, which decides between two terminal states."""
    if not isinstance(tree, dict):
        raise UnreadableFrame(f"expected one order, got {shown(tree)}")
    return _order_page(request, [tree], suspect)


def _settled_order(request: Request, tree: object, suspect: bool) -> Page:
    """The order asked for, and its executed quantity as the settlement of its provisional fills."""
    page = _one_order(request, tree, suspect)
    settlements = tuple(
        Settlement(order.symbol, order.order_id, order.executed_qty)
        for order in page.facts
        if isinstance(order, Order) and order.executed_qty is not None
    )
    if page.facts and not settlements:
        return replace(page, set_aside=(SetAside(0, "field executedQty: expected one to settle by, got none"),))
    return replace(page, facts=page.facts + settlements)


def _order_page(request: Request, rows: list[Any], suspect: bool) -> Page:
    orders, set_aside, remarks = _read_trusting(rows, lambda row, remarks: _order(request, row, suspect, remarks))
    return Page(
        orders,
        len(rows),
        set_aside,
        *_span(rows, ("time", "transactTime", "updateTime"), least=1, most=LAST_MS),
        *_span(rows, ("orderId",), least=0, most=LAST_ID),
        fields=_told_fields(rows),
        remarks=remarks,
    )


def _order(request: Request, row: object, suspect: bool, remarks: list[str]) -> Order:
    told = None if suspect else fits(row, OrderRow)
    if told is None:
        told = _trusting(row, OrderRow, _DESCRIBE_AN_ORDER, suspect, remarks)
    symbol = _symbol(request, told.symbol)
    asked = request.order_id
    if asked is not None and (symbol, told.orderId) != (request.symbol, asked):
        raise UnreadableFrame(f"expected order {request.symbol}/{asked}, got {symbol}/{told.orderId}")
    if told.executedQty is not None and (why := sized_in_quote(told.type, told.origQty, told.executedQty)):
        told = msgspec.structs.replace(told, origQty=None)
        remarks.append(f"field origQty: {why}")
    orig_qty, executed_qty = amount("origQty", told.origQty), amount("executedQty", told.executedQty)
    # An original of zero is how an order by quote amount may be told.
    if orig_qty and executed_qty and not is_zero(orig_qty) and Decimal(executed_qty) > Decimal(orig_qty):
        raise UnreadableFrame(
            f"field executedQty: expected at most the ordered {shown(told.origQty)}, got {shown(told.executedQty)}"
        )
    return Order(
        symbol=symbol,
        order_id=told.orderId,
        status=told.status,
        side=told.side,
        type=told.type,
        time_in_force=told.timeInForce,
        client_order_id=told.clientOrderId or None,
        price=amount("price", told.price),
        orig_qty=orig_qty,
        executed_qty=executed_qty,
        executed_quote=known_amount("cummulativeQuoteQty", told.cummulativeQuoteQty),
        created_ms=known_ms(told.time) or known_ms(told.transactTime),
        updated_ms=known_ms(told.updateTime) or known_ms(told.transactTime),
        decides=asked is not None,
    )


def _told_fields(rows: list[Any]) -> frozenset[str]:
    """A negative cumulative quote is not told: that is how the venue says that it does not know."""
    objects = [row for row in rows if isinstance(row, dict)]
    return frozenset(
        name for name in ORDER_FIELDS for row in objects if row.get(name) and not str(row[name]).startswith("-")
    )


def _trades(request: Request, tree: object, suspect: bool) -> Page:
    rows = _rows(tree)
    fills, set_aside, remarks = _read_trusting(rows, lambda row, remarks: _fill(request, row, suspect, remarks))
    return Page(
        fills,
        len(rows),
        set_aside,
        *_span(rows, ("time",), least=1, most=LAST_MS),
        *_span(rows, ("id",), least=0, most=LAST_ID),
        remarks=remarks,
    )


def _fill(request: Request, row: object, suspect: bool, remarks: list[str]) -> Fill:
    told = None if suspect else fits(row, TradeRow)
    if told is None:
        # The asset of no fee only describes; that of a fee is what was paid.
        free = isinstance(row, dict) and is_nothing(row.get("commission"))
        told = _trusting(
            row, TradeRow, frozenset({"isMaker", "commissionAsset"} if free else {"isMaker"}), suspect, remarks
        )
    qty = needed_amount("qty", told.qty)
    if is_zero(qty):
        raise UnreadableFrame(f"field qty: expected more than zero, got {shown(told.qty)}")
    return Fill(
        symbol=_symbol(request, told.symbol),
        order_id=told.orderId,
        side=None if told.isBuyer is None else "BUY" if told.isBuyer else "SELL",
        price=needed_amount("price", told.price),
        qty=qty,
        executed_ms=told.time,
        quote_qty=amount("quoteQty", told.quoteQty),
        fee=told_fee("commission", told.commission, told.commissionAsset),
        fee_asset=told.commissionAsset,
        trade_id=told.id,
        is_maker=told.isMaker,
    )


def _markets(_: Request, tree: object, suspect: bool) -> Page:
    rows = read_as(tree, MarketsBody).symbols
    markets, set_aside = _read_rows(rows, suspect, _market)
    return Page((), len(rows), set_aside, markets=markets)


def _market(row: object) -> Market:
    told = read_as(row, MarketRow)
    return Market(told.symbol, told.baseAsset, told.quoteAsset)


def _time(_: Request, tree: object, __: bool) -> Page:
    return Page(server_ms=read_as(tree, TimeBody).serverTime)


_DESCRIBE_AN_ORDER = frozenset({"clientOrderId", "type", "timeInForce"})
"""Fields of an order that only describe it."""

_READERS: dict[str, Callable[[Request, object, bool], Page]] = {
    "account": _account,
    "openOrders": _orders,
    "allOrders": _orders,
    "order": _one_order,
    "order_settle": _settled_order,
    "myTrades": _trades,
    "exchangeInfo": _markets,
    "time": _time,
}
_SECRET = re.compile(r"(?i)(signature|listenKey|apikey)([\"']?\s*[=:]\s*[\"']?)[^\s&\"']+")


def _as_answer(part: Part) -> bytes:
    """The part's rows as an answer of their own."""
    rows = requests.rows_of(part.question)
    if rows is None:
        return part.body
    inner = part.body.strip()
    inner = inner.removeprefix(b"[") if rows.first == 0 else inner
    inner = inner.removesuffix(b"]") if rows.last == rows.total - 1 else inner
    return b"[" + inner.strip().removesuffix(b",") + b"]"


def _rows(tree: object) -> list[Any]:
    if not isinstance(tree, list):
        raise UnreadableFrame(f"expected a list of rows, got {shown(tree)}")
    return tree


def _read_rows(
    rows: list[Any], suspect: bool, read_row: Callable[[object], Row]
) -> tuple[tuple[Row, ...], tuple[SetAside, ...]]:
    """The rows that can be read, and why the others cannot."""
    good: list[Row] = []
    bad: list[SetAside] = []
    for index, row in enumerate(rows):
        try:
            if suspect and (problem := flaw(row)):
                raise UnreadableFrame(problem)
            good.append(read_row(row))
        except UnreadableFrame as error:
            bad.append(_set_aside(index, row, str(error)))
    return tuple(good), tuple(bad)


def _read_trusting(
    rows: list[Any], read_row: Callable[[object, list[str]], Row]
) -> tuple[tuple[Row, ...], tuple[SetAside, ...], tuple[Remark, ...]]:
    """Like ``_read_rows``, with what was left out of rows that were understood."""
    good: list[Row] = []
    bad: list[SetAside] = []
    remarks: list[Remark] = []
    for index, row in enumerate(rows):
        left_out: list[str] = []
        try:
            good.append(read_row(row, left_out))
        except UnreadableFrame as error:
            bad.append(_set_aside(index, row, str(error)))
        else:
            remarks += [Remark(index, text) for text in left_out]
    return tuple(good), tuple(bad), tuple(remarks)


def _trusting(row: object, shape: type[Shape], describing: frozenset[str], suspect: bool, remarks: list[str]) -> Shape:
    if not isinstance(row, dict):
        return read_as(row, shape)
    told, left_out = read_trusting(row, shape, describing, suspect=suspect)
    remarks += left_out
    return told


def _set_aside(index: int, row: object, problem: str) -> SetAside:
    if not isinstance(row, dict):
        return SetAside(index, problem)
    symbol = row.get("symbol")

    def number(name: str, least: int, most: int) -> int | None:
        value = row.get(name)
        return value if type(value) is int and least <= value <= most else None

    times = [number(name, 1, LAST_MS) for name in ("time", "transactTime", "updateTime")]
    return SetAside(
        index,
        problem,
        symbol if isinstance(symbol, str) and 0 < len(symbol) <= 64 and symbol.isprintable() else None,
        number("orderId", 0, LAST_ID),
        number("id", 0, LAST_ID),
        min((ms for ms in times if ms is not None), default=None),
    )


def _symbol(request: Request, told: str | None) -> str:
    """The row's own symbol; where the form has none, the one that was asked for."""
    symbol = told or request.symbol
    if symbol is None:
        raise UnreadableFrame("field symbol: expected one, got none")
    return symbol


def _span(rows: list[Any], names: tuple[str, ...], *, least: int, most: int) -> tuple[int | None, int | None]:
    """Smallest and largest of the first of ``names`` each row tells, in whatever state the rest of the row
    is."""
    told = [
        next((row[name] for name in names if type(row.get(name)) is int and least <= row[name] <= most), None)
        for row in rows
        if isinstance(row, dict)
    ]
    numbers = [number for number in told if number is not None]
    return (min(numbers), max(numbers)) if numbers else (None, None)


def _loggable(message: str) -> str:
    """One short line without control characters, and without whatever secret it may repeat."""
    line = "".join(char if char.isprintable() else " " for char in message[:200])
    return _SECRET.sub(r"\1\2***", line)
