"""A venue that can be told to answer anything: REST and the user data stream on loopback, its rows in view.

Answers of the full form by default, over the rows it was given; ``rules`` answer before that. The stream lets in who
comes with the newest listen key.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve

from tests.flows.scripted_http import Asked, ScriptedHttp, reply

Row = dict[str, Any]
Rule = Callable[[Asked], bytes | None]
"""The answer to a call it has an opinion of; None: the next rule, at last the venue's own answer."""

API_KEY, API_SECRET = "field-key", "field-secret"
LISTEN_KEY = "lk0"
ROWS_MAX = 1000
EMPTY = "0.00000000"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def refusal(status: int, code: int, msg: str) -> bytes:
    """The venue family's error object."""
    return reply(status, json.dumps({"code": code, "msg": msg}))


def told(value: object) -> bytes:
    return reply(200, json.dumps(value, ensure_ascii=False))


def order_row(symbol: str, order_id: int, at_ms: int, **more: object) -> Row:
    """An order that was filled at once, as REST tells it; ``more`` replaces fields."""
    row = {
        "symbol": symbol,
        "orderId": order_id,
        "orderListId": -1,
        "clientOrderId": f"c{order_id}",
        "price": "2.00",
        "origQty": "10.00",
        "executedQty": "10.00",
        "cummulativeQuoteQty": "20.00",
        "status": "FILLED",
        "timeInForce": "GTC",
        "type": "LIMIT",
        "side": "BUY",
        "stopPrice": EMPTY,
        "icebergQty": EMPTY,
        "time": at_ms,
        "updateTime": at_ms,
        "isWorking": False,
    }
    return row | more


def trade_row(symbol: str, trade_id: int, order_id: int, at_ms: int, **more: object) -> Row:
    """The one trade of such an order."""
    row = {
        "symbol": symbol,
        "id": trade_id,
        "orderId": order_id,
        "orderListId": -1,
        "price": "2.00",
        "qty": "10.00",
        "quoteQty": "20.00",
        "commission": "0.01",
        "commissionAsset": "USDT",
        "time": at_ms,
        "isBuyer": True,
        "isMaker": False,
        "isBestMatch": True,
    }
    return row | more


class Venue(ScriptedHttp):
    """One account at one venue. ``start_ms``: a minute ago, where the inputs' times begin."""

    def __init__(self) -> None:
        super().__init__()
        self.start_ms = now_ms() - 60_000
        self.orders: list[Row] = []
        self.trades: list[Row] = []
        self.balances: dict[str, tuple[str, str]] = {"BTC": ("1", "0"), "USDT": ("100", "0")}
        self.markets: set[str] = {"BTCUSDT"}
        self.rules: list[Rule] = []
        self.stream_url = ""
        self.sockets: set[ServerConnection] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stream: Server = await serve(self._let_in, "127.0.0.1", 0, ping_interval=None)
        self.stream_url = f"ws://127.0.0.1:{next(iter(self._stream.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._stream.close()
        await self._stream.wait_closed()
        await super().__aexit__(*error)

    # --- what is so

    def traded(self, symbol: str, order_id: int, *, trade_id: int | None = None, at_ms: int | None = None) -> None:
        """An order that was filled at once, and its trade."""
        when_ms = self.start_ms if at_ms is None else at_ms
        self.markets.add(symbol)
        self.orders.append(order_row(symbol, order_id, when_ms))
        self.trades.append(trade_row(symbol, order_id if trade_id is None else trade_id, order_id, when_ms))

    def calls(self, name: str) -> list[Asked]:
        """Every call so far of the endpoint of that name."""
        return [one for one in self.asked if one.path.endswith(f"/{name}")]

    async def push(self, *frames: Row) -> None:
        """Send frames to every socket."""
        for frame in frames:
            for socket in list(self.sockets):
                await socket.send(json.dumps(frame, ensure_ascii=False))

    # --- what it says

    def answer_to(self, asked: Asked) -> bytes:
        for rule in self.rules:
            if (answer := rule(asked)) is not None:
                return answer
        return self.own_answer(asked)

    def own_answer(self, asked: Asked) -> bytes:
        """What it says where no rule has an opinion."""
        name, params = asked.path.rpartition("/")[2], asked.params
        symbol = params.get("symbol")
        if symbol is not None and symbol not in self.markets:
            return refusal(400, -1121, "Invalid symbol.")
        if name == "account":
            return told(self._account())
        if name == "userDataStream":
            return told({"listenKey": LISTEN_KEY} if asked.method == "POST" else {})
        if name == "time":
            return told({"serverTime": now_ms()})
        if name == "openOrders":
            resting = [row for row in self.orders if row["status"] in ("NEW", "PARTIALLY_FILLED")]
            return told([row for row in resting if symbol in (None, row["symbol"])])
        if name == "order":
            return self._order(symbol, params)
        if name == "allOrders":
            return told(self.page(self.orders, params, "orderId", "orderId"))
        if name == "myTrades":
            return told(self.page(self.trades, params, "id", "fromId"))
        return reply(404, "<html>404 Not Found</html>", {"Content-Type": "text/html"})

    def page(self, rows: list[Row], params: dict[str, str], key: str, start: str) -> list[Row]:
        """A page as the venue family cuts it: from a start on, the oldest first; without one the newest."""
        limit = min(int(params.get("limit", 500)), ROWS_MAX)
        found = sorted((row for row in rows if row["symbol"] == params["symbol"]), key=lambda row: int(row[key]))
        if start == "fromId" and "orderId" in params:
            found = [row for row in found if row["orderId"] == int(params["orderId"])]
        begin_ms, end_ms = int(params.get("startTime", 0)), int(params.get("endTime", 1 << 62))
        found = [row for row in found if begin_ms <= row["time"] <= end_ms]
        if start in params:
            return [row for row in found if int(row[key]) >= int(params[start])][:limit]
        return found[:limit] if "startTime" in params or "endTime" in params else found[-limit:]

    def _order(self, symbol: str | None, params: dict[str, str]) -> bytes:
        wanted = (symbol, params.get("orderId"))
        found = [row for row in self.orders if (row["symbol"], str(row["orderId"])) == wanted]
        return told(found[-1]) if found else refusal(400, -2013, "Order does not exist.")

    def _account(self) -> Row:
        held = [{"asset": asset, "free": free, "locked": locked} for asset, (free, locked) in self.balances.items()]
        return {"canTrade": True, "canWithdraw": True, "updateTime": self.start_ms, "balances": held}

    async def _let_in(self, socket: ServerConnection) -> None:
        if socket.request is None or not socket.request.path.endswith(LISTEN_KEY):
            return
        self.sockets.add(socket)
        try:
            await socket.wait_closed()
        finally:
            self.sockets.discard(socket)


async def hold(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it stays so for that long."""
    deadline_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline_s:
        if not true():
            return False
        await asyncio.sleep(0.05)
    return True
