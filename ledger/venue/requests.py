"""REST questions as values: what to ask, how it is secured, what it weighs.

Always holds: a request knows neither key, secret nor time; ``signing`` adds them right before it is sent. Its
text, ``question`` and ``repr`` alike, never shows a listen key. Paths, parameters and weights are the venue's
own where its pages give them (account, order, openOrders, allOrders, userDataStream); myTrades, time and
exchangeInfo are not documented, their weights are those of the venue it follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Method = Literal["GET", "POST", "PUT", "DELETE"]
Security = Literal["public", "key", "signed"]

LIMIT_MAX = 1000
"""Rows that a page of allOrders or myTrades is asked for. The venue may give fewer, told or not."""
PAGE_WEIGHT = 10
"""What such a page weighs, full or not."""

_PAIRS = re.compile(r"&(?=(?:symbol|orderId|startTime|endTime|fromId|limit)=)")
_ROWS = re.compile(r"GET#([0-9]+)-([0-9]+)/([0-9]+) ")
_SECRET_PARAMS = frozenset({"listenKey", "signature", "timestamp"})


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """One REST call. ``weight`` counts against the budget per minute; ``kind`` is how the journal names the
    answer.

    ``security``: public sends nothing, key sends the API key header, signed adds time and signature.
    ``symbol`` and ``order_id`` repeat what was asked for, None where the question names none.
    """

    method: Method
    path: str
    params: tuple[tuple[str, str], ...]
    security: Security
    weight: int
    kind: str
    symbol: str | None = None
    order_id: int | None = None

    @property
    def limit(self) -> int | None:
        """Rows it asks for; None: it does not say."""
        return next((int(value) for name, value in self.params if name == "limit"), None)

    @property
    def from_id(self) -> int | None:
        """The trade it begins with; None: it does not say."""
        return next((int(value) for name, value in self.params if name == "fromId"), None)

    def with_limit(self, limit: int) -> Request:
        """The same question for at most so many rows."""
        params = tuple((name, str(limit) if name == "limit" else value) for name, value in self.params)
        return replace(self, params=params)

    @property
    def question(self) -> str:
        """The same text for the same question, whenever it is asked: no time, no signature, no listen key."""
        told = "&".join(f"{name}={value}" for name, value in self.params if name not in _SECRET_PARAMS)
        return f"{self.method} {self.path} {told}".rstrip()

    def __repr__(self) -> str:
        return f"Request({self.question})"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of an answer, by their places from 0: ``first`` to ``last`` of ``total``."""

    first: int
    last: int
    total: int


def create_listen_key() -> Request:
    """A listen key for the user data stream; the venue gives the active one again if there is one."""
    return _listen_key("POST")


def extend_listen_key(key: str) -> Request:
    """60 more minutes for ``key``. How the venue wants it named is not documented: as the query parameter
    listenKey."""
    return _listen_key("PUT", key)


def delete_listen_key(key: str) -> Request:
    """The end of ``key``, for every client of the account that shares it."""
    return _listen_key("DELETE", key)


def account() -> Request:
    """Every balance that is not zero."""
    return Request("GET", "/api/v1/account", (), "signed", weight=10, kind="account")


def open_orders(symbol: str | None = None) -> Request:
    """The resting orders of one symbol, or of all (None) at a much higher weight."""
    weight = 40 if symbol is None else 3
    params = _params(symbol=symbol)
    return Request("GET", "/api/v1/openOrders", params, "signed", weight, kind="openOrders", symbol=symbol)


def query_order(symbol: str, order_id: int, settle: bool = False) -> Request:
    """One order. ``settle``: asked late enough for its answer to judge the order's provisional fills."""
    params = _params(symbol=symbol, orderId=order_id)
    kind = "order_settle" if settle else "order"
    return Request("GET", "/api/v1/order", params, "signed", 2, kind, symbol=symbol, order_id=order_id)


