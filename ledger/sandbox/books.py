"""The venue's books: orders, fills and balances as a fold over events.

Always holds: the same events give the same books; what an open limit order reserves is locked and
everything else is free; every amount is exact (the context raises on the first inexact digit), so the sums
balance at any time. Quantities are in base asset, quote totals and fees in quote asset, times in ms UTC.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext

ZERO = Decimal("0.00000000")
PLACES = Decimal("0.00000001")
EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])


@dataclass(frozen=True, slots=True)
class Pair:
    """One symbol. Every price is a whole number of ticks, every quantity one of steps; their product has 8 places."""

    base: str
    quote: str
    tick: Decimal
    step: Decimal
    price_ticks: int
    """Where the price starts."""
    lot_steps: tuple[int, int]
    """Smallest and largest order."""
    busy: int = 1
    """How often it is traded, next to the others."""
    debut_percent: int = 0
    """How much of a made-up history is over before its first order may come."""

    @property
    def symbol(self) -> str:
        return self.base + self.quote


def _pair(
    base: str,
    quote: str,
    tick: str,
    step: str,
    price_ticks: int,
    lot_steps: tuple[int, int],
    *,
    busy: int = 1,
    debut_percent: int = 0,
) -> Pair:
    return Pair(base, quote, Decimal(tick), Decimal(step), price_ticks, lot_steps, busy, debut_percent)


PAIRS = {
    pair.symbol: pair
    for pair in (
        _pair("BTC", "USDT", "0.01", "0.00001", 6_400_000, (10, 2_000), busy=6),
        _pair("ETH", "USDT", "0.01", "0.0001", 340_000, (10, 4_000), busy=4),
        _pair("SOL", "USDT", "0.01", "0.001", 15_000, (100, 9_000), busy=3),
        _pair("ETH", "BTC", "0.00001", "0.001", 5_312, (5, 400), busy=3),
        _pair("BNB", "USDT", "0.01", "0.001", 59_000, (20, 2_000), busy=2),
        _pair("1INCH", "USDT", "0.0001", "0.1", 3_521, (200, 20_000), busy=2),
        _pair("SHIB", "USDT", "0.00000001", "1", 2_450, (400_000, 40_000_000), busy=2),
        _pair("XRP", "USDT", "0.0001", "0.1", 5_208, (200, 20_000)),
        _pair("ADA", "USDT", "0.0001", "0.1", 4_475, (200, 20_000)),
        # Names are of any script: the venue this one follows lists such a market.
        _pair("币安人生", "USDT", "0.0001", "0.1", 2_117, (200, 20_000)),
        _pair("LTC", "USDT", "0.01", "0.001", 8_412, (100, 10_000), debut_percent=30),
        _pair("LINK", "USDT", "0.01", "0.01", 1_433, (60, 6_000), debut_percent=60),
        _pair("DOGE", "USDT", "0.00001", "1", 16_020, (60, 6_000), debut_percent=85),
    )
}


@dataclass(frozen=True, slots=True)
class Order:
    """One order as it stands now. Its id is unique within its symbol only."""

    symbol: str
    order_id: int
    client_order_id: str
    side: str
    type: str
    time_in_force: str
    price: Decimal
    orig_qty: Decimal
    executed_qty: Decimal
    executed_quote: Decimal
    status: str
    created_ms: int
    updated_ms: int

    @property
    def key(self) -> tuple[str, int]:
        return self.symbol, self.order_id

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")

    @property
    def left(self) -> Decimal:
        return self.orig_qty - self.executed_qty


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. The trade id runs per symbol; in a self-trade both own orders carry the same one."""

    symbol: str
    order_id: int
    trade_id: int
    side: str
    price: Decimal
    qty: Decimal
    quote: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    time_ms: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.symbol, self.order_id, self.trade_id


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account holds of one asset."""

    free: Decimal = ZERO
    locked: Decimal = ZERO

    def moved(self, free: Decimal, locked: Decimal = ZERO) -> Balance:
        return Balance(self.free + free, self.locked + locked)


@dataclass(frozen=True, slots=True)
class Report:
    """An order changed: ``order`` is its state afterwards. ``fill`` only when ``execution`` is TRADE."""

    order: Order
    execution: str
    execution_id: int
    at_ms: int
    fill: Fill | None = None
    cancel_id: str = ""
    """The client id of the cancel request; empty unless ``execution`` is CANCELED."""
    reason: str = "NONE"
    previous_id: str = ""
    """The client id before the amendment; empty unless ``execution`` is REPLACED."""


@dataclass(frozen=True, slots=True)
class Movement:
    """A deposit (positive) or withdrawal (negative)."""

    asset: str
    amount: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True)
class Position:
    """The balances one event touched, absolute, as they stand after it."""

    balances: tuple[tuple[str, Balance], ...]
    at_ms: int


Event = Report | Movement | Position

OPENING = {
    "USDT": Decimal("100000.00000000"),
    "BTC": Decimal("2.00000000"),
    "ETH": Decimal("30.00000000"),
    "SOL": Decimal("500.00000000"),
    "BNB": Decimal("60.00000000"),
    "1INCH": Decimal("90000.00000000"),
    "SHIB": Decimal("900000000.00000000"),
    "XRP": Decimal("40000.00000000"),
    "ADA": Decimal("50000.00000000"),
    "LTC": Decimal("250.00000000"),
    "LINK": Decimal("1500.00000000"),
    "DOGE": Decimal("140000.00000000"),
    "币安人生": Decimal("60000.00000000"),
}
"""What the account holds before the first event."""


class Books:
    """Orders, fills, movements and balances. Change them through ``apply`` only."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, int], Order] = {}
        self.fills: dict[tuple[str, int, int], Fill] = {}
        self.movements: list[Movement] = []
        self.balances: dict[str, Balance] = {asset: Balance(free) for asset, free in OPENING.items()}
        self.balances_ms = 0
        """When a balance last changed."""
        self._orders_of: dict[str, list[Order]] = {symbol: [] for symbol in PAIRS}
        self._fills_of: dict[str, list[Fill]] = {symbol: [] for symbol in PAIRS}
        self._open: dict[tuple[str, int], None] = {}

    def copy(self) -> Books:
        """The same books, which from now on go their own way."""
        twin = Books()
        twin.orders, twin.fills, twin.movements = dict(self.orders), dict(self.fills), list(self.movements)
        twin.balances, twin.balances_ms = dict(self.balances), self.balances_ms
        twin._orders_of = {symbol: list(rows) for symbol, rows in self._orders_of.items()}
        twin._fills_of = {symbol: list(rows) for symbol, rows in self._fills_of.items()}
        twin._open = dict(self._open)
        return twin

    def forget(self, symbol: str) -> Books:
        """Take everything of a market out of the books but what it did to the balances. Returns that."""
        taken = Books()
        taken.orders = {key: order for key, order in self.orders.items() if order.symbol == symbol}
        taken.fills = {key: fill for key, fill in self.fills.items() if fill.symbol == symbol}
        for order_key in taken.orders:
            del self.orders[order_key]
            self._open.pop(order_key, None)
        for fill_key in taken.fills:
            del self.fills[fill_key]
        self._orders_of[symbol], self._fills_of[symbol] = [], []
        return taken

    def orders_of(self, symbol: str) -> Sequence[Order]:
        """Every order of a symbol, oldest first: ids and creation times both ascend. It grows with the books."""
        return self._orders_of[symbol]

    def order(self, symbol: str, order_id: int) -> Order | None:
        return self.orders.get((symbol, order_id))

    def fills_of(self, symbol: str) -> Sequence[Fill]:
        """Every fill of a symbol, oldest first: trade ids and times both ascend. It grows with the books."""
        return self._fills_of[symbol]

    def fills_of_order(self, symbol: str, order_id: int) -> list[Fill]:
        """Every fill of one order, oldest first; none for an order that does not exist."""
        if not (order := self.order(symbol, order_id)):
            return []
        # No fill is older than its order or younger than its last change: the others need not be looked at.
        rows = self._fills_of[symbol]
        first = bisect_left(rows, order.created_ms, key=lambda fill: fill.time_ms)
        last = bisect_right(rows, order.updated_ms, key=lambda fill: fill.time_ms)
        return [fill for fill in rows[first:last] if fill.order_id == order_id]

    def open_orders(self) -> list[Order]:
        """Every open order of the account, oldest first."""
        return [self.orders[key] for key in self._open]

    def free(self, asset: str) -> Decimal:
        return self.balances.get(asset, Balance()).free

    def apply(self, event: Event) -> Position | None:
        """Take one event in. Returns the balances it changed, None when it changed none."""
        with localcontext(EXACT):
            if isinstance(event, Report):
                changes = self._take_report(event)
            elif isinstance(event, Movement):
                self.movements.append(event)
                changes = [(event.asset, event.amount, ZERO)]
            else:
                return None  # a position only repeats what the event before it did
            return self._move(changes, event.at_ms)

    def _take_report(self, report: Report) -> list[tuple[str, Decimal, Decimal]]:
        order, before = report.order, self.orders.get(report.order.key)
        self.orders[order.key] = order
        rows = self._orders_of[order.symbol]
        at = bisect_left(rows, order.order_id, key=lambda row: row.order_id)
        rows[at : at + bool(before)] = [order]
        if order.is_open:
            self._open[order.key] = None
        else:
            self._open.pop(order.key, None)
        asset = _reserved_asset(order)
        locked = _reserved(order) - (_reserved(before) if before else ZERO)
        changes = [(asset, -locked, locked)]
        if report.fill:
            self.fills[report.fill.key] = report.fill
            self._fills_of[order.symbol].append(report.fill)
            changes += _paid(report.fill)
        return changes

    def _move(self, changes: list[tuple[str, Decimal, Decimal]], at_ms: int) -> Position | None:
        touched = {asset: None for asset, free, locked in changes if free or locked}
        for asset, free, locked in changes:
            self.balances[asset] = self.balances.get(asset, Balance()).moved(free, locked)
        if not touched:
            return None
        self.balances_ms = at_ms
        return Position(tuple((asset, self.balances[asset]) for asset in touched), at_ms)

    def truth(self) -> dict[str, object]:
        """Everything as JSON can carry it; numbers are text, digit for digit."""
        return {
            "orders": [_plain(order) for order in self.orders.values()],
            "fills": [_plain(fill) for fill in self.fills.values()],
            "balances": {asset: _plain(balance) for asset, balance in self.balances.items()},
            "transfers": [_plain(movement) for movement in self.movements],
        }


def _reserved_asset(order: Order) -> str:
    pair = PAIRS[order.symbol]
    return pair.quote if order.side == "BUY" else pair.base


def _reserved(order: Order) -> Decimal:
    """What an order keeps locked: nothing for its fee, and nothing for a market order, which pays as it fills."""
    if not order.is_open or order.type == "MARKET":
        return ZERO
    return (order.price * order.left).quantize(PLACES) if order.side == "BUY" else order.left


def _paid(fill: Fill) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Both legs of a fill. The fee is taken in the quote asset, on a buy on top of the price."""
    pair, sign = PAIRS[fill.symbol], 1 if fill.side == "BUY" else -1
    yield pair.base, sign * fill.qty, ZERO
    yield pair.quote, -sign * fill.quote - fill.fee, ZERO


def text(number: Decimal) -> str:
    """Plain decimal text, never an exponent."""
    return format(number, "f")


def _plain(row: Order | Fill | Balance | Movement) -> dict[str, object]:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: text(value) if isinstance(value, Decimal) else value for name, value in values.items()}
