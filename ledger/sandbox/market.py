"""A seeded market: what happens next on one account.

Always holds: the same seed gives the same actions, whatever the clock says; time is handed in and never
runs backwards; nothing is ever bought with money the account has not got. Every action ends in events, and
the books have already taken them when they are returned.

It does on purpose what readers of such a stream trip over: twin fills (equal in every documented field,
same millisecond), several fills in one millisecond, self-trades (one trade id on two own orders), one order
id on two symbols, a cancel after a partial fill, an IOC whose remainder expires.

``live_through`` makes up a history: months of orders, symbols that come late, a burst within one millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, localcontext
from itertools import pairwise
from random import Random

from ledger.errors import ConfigError
from ledger.sandbox.books import EXACT, PAIRS, PLACES, ZERO, Books, Event, Fill, Movement, Order, Pair, Report, text

TAKER_FEE = Decimal("0.0010")
MAKER_FEE = Decimal("0.0000")
OPEN_MAX = 40
TRIES_MAX = 20
FIRST_ORDER_ID = 288_270
SLIP_TICKS = 20
ACTIONS_PER_ORDER_MAX = 20
"""When a made-up history stops trying; two are usual."""
ODD_STATUS = "EXPIRED_BY_VENUE"
"""A status that no page documents: the order is over."""
BURST_SYMBOL = "BTCUSDT"
_ROUNDED = Context(prec=100, rounding=ROUND_HALF_UP)


class Market:
    """One account's trading. ``step`` does one action; ``books`` is the truth."""

    def __init__(self, seed: int) -> None:
        self.books = Books()
        self._rng = Random(seed)  # nosec B311
        self._now_ms = 0
        self._ticks = {symbol: pair.price_ticks for symbol, pair in PAIRS.items()}
        # All symbols count from the same number, so the same order id soon stands on several of them.
        self._last_order_id = dict.fromkeys(PAIRS, FIRST_ORDER_ID)
        self._last_trade_id = dict.fromkeys(PAIRS, 1_000)
        self._last_execution_id = 0
        self.odd_endings = 0
        """So many orders that are canceled or expire end in ``ODD_STATUS``."""
        self._events: list[Event] = []
        self._listed = tuple(PAIRS.values())
        self._actions: tuple[tuple[Callable[[], None], int], ...] = (
            (self._place_resting, 42),
            (self._fill_resting, 28),
            (self._cancel, 12),
            (self._market_order, 9),
            (self._ioc_order, 5),
            (self._crossing_order, 4),
            (self._fok_order, 2),
            (self._rejected_order, 2),
            (self._twin_fills, 3),
            (self._self_trade, 3),
            (self._move_money, 2),
        )

    def step(self, now_ms: int, *, age_percent: int = 100) -> list[Event]:
        """Do one action at ``now_ms``, ms UTC; a time before the last action's counts as that one's.

        Below an ``age_percent`` of 100 the symbols whose debut is still to come are left alone.
        """
        self._begin(now_ms)
        self._listed = tuple(pair for pair in PAIRS.values() if pair.debut_percent <= age_percent)
        actions, weights = zip(*self._actions, strict=True)
        with localcontext(EXACT):
            for _ in range(TRIES_MAX):
                self._rng.choices(actions, weights)[0]()
                if self._events:
                    return self._events
            self._deposit("USDT")  # nothing is possible: the account must have run dry
            return self._events

    def hit(self, order: Order, qty: Decimal, now_ms: int) -> list[Event]:
        """Somebody takes ``qty`` (base asset) of a resting order, as it stands now."""
        self._begin(now_ms)
        with localcontext(EXACT):
            self._fill(order, qty, order.price, is_maker=True)
        return self._events

    def cancel(self, order: Order, now_ms: int) -> list[Event]:
        """An open order is canceled."""
        self._begin(now_ms)
        with localcontext(EXACT):
            self._close(order)
        return self._events

    def amend(self, order: Order, qty: Decimal, now_ms: int) -> list[Event]:
        """An open order is left with a smaller quantity, ``qty`` in all, and gets another client id."""
        self._begin(now_ms)
        assert order.executed_qty < qty < order.orig_qty, "an amendment keeps the place in the queue by asking for less"
        with localcontext(EXACT):
            after = replace(
                order, orig_qty=qty, client_order_id=self._client_id("amend"), updated_ms=max(order.updated_ms, now_ms)
            )
            self._last_execution_id += 1
            self._emit(
                Report(after, "REPLACED", self._last_execution_id, self._now_ms, previous_id=order.client_order_id)
            )
        return self._events

    def move(self, asset: str, amount: Decimal, now_ms: int) -> list[Event]:
        """A deposit, or a withdrawal when ``amount`` is negative, of any asset.

        Raises ConfigError when the amount has no value, more than eight places, or is more than is free.
        """
        self._begin(now_ms)
        with localcontext(EXACT):
            amount, free = _movable(asset, amount), self.books.free(asset)
            if free + amount < 0:
                raise ConfigError(
                    f"The account cannot give {text(-amount)} {asset}: only {text(free)} are free."
                    " Withdraw at most that much."
                )
            self._movement(asset, amount)
        return self._events

    def relist(self, symbol: str) -> Books:
        """A market without open orders is taken off and comes back: its ids begin anew. Returns what it had before."""
        assert all(order.symbol != symbol for order in self.books.open_orders()), "its orders end first"
        self._last_order_id[symbol], self._last_trade_id[symbol] = FIRST_ORDER_ID, 1_000
        return self.books.forget(symbol)

    def order_in(self, symbol: str, now_ms: int) -> list[Event]:
        """A market order of that symbol, which is filled; a deposit pays for it where money is short."""
        self._begin(now_ms)
        pair = PAIRS[symbol]
        with localcontext(EXACT):
            side = self._some_side()
            order = self._burst_order(pair, side)
            if not order:
                self._deposit(pair.quote if side == "BUY" else pair.base)
                order = self._burst_order(pair, side)
            if order:
                self._take(order, pair, len_max=2)
        return self._events

    def burst(self, orders: int, now_ms: int) -> list[Event]:
        """So many market orders of one symbol, each filled, within the one millisecond ``now_ms``."""
        self._begin(now_ms)
        pair = PAIRS[BURST_SYMBOL]
        with localcontext(EXACT):
            for index in range(orders):
                side = "SELL" if index % 2 else "BUY"
                order = self._burst_order(pair, side)
                if not order:
                    self._deposit(pair.quote if side == "BUY" else pair.base)
                    order = self._burst_order(pair, side)
                assert order, "a deposit pays for many orders of the smallest size"
                self._take(order, pair, len_max=1)
        return self._events

    def _begin(self, now_ms: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)
        self._events = []

    def _burst_order(self, pair: Pair, side: str) -> Order | None:
        return self._place(pair, side, "MARKET", "GTC", ticks=self._price(pair), steps=pair.lot_steps[0])

    # Actions. One that is not possible now does nothing.

    def _place_resting(self) -> None:
        if len(self.books.open_orders()) >= OPEN_MAX:
            return
        pair, side = self._some_pair(), self._some_side()
        away = self._rng.randint(1, 400)
        self._place(pair, side, "LIMIT", "GTC", ticks=self._price(pair) + (-away if side == "BUY" else away))

    def _fill_resting(self) -> None:
        """A resting order is hit once, or several times within the millisecond, in part or whole."""
        if not (order := self._some_open_order()):
            return
        parts = self._split(order, self._rng.choice((1, 1, 1, 2, 3)))
        for qty in parts[: self._rng.randint(1, len(parts))]:
            order = self._fill(order, qty, order.price, is_maker=True)

    def _twin_fills(self) -> None:
        """Two fills that differ in nothing but the trade id, which the documented stream does not carry."""
        order = self._some_open_order()
        if order and (qty := self._steps(order) // 3 * PAIRS[order.symbol].step):
            for _ in range(2):
                order = self._fill(order, qty, order.price, is_maker=True)

    def _cancel(self) -> None:
        if order := self._some_open_order():
            self._close(order)

    def _market_order(self) -> None:
        pair, side = self._some_pair(), self._some_side()
        if order := self._place(pair, side, "MARKET", "GTC", ticks=self._price(pair)):
            self._take(order, pair, len_max=4)

    def _ioc_order(self) -> None:
        """Taken in part at once; what is left expires, so EXPIRED carries an executed quantity."""
        pair, side = self._some_pair(), self._some_side()
        if order := self._place(pair, side, "LIMIT", "IOC", ticks=self._limit(pair, side)):
            order = self._take(order, pair, len_max=3, leave=self._rng.choice((0, 1)))
            if order.is_open:
                self._expire(order)

    def _crossing_order(self) -> None:
        """A limit order that takes what is there and rests with the remainder."""
        pair, side = self._some_pair(), self._some_side()
        if len(self.books.open_orders()) >= OPEN_MAX:
            return
        if order := self._place(pair, side, "LIMIT", "GTC", ticks=self._limit(pair, side)):
            self._take(order, pair, len_max=3, leave=1)

    def _fok_order(self) -> None:
        pair, side = self._some_pair(), self._some_side()
        if order := self._place(pair, side, "LIMIT", "FOK", ticks=self._price(pair)):
            self._expire(order)

    def _rejected_order(self) -> None:
        pair, side = self._some_pair(), self._some_side()
        order = self._new_order(pair, side, "LIMIT", "GTC", pair.lot_steps[1] * 1_000, self._price(pair))
        self._report(replace(order, status="REJECTED"), "REJECTED", reason="INSUFFICIENT_BALANCES")

    def _self_trade(self) -> None:
        """An own order hits another own order: two fills of one trade id, maker first."""
        if not (maker := self._some_open_order()):
            return
        pair = PAIRS[maker.symbol]
        steps, ticks = self._rng.randint(1, self._steps(maker)), int(maker.price // pair.tick)
        side = "SELL" if maker.side == "BUY" else "BUY"
        if taker := self._place(pair, side, "LIMIT", "IOC", ticks=ticks, steps=steps):
            trade_id = self._next(self._last_trade_id, pair.symbol, 40)
            self._fill(maker, taker.orig_qty, maker.price, is_maker=True, trade_id=trade_id)
            self._fill(taker, taker.orig_qty, maker.price, is_maker=False, trade_id=trade_id)

    def _move_money(self) -> None:
        asset = self._rng.choice(sorted(self.books.balances))
        if self._rng.random() < 0.6:
            self._deposit(asset)
        elif amount := (self.books.free(asset) // PLACES // 20) * PLACES:
            self._movement(asset, -amount)

    # The parts the actions are made of.

    def _deposit(self, asset: str) -> None:
        pair = next((pair for pair in PAIRS.values() if pair.base == asset), None)
        unit = pair.step * pair.lot_steps[1] if pair else Decimal(1_000)
        self._movement(asset, (unit * self._rng.randint(1, 5)).quantize(PLACES))

    def _movement(self, asset: str, amount: Decimal) -> None:
        self._emit(Movement(asset, amount, self._now_ms))

    def _place(
        self, pair: Pair, side: str, type_: str, time_in_force: str, *, ticks: int, steps: int | None = None
    ) -> Order | None:
        """A new order, accepted; None when the account cannot pay for it."""
        steps = steps or self._rng.randint(*pair.lot_steps)
        worst = (ticks + SLIP_TICKS) * pair.tick * steps * pair.step
        needed = worst + worst * TAKER_FEE if side == "BUY" else steps * pair.step
        if needed > self.books.free(pair.quote if side == "BUY" else pair.base):
            return None
        order = self._new_order(pair, side, type_, time_in_force, steps, ticks)
        self._report(order, "NEW")
        return order

    def _new_order(self, pair: Pair, side: str, type_: str, time_in_force: str, steps: int, ticks: int) -> Order:
        return Order(
            symbol=pair.symbol,
            order_id=self._next(self._last_order_id, pair.symbol, 3),
            client_order_id=self._client_id("web"),
            side=side,
            type=type_,
            time_in_force=time_in_force,
            price=ZERO if type_ == "MARKET" else ticks * pair.tick,
            orig_qty=(steps * pair.step).quantize(PLACES),
            executed_qty=ZERO,
            executed_quote=ZERO,
            status="NEW",
            created_ms=self._now_ms,
            updated_ms=self._now_ms,
        )

    def _take(self, order: Order, pair: Pair, *, len_max: int, leave: int = 0) -> Order:
        """The order takes what rests on the other side, price by price; ``leave`` parts of it find nobody.

        An order of a single step that must leave something takes nothing.
        """
        parts = self._split(order, self._rng.randint(1, len_max) + leave)
        ticks, sign = self._ticks[pair.symbol], 1 if order.side == "BUY" else -1
        for index, qty in enumerate(parts[: len(parts) - leave]):
            order = self._fill(order, qty, (ticks + sign * index) * pair.tick, is_maker=False)
        return order

    def _fill(
        self, order: Order, qty: Decimal, price: Decimal, *, is_maker: bool, trade_id: int | None = None
    ) -> Order:
        pair, quote = PAIRS[order.symbol], (price * qty).quantize(PLACES)
        executed = order.executed_qty + qty
        after = replace(
            order,
            executed_qty=executed,
            executed_quote=order.executed_quote + quote,
            status="FILLED" if executed == order.orig_qty else "PARTIALLY_FILLED",
            updated_ms=self._now_ms,
        )
        fill = Fill(
            symbol=order.symbol,
            order_id=order.order_id,
            trade_id=trade_id or self._next(self._last_trade_id, order.symbol, 40),
            side=order.side,
            price=price,
            qty=qty.quantize(PLACES),
            quote=quote,
            # Rounded as a venue rounds; what is charged is what is told, so the sums stay exact.
            fee=(quote * (MAKER_FEE if is_maker else TAKER_FEE)).quantize(PLACES, context=_ROUNDED),
            fee_asset=pair.quote,
            is_maker=is_maker,
            time_ms=self._now_ms,
        )
        self._report(after, "TRADE", fill=fill)
        return after

    def _close(self, order: Order) -> None:
        closed = replace(order, status="CANCELED", updated_ms=self._now_ms)
        self._report(closed, "CANCELED", cancel_id=self._client_id("cancel"))

    def _expire(self, order: Order) -> None:
        self._report(replace(order, status="EXPIRED", updated_ms=self._now_ms), "EXPIRED")

    def _report(
        self,
        order: Order,
        execution: str,
        *,
        fill: Fill | None = None,
        cancel_id: str = "",
        reason: str = "NONE",
    ) -> None:
        if self.odd_endings and execution in ("CANCELED", "EXPIRED"):
            self.odd_endings -= 1
            order = replace(order, status=ODD_STATUS)
        self._last_execution_id += 1
        self._emit(Report(order, execution, self._last_execution_id, self._now_ms, fill, cancel_id, reason))

    def _emit(self, event: Event) -> None:
        position = self.books.apply(event)
        self._events.append(event)
        if position:
            self._events.append(position)

    # Chance.

    def _some_pair(self) -> Pair:
        return self._rng.choices(self._listed, [pair.busy for pair in self._listed])[0]

    def _some_side(self) -> str:
        return self._rng.choice(("BUY", "SELL"))

    def _some_open_order(self) -> Order | None:
        orders = self.books.open_orders()
        return self._rng.choice(orders) if orders else None

    def _price(self, pair: Pair) -> int:
        """The price in ticks after another small move; it never leaves half to twice where it started."""
        wide = max(1, pair.price_ticks // 1_000)
        moved = self._ticks[pair.symbol] + self._rng.randint(-wide, wide)
        self._ticks[pair.symbol] = min(max(moved, pair.price_ticks // 2), pair.price_ticks * 2)
        return self._ticks[pair.symbol]

    def _limit(self, pair: Pair, side: str) -> int:
        """A limit in ticks that no price of ``_take`` goes beyond."""
        return self._price(pair) + (SLIP_TICKS if side == "BUY" else -SLIP_TICKS)

    def _steps(self, order: Order) -> int:
        return int(order.left // PAIRS[order.symbol].step)

    def _split(self, order: Order, parts: int) -> list[Decimal]:
        """The open quantity in at most ``parts`` pieces, each a whole number of steps."""
        steps = self._steps(order)
        cuts = sorted(self._rng.sample(range(1, steps), min(parts, steps) - 1))
        edges = [0, *cuts, steps]
        return [(b - a) * PAIRS[order.symbol].step for a, b in pairwise(edges)]

    def _client_id(self, prefix: str) -> str:
        return f"{prefix}_{self._rng.getrandbits(80):020x}"

    def _next(self, last: dict[str, int], symbol: str, stride_max: int) -> int:
        """The next id of a symbol; others trade too, so ids have holes."""
        last[symbol] += self._rng.randint(1, stride_max)
        return last[symbol]


def _movable(asset: str, amount: Decimal) -> Decimal:
    try:
        exact = amount.quantize(PLACES, context=EXACT)
    except (Inexact, InvalidOperation):
        exact = ZERO
    if exact.is_finite() and exact:
        return exact
    raise ConfigError(
        f"An amount of {asset} to move must be a number other than zero with at most eight decimal places,"
        f" not {amount}. Correct the amount."
    )


def live_through(market: Market, orders: int, from_ms: int, until_ms: int, *, burst: int = 0) -> None:
    """Trade until the books hold ``orders`` orders, spread evenly over ``[from_ms, until_ms)``.

    ``burst`` of them, all of one symbol, share a millisecond in the middle. Symbols make their debut one after the
    other. Bounded: stops after ACTIONS_PER_ORDER_MAX actions per order wanted, whatever was reached.
    """
    orders = max(orders, burst)
    slot_ms, actions, placed = (until_ms - from_ms) // max(orders, 1), 0, -1
    for _ in range(orders * ACTIONS_PER_ORDER_MAX):
        # The actions since the last order was placed come closer and closer within its slot, always later.
        actions = actions + 1 if placed == len(market.books.orders) else 0
        placed = len(market.books.orders)
        if placed >= orders:
            return
        now_ms = from_ms + (until_ms - from_ms) * placed // orders + slot_ms * actions // (actions + 1)
        if burst and placed >= (orders - burst) // 2:
            market.burst(burst, now_ms)
            burst = 0
        else:
            market.step(now_ms, age_percent=100 * placed // orders)
