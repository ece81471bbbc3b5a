"""The venue's REST API as a function from a call to an answer: keys, signatures, weights, pages.

Always holds: nothing here trades, and every attempt to is recorded; rows come oldest first; a start is
inclusive. No I/O and no clock: the books and the venue's time are handed in with each call. Source: the
venue's documentation, and Binance spot of before August 2023 where it is silent.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from ledger.sandbox.books import PAIRS, Books, Fill, Order
from ledger.sandbox.dialects import Dialect, account_json, exchange_json, order_json, trade_json

DAY_MS = 86_400_000
ROWS_DEFAULT, ROWS_MAX = 500, 1_000
RECV_WINDOW_DEFAULT_MS, RECV_WINDOW_MAX_MS = 5_000, 60_000
AHEAD_MAX_MS = 1_000
REFUSALS_BEFORE_BAN = 5
BAN_S = 120
TRADING_PATHS = ("/api/v1/order", "/api/v1/order/test", "/api/v1/openOrders")

Row = TypeVar("Row", Order, Fill)
Telling = Callable[[list[Order | Fill]], list[Order | Fill]]
"""What becomes of the rows of an answer before they are told."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request as it came; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    ip: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response; ``body`` is sent as it stands, or half of it and no more when ``cut``."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


class Refused(Exception):
    """The venue's own error object and the HTTP status it comes with."""

    def __init__(self, status: int, code: int, msg: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(msg)
        self.answer = error(status, code, msg, headers)


def json(value: object) -> Answer:
    return Answer(200, msgspec.json.encode(value))


def error(status: int, code: int, msg: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, msgspec.json.encode({"code": code, "msg": msg}), headers)


@dataclass(slots=True)
class Meter:
    """Weight per clock minute and IP. Going on while refused turns 429 into 418."""

    per_minute: int
    _used: dict[str, tuple[int, int]] = field(default_factory=dict)
    _refusals: dict[str, int] = field(default_factory=dict)
    _blocked_until_ms: dict[str, int] = field(default_factory=dict)

    def take(self, ip: str, weight: int, now_ms: int) -> int:
        """Spend. Returns what this minute has used so far; raises Refused when that is too much."""
        if now_ms < self._blocked_until_ms.get(ip, 0):
            return self._refuse(ip, now_ms)
        minute, used = self._used.get(ip, (0, 0))
        used = (used if minute == now_ms // 60_000 else 0) + weight
        self._used[ip] = now_ms // 60_000, used
        if used > self.per_minute:
            self._refusals[ip] = 0
            self._blocked_until_ms[ip] = (now_ms // 60_000 + 1) * 60_000
            return self._refuse(ip, now_ms)
        return used

    def block(self, ip: str, until_ms: int) -> None:
        """Refuse this IP until then, whatever it has spent."""
        self._refusals[ip], self._blocked_until_ms[ip] = 0, until_ms

    def blocked(self, ip: str, now_ms: int) -> bool:
        return now_ms < self._blocked_until_ms.get(ip, 0)

    def _refuse(self, ip: str, now_ms: int) -> int:
        self._refusals[ip] = self._refusals.get(ip, 0) + 1
        if banned := self._refusals[ip] > REFUSALS_BEFORE_BAN:
            self._blocked_until_ms[ip] = max(self._blocked_until_ms[ip], now_ms + BAN_S * 1_000)
        until_ms = self._blocked_until_ms[ip]
        wait = (("Retry-After", str(-(-(until_ms - now_ms) // 1_000))),)
        if banned:
            raise Refused(418, -1003, f"Way too much request weight used; IP banned until {until_ms}.", wait)
        raise Refused(429, -1003, f"Too much request weight used; the limit is {self.per_minute} a minute.", wait)


@dataclass(slots=True)
class ListenKeys:
    """The account's one listen key. It is shared by everybody who asks while it is valid."""

    ttl_s: float
    key: str | None = None
    deadline_s: float = 0.0
    """On the clock of the ``now_s`` handed in."""

    def open(self, now_s: float) -> str:
        """The valid key, or a new one; either way it lives for another ``ttl_s``."""
        self.key = self.key or secrets.token_hex(30)
        self.deadline_s = now_s + self.ttl_s
        return self.key

    def extend(self, key: str, now_s: float) -> None:
        self._known(key)
        self.deadline_s = now_s + self.ttl_s

    def close(self, key: str) -> None:
        self._known(key)
        self.key = None

    def _known(self, key: str) -> None:
        if not self.key or key != self.key:
            raise Refused(400, -1125, "This listenKey does not exist.")


@dataclass(slots=True)
class Params:
    """The parameters of one call; each reader raises the venue's own error when the text does not fit."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.values.get(name)

    def must(self, name: str) -> str:
        if not (value := self.values.get(name)):
            raise Refused(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def whole(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise Refused(400, -1100, f"Illegal characters found in parameter '{name}'.")
        return int(value)

    def symbol(self) -> str:
        if (symbol := self.must("symbol")) not in PAIRS:
            raise Refused(400, -1121, "Invalid symbol.")
        return symbol


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler needs to answer: the parameters, the books to answer from, both clocks."""

    params: Params
    books: Books
    now_ms: int
    now_s: float
    telling: Telling

    def told(self, rows: Sequence[Row]) -> list[Row]:
        """The rows as the client is to hear them: as many, of the same kind."""
        return cast("list[Row]", self.telling(list(rows)))


@dataclass(frozen=True, slots=True)
class Route:
    handle: Callable[[Asked], object]
    weight: int | Callable[[Params], int]
    security: str
    """``none``, ``key`` (header only) or ``signed`` (header and signature)."""


_GONE = {
    -2013: "Order does not exist.",
    -2026: "Order was canceled or expired with no executed qty and has been archived.",
}


class Rest:
    """The API of one account. What it remembers: the listen key, the weight spent, the sins of its clients."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        api_key: str,
        api_secret: str,
        weight_per_minute: int,
        ttl_s: float,
        window_only: bool = False,
    ) -> None:
        self.dialect = dialect
        self.meter = Meter(weight_per_minute)
        self.keys = ListenKeys(ttl_s)
        self.violations: deque[str] = deque(maxlen=10_000)
        """Calls that could have traded. A mirror makes none."""
        self.impolite: deque[str] = deque(maxlen=10_000)
        """Calls made while a Retry-After was running. A polite client makes none after the first 429."""
        self.ignore_filters = False
        self.not_found = 0
        """So many GET order answer -2013 whatever is asked."""
        self.rows_max = ROWS_MAX
        """Rows of a page at most, whatever limit asks for."""
        self.refuses_limits = False
        """Whether a limit above that is refused; else it is cut without a word."""
        self.history_days: float | None = None
        """How far back allOrders and myTrades go; None: to the beginning."""
        self.refuses_age = True
        """Whether a startTime before that is refused; else older rows are left out without a word."""
        self.refused: dict[str, int] = {}
        """Markets whose every question is refused, and with which code."""
        self.unlisted: frozenset[str] = frozenset()
        """Markets that exchangeInfo does not list, though there are orders in them."""
        self.denies_unlisted = False
        """Whether every question about those is answered -1121."""
        self.hides_rejected = False
        """Whether rejected orders are in no list, and -2013 to who asks for one."""
        self.archived_after_s: float | None = None
        """Orders that ended without an execution so long ago are in no list, and -2026 to who asks; None: none is."""
        self._window_only = window_only
        self._api_key = api_key
        self._api_secret = api_secret.encode()
        self._routes = self._offered()

    def _offered(self) -> dict[tuple[str, str], Route]:
        routes = {
            ("GET", "/api/v1/account"): Route(self._account, 10, "signed"),
            ("GET", "/api/v1/order"): Route(self._order, 2, "signed"),
            ("GET", "/api/v1/openOrders"): Route(
                self._open_orders, lambda params: 3 if params.text("symbol") else 40, "signed"
            ),
            ("GET", "/api/v1/allOrders"): Route(self._all_orders, 10, "signed"),
            ("POST", "/api/v1/userDataStream"): Route(self._open_key, 1, "key"),
            ("PUT", "/api/v1/userDataStream"): Route(self._extend_key, 1, "key"),
            ("DELETE", "/api/v1/userDataStream"): Route(self._close_key, 1, "key"),
        }
        if self.dialect.trades:
            routes["GET", "/api/v1/myTrades"] = Route(self._my_trades, 10, "signed")
        if self.dialect.full:
            routes["GET", "/api/v1/time"] = Route(lambda asked: {"serverTime": asked.now_ms}, 1, "none")
            routes["GET", "/api/v1/exchangeInfo"] = Route(
                lambda asked: exchange_json(asked.now_ms, self.meter.per_minute, self.unlisted), 10, "none"
            )
        return routes

    def answer(
        self, call: Call, books: Books, *, now_ms: int, now_s: float, telling: Telling = lambda rows: rows
    ) -> Answer:
        """Answer one call from ``books``. ``now_ms`` is the venue's clock, ``now_s`` a steady one.

        ``telling`` may change the orders and fills before they are put into words.
        """
        used = 0
        try:
            if call.method != "GET" and call.path in TRADING_PATHS:
                self.violations.append(f"{call.method} {call.path}")
                raise Refused(403, -2015, "This sandbox account must never trade for its client.")
            route = self._routes.get((call.method, call.path))
            params = _params(call)
            used = self.meter.take(call.ip, _weight(route, params), now_ms)
            if not route:
                raise Refused(404, -1000, f"There is no {call.method} {call.path}.")
            self._check(call, route.security, params, now_ms)
            if (code := self.refused.get(params.text("symbol") or "")) is not None:
                raise Refused(400, code, "Not for this market.")
            if self.denies_unlisted and params.text("symbol") in self.unlisted:
                raise Refused(400, -1121, "Invalid symbol.")
            answer = json(route.handle(Asked(params, books, now_ms, now_s, telling)))
        except Refused as refused:
            answer = refused.answer
        if not (self.dialect.full and used):
            return answer
        return replace(answer, headers=(*answer.headers, ("X-SDX-USED-WEIGHT-1M", str(used))))

    def watch(self, call: Call, now_ms: int) -> None:
        """Note a call made while a Retry-After is running, whatever it will be answered."""
        if self.meter.blocked(call.ip, now_ms):
            self.impolite.append(f"{call.method} {call.path}")

    def _check(self, call: Call, security: str, params: Params, now_ms: int) -> None:
        if security == "none":
            return
        key = call.headers.get("x-sdx-apikey", "")
        if not key or not key.isprintable() or " " in key:
            raise Refused(401, -2014, "API-key format invalid.")
        if not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise Refused(401, -2015, "Invalid API-key, IP, or permissions for action.")
        if security == "signed":
            self._check_signature(call.query)
            _check_time(params, now_ms)

    def _check_signature(self, query: str) -> None:
        """The signature covers the raw query before it, and nothing may follow it."""
        payload, _, signature = query.rpartition("&signature=")
        expected = hmac.new(self._api_secret, payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Refused(400, -1022, "Signature for this request is not valid.")

    def hidden(self, order: Order, now_ms: int) -> int | None:
        """The code with which a question for this order is refused, which is in no list either; None: it is there."""
        if order.status == "REJECTED" and self.hides_rejected:
            return -2013
        if self.archived_after_s is None or order.is_open or order.executed_qty:
            return None
        return -2026 if order.updated_ms <= now_ms - self.archived_after_s * 1000 else None

    def truth(self, books: Books, now_ms: int) -> dict[str, object]:
        """The books as JSON can carry them; an order of which REST has none is ``hidden``."""
        hidden = {key for key, order in books.orders.items() if self.hidden(order, now_ms) is not None}
        truth = books.truth()
        rows = cast("list[dict[str, object]]", truth["orders"])
        orders = [row | {"hidden": True} if (row["symbol"], row["order_id"]) in hidden else row for row in rows]
        return truth | {"orders": orders}

    # What each call answers.

    def _account(self, asked: Asked) -> object:
        return account_json(self.dialect, asked.books)

    def _order(self, asked: Asked) -> object:
        symbol, order_id = asked.params.symbol(), asked.params.whole("orderId")
        client_id = asked.params.text("clientOrderId")
        if order_id is None and not client_id:
            raise Refused(400, -1102, "Either 'orderId' or 'clientOrderId' must be sent.")
        if order_id is not None:
            order = asked.books.order(symbol, order_id)
        else:
            rows = reversed(asked.books.orders_of(symbol))
            order = next((row for row in rows if row.client_order_id == client_id), None)
        if self.not_found or not order:
            self.not_found = max(0, self.not_found - 1)
            raise Refused(400, -2013, "Order does not exist.")
        if (code := self.hidden(order, asked.now_ms)) is not None:
            raise Refused(400, code, _GONE[code])
        return order_json(self.dialect, asked.told([order])[0])

    def _open_orders(self, asked: Asked) -> object:
        symbol = asked.params.symbol() if asked.params.text("symbol") else None
        rows = [order for order in asked.books.open_orders() if symbol in (None, order.symbol)]
        return [order_json(self.dialect, order) for order in asked.told(rows)]

    def _all_orders(self, asked: Asked) -> object:
        rows = asked.books.orders_of(asked.params.symbol())
        if self.hides_rejected or self.archived_after_s is not None:
            rows = [order for order in rows if self.hidden(order, asked.now_ms) is None]
        page = self._page(rows, asked, "orderId", id_of=lambda order: order.order_id, ms_of=lambda o: o.created_ms)
        return [order_json(self.dialect, order) for order in asked.told(page)]

    def _my_trades(self, asked: Asked) -> object:
        params, symbol = asked.params, asked.params.symbol()
        if params.text("fromId") and (params.text("startTime") or params.text("endTime")):
            raise Refused(400, -1128, "Combination of optional parameters invalid.")
        order_id = params.whole("orderId")
        rows = asked.books.fills_of(symbol) if order_id is None else asked.books.fills_of_order(symbol, order_id)
        page = self._page(rows, asked, "fromId", id_of=lambda fill: fill.trade_id, ms_of=lambda f: f.time_ms)
        return [trade_json(fill) for fill in asked.told(page)]

    def _page(
        self,
        rows: Sequence[Row],
        asked: Asked,
        cursor: str,
        *,
        id_of: Callable[[Row], int],
        ms_of: Callable[[Row], int],
    ) -> Sequence[Row]:
        """A start (an id or a time, inclusive): the oldest rows from there; no start: the newest rows.

        Only the rows of the page are touched, however many there are.
        """
        params = asked.params
        start_ms, end_ms = params.whole("startTime"), params.whole("endTime")
        from_id, limit = params.whole(cursor), self._limit(params)
        rows = self._kept(rows, start_ms, asked.now_ms, ms_of)
        if self.ignore_filters:
            return rows[-limit:]
        if start_ms is not None and start_ms == end_ms:
            raise Refused(400, -1102, "Mandatory parameter 'endTime' was not sent, was empty/null, or malformed.")
        if start_ms is not None and end_ms is not None and end_ms - start_ms > DAY_MS:
            raise Refused(400, -1127, "More than 24 hours between startTime and endTime.")
        if self._window_only and start_ms is not None and end_ms is None:
            raise Refused(400, -1127, "A startTime without an endTime spans more than 24 hours.")
        first, last = 0, len(rows)
        if from_id is not None:
            first = bisect_left(rows, from_id, key=id_of)
        if start_ms is not None:
            first = max(first, bisect_left(rows, start_ms, key=ms_of))
        if end_ms is not None:
            last = bisect_right(rows, end_ms, key=ms_of)
        if start_ms is None and from_id is None:
            return rows[max(first, last - limit) : last]
        return rows[first : min(last, first + limit)]

    def _limit(self, params: Params) -> int:
        limit = params.whole("limit")
        if self.refuses_limits and limit is not None and limit > self.rows_max:
            raise Refused(400, -1130, "Data sent for parameter 'limit' is not valid.")
        return min(ROWS_DEFAULT if limit is None else max(limit, 1), ROWS_MAX, self.rows_max)

    def _kept(
        self, rows: Sequence[Row], start_ms: int | None, now_ms: int, ms_of: Callable[[Row], int]
    ) -> Sequence[Row]:
        """The rows that are not too old to be served."""
        if self.history_days is None:
            return rows
        kept_ms = now_ms - int(self.history_days * DAY_MS)
        if self.refuses_age and start_ms is not None and start_ms < kept_ms:
            raise Refused(400, -4188, f"Search window is restricted to recent {self.history_days:g} days only.")
        return rows[bisect_left(rows, kept_ms, key=ms_of) :]

    def _open_key(self, asked: Asked) -> object:
        return {"listenKey": self.keys.open(asked.now_s)}

    def _extend_key(self, asked: Asked) -> object:
        self.keys.extend(asked.params.must("listenKey"), asked.now_s)
        return {}

    def _close_key(self, asked: Asked) -> object:
        self.keys.close(asked.params.must("listenKey"))
        return {}


def _params(call: Call) -> Params:
    """GET takes parameters from the query alone, the others from a form body as well."""
    raw = call.query
    if call.method != "GET" and call.body:
        raw = f"{raw}&{call.body.decode('latin-1')}"
    return Params(dict(parse_qsl(raw, keep_blank_values=True)))


def _weight(route: Route | None, params: Params) -> int:
    if not route:
        return 1
    return route.weight if isinstance(route.weight, int) else route.weight(params)


def _check_time(params: Params, now_ms: int) -> None:
    params.must("timestamp")
    timestamp_ms, window_ms = params.whole("timestamp"), params.whole("recvWindow")
    window_ms = RECV_WINDOW_DEFAULT_MS if window_ms is None else window_ms
    if window_ms > RECV_WINDOW_MAX_MS:
        raise Refused(400, -1130, f"'recvWindow' must be at most {RECV_WINDOW_MAX_MS}.")
    assert timestamp_ms is not None, "must() has seen it"
    if timestamp_ms > now_ms + AHEAD_MAX_MS:
        raise Refused(400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - timestamp_ms > window_ms:
        raise Refused(400, -1021, "Timestamp for this request is outside of the recvWindow.")
