"""Nonsense: what a venue tells that cannot be, made from what is true.

Always holds: the books are never touched; a lie is a whole order or fill with some of its values changed, so every
dialect tells it in its own words, over REST and on the stream; most lies agree with themselves and contradict only
what was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from typing import Literal

from ledger.errors import ConfigError
from ledger.sandbox.books import EXACT, PAIRS, PLACES, ZERO, Books, Fill, Order, Report

Kind = Literal["negative_qty", "nan_price", "shrinking_order", "other_terminal", "changed_fill", "id_reuse"]

NAN = Decimal("NaN")
OTHER_ENDING = {"FILLED": "CANCELED", "CANCELED": "EXPIRED", "EXPIRED": "CANCELED", "REJECTED": "CANCELED"}
ONLY_LONG: frozenset[Kind] = frozenset({"shrinking_order", "changed_fill"})
"""Kinds the short report cannot carry: it has neither the quantities of the order nor a trade id."""
_SMALLER = Context(prec=100, rounding=ROUND_DOWN)


def lie(kind: Kind, row: Order | Fill) -> Order | Fill | None:
    """What is told in place of the true ``row``; None when this kind has nothing to say about it."""
    with localcontext(EXACT):
        return _of_order(kind, row) if isinstance(row, Order) else _of_fill(kind, row)


def _of_order(kind: Kind, order: Order) -> Order | None:
    match kind:
        case "negative_qty":
            return replace(order, orig_qty=ZERO - order.orig_qty, executed_qty=ZERO - order.executed_qty)
        case "nan_price":
            return replace(order, price=NAN)
        case "shrinking_order":
            orig, executed, quote = map(_half, (order.orig_qty, order.executed_qty, order.executed_quote))
            return replace(order, orig_qty=orig, executed_qty=executed, executed_quote=quote)
        case "other_terminal":
            return None if order.is_open else replace(order, status=OTHER_ENDING[order.status])
        case "id_reuse":
            side, type_ = "SELL" if order.side == "BUY" else "BUY", "LIMIT" if order.type == "MARKET" else "MARKET"
            return replace(order, side=side, type=type_)
        case _:
            return None


def _of_fill(kind: Kind, fill: Fill) -> Fill | None:
    match kind:
        case "negative_qty":
            return replace(fill, qty=-fill.qty)
        case "nan_price":
            return replace(fill, price=NAN)
        case "changed_fill":
            price = fill.price + PAIRS[fill.symbol].tick
            return replace(fill, price=price, quote=(price * fill.qty).quantize(PLACES))
        case _:
            return None


def _half(number: Decimal) -> Decimal:
    return (number / 2).quantize(PLACES, context=_SMALLER)


def report(kind: Kind, books: Books, fits: Callable[[Order | Fill], bool], now_ms: int) -> Report:
    """A report of the newest order or fill that ``fits`` and can be lied about, as the stream tells it.

    A fill comes at its own time once more, an order at ``now_ms``. Raises ConfigError when there is nothing to lie
    about.
    """
    for row in _newest_first(books):
        told = lie(kind, row) if fits(row) else None
        if isinstance(told, Fill):
            return Report(books.orders[told.symbol, told.order_id], "TRADE", 0, told.time_ms, told)
        # Numbers are told by a fill's report, in the short form by nothing else.
        if told and kind not in ("negative_qty", "nan_price"):
            return _order_report(kind, told, now_ms)
    raise ConfigError(f"There is no order or fill yet that could be told as {kind}. Trade first, or name another one.")


def _order_report(kind: Kind, told: Order, now_ms: int) -> Report:
    if kind == "id_reuse":  # an id that is used again begins a new life
        told = replace(told, status="NEW", executed_qty=ZERO, executed_quote=ZERO)
    return Report(told, "NEW" if told.is_open or told.status == "FILLED" else told.status, 0, now_ms)


def _newest_first(books: Books) -> Iterator[Order | Fill]:
    yield from reversed(books.fills.values())
    yield from reversed(books.orders.values())