def all_orders(
    symbol: str,
    *,
    order_id: int | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    limit: int = LIMIT_MAX,
) -> Request:
    """Orders of a symbol, open and closed; ``order_id`` and ``start_ms`` are inclusive starts.

    Raises ValueError for an order id together with times (which of them wins is not documented) and for a
    limit or times that make no sense.
    """
    _refuse_nonsense(start_ms, end_ms, limit)
    if order_id is not None and (start_ms is not None or end_ms is not None):
        raise ValueError("allOrders takes an order id or times, got both; page by one of them")
    params = _params(symbol=symbol, orderId=order_id, startTime=start_ms, endTime=end_ms, limit=limit)
    return Request("GET", "/api/v1/allOrders", params, "signed", PAGE_WEIGHT, kind="allOrders", symbol=symbol)


def my_trades(
    symbol: str,
    *,
    from_id: int | None = None,
    order_id: int | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    limit: int = LIMIT_MAX,
) -> Request:
    """Trades of a symbol; ``from_id`` and ``start_ms`` are inclusive starts.

    Raises ValueError unless the cursor is one of: none, ``order_id``, ``from_id``, both ids, or times alone.
    Anything else is refused by newer venues of this family and was answered with silent choices by older
    ones.
    """
    _refuse_nonsense(start_ms, end_ms, limit)
    if (from_id is not None or order_id is not None) and (start_ms is not None or end_ms is not None):
        raise ValueError("myTrades takes ids or times, got both; page by one of them")
    params = _params(symbol=symbol, orderId=order_id, startTime=start_ms, endTime=end_ms, fromId=from_id, limit=limit)
    return Request(
        "GET", "/api/v1/myTrades", params, "signed", PAGE_WEIGHT, "myTrades", symbol=symbol, order_id=order_id
    )


def server_time() -> Request:
    """The venue's clock; whether it offers it is probed."""
    return Request("GET", "/api/v1/time", (), "public", weight=1, kind="time")


def exchange_info() -> Request:
    """Every symbol with its base and quote asset; whether the venue offers it is probed."""
    return Request("GET", "/api/v1/exchangeInfo", (), "public", weight=10, kind="exchangeInfo")


def with_rows(question: str, rows: Rows) -> str:
    """``question`` for some rows of its answer: they stand with the method, where nothing of the venue can stand."""
    method, rest = question.split(" ", 1)
    return f"{method}#{rows.first}-{rows.last}/{rows.total} {rest}"


def rows_of(question: str) -> Rows | None:
    """The rows that ``with_rows`` named; None for a question about a whole answer."""
    named = _ROWS.match(question)
    return None if named is None else Rows(int(named[1]), int(named[2]), int(named[3]))


def from_question(kind: str, question: str) -> Request:
    """The request that ``question`` was the text of, as far as an answer is read by it: for answers kept before.

    Raises ValueError when it is no question.
    """
    method, path, told = (*_ROWS.sub("GET ", question).split(" ", 2), "", "")[:3]
    if method != "GET" or not path.startswith("/"):
        raise ValueError(f"expected a question such as GET /api/v1/account, got {question[:80]!r}")
    params = tuple((name, value) for name, _, value in (pair.partition("=") for pair in _PAIRS.split(told)) if name)
    values = dict(params)
    # Only these kinds are about one order; for allOrders an order id is where the page starts.
    order_id = values.get("orderId") if kind in ("order", "order_settle", "myTrades") else None
    number = None if order_id is None else int(order_id)
    return Request("GET", path, params, "signed", 0, kind, symbol=values.get("symbol"), order_id=number)


def _listen_key(method: Method, key: str | None = None) -> Request:
    return Request(method, "/api/v1/userDataStream", _params(listenKey=key), "key", weight=1, kind="userDataStream")


def _params(**told: str | int | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in told.items() if value is not None)


def _refuse_nonsense(start_ms: int | None, end_ms: int | None, limit: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit is {limit}, expected 1 to {LIMIT_MAX}")
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise ValueError(f"startTime {start_ms} is after endTime {end_ms}")
