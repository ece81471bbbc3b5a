"""How the venue says it: events, orders, trades and the account in each of the four dialects.

Always holds: a dialect changes what is told, never what is true; numbers are decimal text, times integers
in ms.

    documented    what the venue's page shows and no more: ten fields on the stream and in an order, no trades
    orders_quote  the same stream; orders carry the cumulative quote, their update time and time in force
    mixed         the same stream and orders; myTrades answers
    full          the long forms throughout, balanceUpdate, the time, exchangeInfo, used-weight headers
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import ConfigError, UsageError
from ledger.sandbox.books import PAIRS, ZERO, Books, Event, Fill, Movement, Order, Position, Report, text
from ledger.sandbox.market import MAKER_FEE, TAKER_FEE

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a venue tells. ``position_clock`` False leaves the clock out of positions as well."""

    name: str
    long_orders: bool = False
    trades: bool = False
    full: bool = False
    position_clock: bool = True


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("documented"),
        Dialect("orders_quote", long_orders=True),
        Dialect("mixed", long_orders=True, trades=True),
        Dialect("full", long_orders=True, trades=True, full=True),
    )
}


def dialect_named(name: str, *, position_clock: bool = True) -> Dialect:
    """The dialect of that name. Raises ConfigError when there is none, or it always has a position clock."""
    if name not in DIALECTS:
        raise UsageError(f"The sandbox has no dialect {name!r}; it speaks {', '.join(DIALECTS)}. Choose one of these.")
    if position_clock:
        return DIALECTS[name]
    if name != "documented":
        raise ConfigError(f"The dialect {name} always has a clock in its positions; only 'documented' can go without.")
    return Dialect(name, position_clock=False)


def event_json(dialect: Dialect, event: Event) -> Json | None:
    """One stream frame; None for an event this dialect does not tell."""
    if isinstance(event, Report):
        return _long_report(event) if dialect.full else _short_report(event)
    if isinstance(event, Position):
        return _position(dialect, event)
    return _balance_update(event) if dialect.full else None


def _short_report(report: Report) -> Json:
    """The ten fields of the venue's own sample, in its order."""
    order, fill = report.order, report.fill
    return {
        "e": "executionReport",
        "s": order.symbol,
        "i": order.order_id,
        "S": order.side,
        "X": order.status,
        "l": text(fill.qty if fill else ZERO),
        "L": text(fill.price if fill else ZERO),
        "n": text(fill.fee) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": report.at_ms,
    }


def _long_report(report: Report) -> Json:
    order, fill = report.order, report.fill
    zero = text(ZERO)
    frame: Json = {
        "e": "executionReport",
        "E": report.at_ms,
        "s": order.symbol,
        # On a cancel, c names the cancel request and C the order itself.
        "c": report.cancel_id or order.client_order_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": text(order.orig_qty),
        "p": text(order.price),
        "P": zero,
        "F": zero,
        "g": -1,
        "C": order.client_order_id if report.cancel_id else report.previous_id,
        "x": report.execution,
        "X": order.status,
        "r": report.reason,
        "i": order.order_id,
        "l": text(fill.qty) if fill else zero,
        "z": text(order.executed_qty),
        "L": text(fill.price) if fill else zero,
        "n": text(fill.fee) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": report.at_ms,
        "t": fill.trade_id if fill else -1,
        "I": report.execution_id,
        "w": order.is_open,
        "m": bool(fill and fill.is_maker),
        "M": fill is not None,
        "O": order.created_ms,
        "Z": text(order.executed_quote),
        "Y": text(fill.quote) if fill else zero,
        "Q": zero,
        "V": "NONE",
    }
    if order.status != "REJECTED":
        frame["W"] = order.created_ms
    return frame


def _position(dialect: Dialect, position: Position) -> Json:
    frame: Json = {"e": "outboundAccountPosition"}
    if dialect.full:
        frame["E"] = position.at_ms
    if dialect.position_clock:
        frame["u"] = position.at_ms
    frame["B"] = [
        {"a": asset, "f": text(balance.free), "l": text(balance.locked)} for asset, balance in position.balances
    ]
    return frame


def _balance_update(movement: Movement) -> Json:
    return {
        "e": "balanceUpdate",
        "E": movement.at_ms,
        "a": movement.asset,
        "d": text(movement.amount),
        "T": movement.at_ms,
    }


def listen_key_expired_json(key: str, now_ms: int) -> Json:
    """The last event of a listen key; the same in every dialect."""
    return {"e": "listenKeyExpired", "E": now_ms, "listenKey": key}


def order_json(dialect: Dialect, order: Order) -> Json:
    """One order over REST. ``transactTime`` is its creation; only the long form tells when it changed."""
    row: Json = {
        "orderId": order.order_id,
        "clientOrderId": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "price": text(order.price),
        "origQty": text(order.orig_qty),
        "executedQty": text(order.executed_qty),
        "status": order.status,
    }
    if not dialect.full:
        row["transactTime"] = order.created_ms
    if dialect.long_orders:
        row |= {
            "cummulativeQuoteQty": text(order.executed_quote),  # the spelling is the venue family's own
            "updateTime": order.updated_ms,
            "timeInForce": order.time_in_force,
        }
    if dialect.full:
        row |= {
            "orderListId": -1,
            "stopPrice": text(ZERO),
            "icebergQty": text(ZERO),
            "time": order.created_ms,
            "isWorking": order.is_open,
            "workingTime": order.created_ms,
            "origQuoteOrderQty": text(ZERO),
            "selfTradePreventionMode": "NONE",
        }
    return row


def trade_json(fill: Fill) -> Json:
    """One fill over REST."""
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": text(fill.price),
        "qty": text(fill.qty),
        "quoteQty": text(fill.quote),
        "commission": text(fill.fee),
        "commissionAsset": fill.fee_asset,
        "time": fill.time_ms,
        "isBuyer": fill.side == "BUY",
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }


def account_json(dialect: Dialect, books: Books) -> Json:
    """The whole account: an asset that is not listed is zero."""
    answer: Json = {
        "canTrade": True,
        "canWithdraw": True,
        "makerFee": text(MAKER_FEE),
        "takerFee": text(TAKER_FEE),
        "updateTime": books.balances_ms,
        "balances": [
            {"asset": asset, "free": text(balance.free), "locked": text(balance.locked)}
            for asset, balance in books.balances.items()
            if balance.free or balance.locked
        ],
    }
    if dialect.full:
        answer |= {"canDeposit": True, "accountType": "SPOT", "permissions": ["SPOT"]}
    return answer


def exchange_json(now_ms: int, weight_per_minute: int, unlisted: frozenset[str] = frozenset()) -> Json:
    """The symbols but the ``unlisted`` ones, and what they are made of; ``full`` only."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {
                "rateLimitType": "REQUEST_WEIGHT",
                "interval": "MINUTE",
                "intervalNum": 1,
                "limit": weight_per_minute,
            }
        ],
        "symbols": [
            {"symbol": symbol, "status": "TRADING", "baseAsset": pair.base, "quoteAsset": pair.quote}
            for symbol, pair in PAIRS.items()
            if symbol not in unlisted
        ],
    }
