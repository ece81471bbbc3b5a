"""The sandbox venue over real sockets, asked as the venue's page says and spoilt as the script says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from ledger.errors import ConfigError, UsageError
from ledger.sandbox.server import Sandbox, serve
from tests.patience import stretched

Start = Callable[..., Awaitable["Client"]]
DAY_MS = 86_400_000


class Client:
    """A client written from the venue's page: signs, keeps the answers, opens sockets."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient, stack: AsyncExitStack) -> None:
        self.sandbox, self.http, self._stack = sandbox, http, stack
        self.key = ""

    async def get(self, name: str, secret: str = "sandbox-secret", **params: Any) -> httpx.Response:
        query = urlencode({**params, "timestamp": params.get("timestamp", self.sandbox.now_ms())})
        signature = hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        return await self.http.get(f"/api/v1/{name}?{query}&signature={signature}")

    async def rows(self, name: str, **params: Any) -> Any:
        answer = await self.get(name, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def open_key(self) -> str:
        self.key = (await self.http.post("/api/v1/userDataStream")).json()["listenKey"]
        return self.key

    async def socket(self, key: str | None = None, **options: Any) -> ClientConnection:
        """One more socket, on the valid key unless told otherwise."""
        before = self.sandbox.sockets_opened
        url = f"{self.sandbox.stream_url}/ws/{key or self.key or await self.open_key()}"
        socket = await self._stack.enter_async_context(connect(url, compression=None, **options))
        await self.sandbox.until(lambda: self.sandbox.sockets_opened > before)
        return socket


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts sandboxes with the settings given and hands out a client of each."""
    async with AsyncExitStack() as stack:

        async def start_one(**settings: Any) -> Client:
            sandbox = Sandbox(**settings)
            await sandbox.start()
            stack.push_async_callback(sandbox.stop)
            http = httpx.AsyncClient(
                base_url=sandbox.rest_url, headers={"X-SDX-APIKEY": "sandbox-key"}, trust_env=False
            )
            return Client(sandbox, await stack.enter_async_context(http), stack)

        yield start_one


async def frames(socket: ClientConnection, n: int) -> list[Any]:
    """The next ``n`` frames, decoded."""
    async with asyncio.timeout(stretched(10)):
        return [json.loads(await socket.recv()) for _ in range(n)]


def problem(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["code"]


# The stream.


async def test_every_socket_of_the_key_gets_every_frame_as_text_in_order(start: Start) -> None:
    client = await start()
    one, two = await client.socket(), await client.socket()
    await client.sandbox.step(100)
    n = client.sandbox.frames_made
    first, second = await frames(one, n), await frames(two, n)
    assert first == second
    assert {frame["e"] for frame in first} == {"executionReport", "outboundAccountPosition"}
    assert n > 150


async def test_the_frames_of_the_documented_dialect_add_up_to_the_books(start: Start) -> None:
    client = await start()
    socket, sandbox = await client.socket(), client.sandbox
    await sandbox.step(400)
    executed: dict[tuple[str, int], Decimal] = {}
    held = {asset: (balance.free, balance.locked) for asset, balance in Sandbox().books.balances.items()}
    for frame in await frames(socket, sandbox.frames_made):
        if frame["e"] == "executionReport":
            assert len(frame) == 10
            key = frame["s"], frame["i"]
            executed[key] = executed.get(key, Decimal()) + Decimal(frame["l"])
        else:
            assert set(frame) == {"e", "u", "B"}
            held |= {row["a"]: (Decimal(row["f"]), Decimal(row["l"])) for row in frame["B"]}
    assert executed == {key: order.executed_qty for key, order in sandbox.books.orders.items()}
    assert held == {asset: (b.free, b.locked) for asset, b in sandbox.books.balances.items()}


async def test_positions_go_without_a_clock_when_asked_to(start: Start) -> None:
    client = await start(position_clock=False)
    socket = await client.socket()
    await client.sandbox.step(20)
    told = await frames(socket, client.sandbox.frames_made)
    assert {tuple(frame) for frame in told if frame["e"] == "outboundAccountPosition"} == {("e", "B")}


async def test_the_full_dialect_announces_deposits_and_numbers_its_trades(start: Start) -> None:
    client = await start(dialect="full")
    socket, sandbox = await client.socket(), client.sandbox
    while not sandbox.books.movements:
        await sandbox.step(50)
    told = await frames(socket, sandbox.frames_made)
    assert [(f["a"], f["d"]) for f in told if f["e"] == "balanceUpdate"] == [
        (movement.asset, format(movement.amount, "f")) for movement in sandbox.books.movements
    ]
    reports = [frame for frame in told if frame["e"] == "executionReport"]
    assert {(f["s"], f["i"], f["t"]) for f in reports if f["t"] != -1} == set(sandbox.books.fills)


async def test_a_socket_without_the_valid_key_is_refused_with_401(start: Start) -> None:
    client = await start()
    await client.open_key()
    with pytest.raises(InvalidStatus) as refused:
        await client.socket("0" * 60)
    assert refused.value.response.status_code == 401


async def test_the_server_pings_and_cuts_a_client_that_never_pongs(start: Start) -> None:
    client = await start(ping_every_s=0.05, pong_timeout_s=0.2)
    await client.open_key()
    _, writer = await asyncio.open_connection("127.0.0.1", client.sandbox.port)
    writer.write(
        f"GET /ws/{client.key} HTTP/1.1\r\nHost: sandbox\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await client.sandbox.until(lambda: client.sandbox.sockets == 1)
    living = await client.socket()
    await client.sandbox.until(lambda: client.sandbox.sockets == 1)
    await client.sandbox.step()
    assert await frames(living, 1), "the client that answers its pings stays"
    writer.close()


async def test_an_old_connection_is_closed_with_1001(start: Start) -> None:
    client = await start(ping_every_s=0.02, connection_max_age_s=0.05)
    socket = await client.socket()
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), stretched(10))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


# The listen key.


async def test_the_listen_key_is_shared_extended_and_forgotten(start: Start) -> None:
    client = await start()
    key = await client.open_key()
    assert await client.open_key() == key
    url = "/api/v1/userDataStream"
    assert (await client.http.put(url, params={"listenKey": key})).json() == {}
    assert (await client.http.put(url, data={"listenKey": key})).json() == {}
    assert problem(await client.http.put(url, params={"listenKey": "no"})) == (400, -1125)
    assert problem(await client.http.put(url)) == (400, -1102)
    assert problem(await client.http.post(url, headers={"X-SDX-APIKEY": "no"})) == (401, -2015)
    socket = await client.socket()
    assert (await client.http.delete(url, params={"listenKey": key})).json() == {}
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), stretched(10))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    assert problem(await client.http.put(url, params={"listenKey": key})) == (400, -1125)
    assert await client.open_key() != key


async def test_a_key_that_runs_out_says_so_once_and_then_nothing_more(start: Start) -> None:
    client = await start(listen_key_ttl_s=0.2)
    socket = await client.socket()
    [last] = await frames(socket, 1)
    assert (last["e"], last["listenKey"]) == ("listenKeyExpired", client.key)
    await client.sandbox.step(5)
    await (await socket.ping())
    assert client.sandbox.frames_sent == 1, "the socket lives, the stream does not"
    url = "/api/v1/userDataStream"
    assert problem(await client.http.put(url, params={"listenKey": client.key})) == (400, -1125)


# REST: who may ask.


async def test_a_signed_call_needs_key_signature_and_time(start: Start) -> None:
    client = await start()
    now_ms = client.sandbox.now_ms()
    assert (await client.get("account")).status_code == 200
    assert problem(await client.get("account", secret="wrong")) == (400, -1022)
    assert problem(await client.get("account", timestamp=now_ms - 6_000)) == (400, -1021)
    assert problem(await client.get("account", timestamp=now_ms + 3_000)) == (400, -1021)
    assert (await client.get("account", timestamp=now_ms - 6_000, recvWindow=20_000)).status_code == 200
    assert problem(await client.get("account", recvWindow=60_001)) == (400, -1130)
    assert problem(await client.http.get("/api/v1/account?timestamp=1")) == (400, -1022)
    signed = str((await client.get("account")).request.url)
    assert problem(await client.http.get(signed + "&limit=5")) == (400, -1022), "the signature must be last"
    assert problem(await client.http.get(signed, headers={"X-SDX-APIKEY": ""})) == (401, -2014)
    assert problem(await client.http.get(signed, headers={"X-SDX-APIKEY": "other"})) == (401, -2015)


async def test_any_attempt_to_trade_is_refused_and_recorded(start: Start) -> None:
    client = await start()
    assert (await client.http.post("/api/v1/order", data={"symbol": "BTCUSDT"})).status_code == 403
    assert (await client.http.delete("/api/v1/openOrders")).status_code == 403
    assert client.sandbox.violations == ["POST /api/v1/order", "DELETE /api/v1/openOrders"]


async def test_the_budget_ends_in_429_and_going_on_ends_in_418(start: Start) -> None:
    # The clock stands still in the middle of a minute, so the window cannot turn over during the test.
    client = await start(weight_per_minute=25, dialect="full", now_ms=lambda: 1_700_000_010_000)
    spent = [(await client.get("account")).headers["x-sdx-used-weight-1m"] for _ in range(2)]
    assert spent == ["10", "20"]
    answers = [await client.get("account") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [429] * 5 + [418]
    assert answers[0].headers["retry-after"] == "30"
    assert answers[5].headers["retry-after"] == "120"
    assert len(client.sandbox.rest.impolite) == 5


# REST: what is answered.


async def test_rest_tells_the_truth_of_the_books_in_every_dialect(start: Start) -> None:
    for dialect in ("documented", "orders_quote", "mixed", "full"):
        client = await start(dialect=dialect, weight_per_minute=100_000)
        books = client.sandbox.books
        await client.sandbox.step(300)
        account = await client.rows("account")
        assert {row["asset"]: (Decimal(row["free"]), Decimal(row["locked"])) for row in account["balances"]} == {
            asset: (b.free, b.locked) for asset, b in books.balances.items()
        }
        assert {(o["symbol"], o["orderId"]) for o in await client.rows("openOrders")} == {
            order.key for order in books.open_orders()
        }
        rows = await client.rows("allOrders", symbol="BTCUSDT")
        assert [(o["orderId"], Decimal(o["executedQty"]), o["status"]) for o in rows] == [
            (order.order_id, order.executed_qty, order.status) for order in books.orders_of("BTCUSDT")
        ]
        row = await client.rows("order", symbol="BTCUSDT", orderId=rows[0]["orderId"])
        assert row == rows[0]
        assert row == await client.rows("order", symbol="BTCUSDT", clientOrderId=row["clientOrderId"])


async def test_only_the_richer_dialects_list_trades_and_only_full_tells_the_time(start: Start) -> None:
    for dialect, trades, extras in (
        ("documented", 404, 404),
        ("orders_quote", 404, 404),
        ("mixed", 200, 404),
        ("full", 200, 200),
    ):
        client = await start(dialect=dialect)
        assert (await client.get("myTrades", symbol="BTCUSDT")).status_code == trades
        assert (await client.http.get("/api/v1/time")).status_code == extras
        assert (await client.http.get("/api/v1/exchangeInfo")).status_code == extras
    symbols = (await client.http.get("/api/v1/exchangeInfo")).json()["symbols"]
    assert {row["symbol"]: (row["baseAsset"], row["quoteAsset"]) for row in symbols}["ETHBTC"] == ("ETH", "BTC")


async def test_trades_carry_the_fees_and_ids_of_the_books(start: Start) -> None:
    client = await start(dialect="mixed")
    await client.sandbox.step(300)
    rows = await client.rows("myTrades", symbol="ETHUSDT", limit=1000)
    assert [(r["orderId"], r["id"], r["commission"], r["quoteQty"], r["isMaker"]) for r in rows] == [
        (f.order_id, f.trade_id, format(f.fee, "f"), format(f.quote, "f"), f.is_maker)
        for f in client.sandbox.books.fills_of("ETHUSDT")
    ]


async def test_what_cannot_be_answered_gets_the_venues_own_error(start: Start) -> None:
    client = await start(dialect="full")
    assert problem(await client.get("order", symbol="BTCUSDT", orderId=1)) == (400, -2013)
    assert problem(await client.get("order", symbol="BTCUSDT")) == (400, -1102)
    assert problem(await client.get("allOrders")) == (400, -1102)
    assert problem(await client.get("allOrders", symbol="NOPE")) == (400, -1121)
    assert problem(await client.get("allOrders", symbol="BTCUSDT", startTime="now")) == (400, -1100)
    assert problem(await client.get("allOrders", symbol="BTCUSDT", startTime=0, endTime=DAY_MS + 1)) == (400, -1127)
    assert problem(await client.get("myTrades", symbol="BTCUSDT", fromId=1, startTime=0)) == (400, -1128)


async def test_history_is_walked_page_by_page_from_an_inclusive_start(start: Start) -> None:
    client = await start(history=1_500, dialect="full", weight_per_minute=100_000)
    truth = [order.order_id for order in client.sandbox.books.orders_of("BTCUSDT")]
    assert len(truth) > 100
    seen: list[int] = []
    start_ms = 0
    for _ in range(100):
        page = await client.rows("allOrders", symbol="BTCUSDT", startTime=start_ms, limit=50)
        assert [row["orderId"] for row in page[:1]] == seen[-1:] or not seen
        seen += [row["orderId"] for row in page if row["orderId"] not in seen]
        if len(page) < 50:
            break
        start_ms = page[-1]["time"]
    assert seen == truth
    newest = await client.rows("allOrders", symbol="BTCUSDT", limit=10)
    assert [row["orderId"] for row in newest] == truth[-10:]
    from_id = await client.rows("allOrders", symbol="BTCUSDT", orderId=truth[5], limit=10)
    assert [row["orderId"] for row in from_id] == truth[5:15]
    until = await client.rows("allOrders", symbol="BTCUSDT", endTime=newest[0]["time"], limit=1)
    assert [row["orderId"] for row in until] == [truth[-10]]
    of_order = await client.rows(
        "myTrades", symbol="BTCUSDT", orderId=client.sandbox.books.fills_of("BTCUSDT")[0].order_id
    )
    assert {row["orderId"] for row in of_order} == {client.sandbox.books.fills_of("BTCUSDT")[0].order_id}


async def test_a_history_of_months_is_served_in_full_pages_and_no_frame_tells_of_it(start: Start) -> None:
    client = await start(history=12_000, dialect="full", weight_per_minute=100_000)
    books = client.sandbox.books
    assert client.sandbox.frames_made == 0
    for name, truth, clock in (
        ("allOrders", [order.order_id for order in books.orders_of("BTCUSDT")], "time"),
        ("myTrades", [fill.trade_id for fill in books.fills_of("BTCUSDT")], "time"),
    ):
        seen: dict[tuple[int, int], int] = {}
        start_ms, pages = 0, 0
        while True:
            page = await client.rows(name, symbol="BTCUSDT", startTime=start_ms, limit=1000)
            seen |= {(row["orderId"], row.get("id", 0)): row.get("id", row["orderId"]) for row in page}
            start_ms, pages = page[-1][clock], pages + 1
            if len(page) < 1000:
                break
        assert list(seen.values()) == truth
        assert pages >= 3


async def test_a_full_page_can_lie_within_a_single_millisecond(start: Start) -> None:
    client = await start(history=100, burst=1_500, dialect="full")
    burst_ms = client.sandbox.books.orders_of("BTCUSDT")[700].created_ms
    for name in ("allOrders", "myTrades"):
        page = await client.rows(name, symbol="BTCUSDT", startTime=burst_ms, limit=1000)
        assert [row["time"] for row in page] == [burst_ms] * 1000
        again = await client.rows(name, symbol="BTCUSDT", startTime=burst_ms, limit=1000)
        assert again == page, "asking by time alone never leaves it"


async def test_a_venue_can_insist_on_windows_of_a_day(start: Start) -> None:
    client = await start(history=300, window_only=True, dialect="full")
    truth = client.sandbox.books.orders_of("BTCUSDT")
    first_ms = truth[0].created_ms
    for name in ("allOrders", "myTrades"):
        assert problem(await client.get(name, symbol="BTCUSDT", startTime=first_ms)) == (400, -1127)
        assert problem(await client.get(name, symbol="BTCUSDT", startTime=0, endTime=DAY_MS + 1)) == (400, -1127)
        assert len(await client.rows(name, symbol="BTCUSDT")) > 10
    day = await client.rows("allOrders", symbol="BTCUSDT", startTime=first_ms, endTime=first_ms + DAY_MS)
    assert [row["orderId"] for row in day] == [o.order_id for o in truth if o.created_ms <= first_ms + DAY_MS]
    assert 0 < len(day) < len(truth)


# Money that moves.


MOVE = {"do": "move", "asset": "USDT", "amount": "250.5"}


@pytest.mark.parametrize(
    ("dialect", "fault", "told"),
    [
        ("full", {}, ["balanceUpdate", "outboundAccountPosition"]),
        ("full", {"announce": False}, ["outboundAccountPosition"]),
        ("full", {"announce": False, "position": False}, []),
        ("full", {"position": False}, ["balanceUpdate"]),
        ("documented", {}, ["outboundAccountPosition"]),
        ("documented", {"position": False}, []),
    ],
)
async def test_a_deposit_is_told_as_loudly_as_asked_for(
    start: Start, dialect: str, fault: dict[str, object], told: list[str]
) -> None:
    client = await start(dialect=dialect)
    socket = await client.socket()
    await client.sandbox.fault({**MOVE, **fault})
    await client.sandbox.fault({"do": "server_shutdown"})
    frames_told = await frames(socket, len(told) + 1)
    assert [frame["e"] for frame in frames_told] == [*told, "serverShutdown"]
    for frame in frames_told:
        if frame["e"] == "outboundAccountPosition":
            assert frame["B"] == [{"a": "USDT", "f": "100250.50000000", "l": "0.00000000"}]
    account = await client.rows("account")
    assert {"asset": "USDT", "free": "100250.50000000", "locked": "0.00000000"} in account["balances"]
    [transfer] = (await client.http.get("/sandbox/truth")).json()["transfers"]
    assert (transfer["asset"], transfer["amount"]) == ("USDT", "250.50000000")
    assert account["updateTime"] == transfer["at_ms"]


async def test_a_withdrawal_is_refused_when_it_exceeds_what_is_free(start: Start) -> None:
    client = await start()
    await client.sandbox.fault({**MOVE, "amount": "-100000"})
    assert client.sandbox.books.free("USDT") == 0
    with pytest.raises(ConfigError, match=r"cannot give 0\.00000001 USDT: only 0\.00000000 are free"):
        await client.sandbox.fault({**MOVE, "amount": "-0.00000001"})
    wrong = await client.http.post("/sandbox/fault", json={**MOVE, "amount": "-1"})
    assert wrong.status_code == 400
    assert "cannot give 1.00000000 USDT" in wrong.json()["msg"]
    with pytest.raises(ConfigError, match="amount"):
        await client.sandbox.fault({**MOVE, "amount": "a lot"})
    assert len(client.sandbox.books.movements) == 1


async def test_a_movement_reaches_a_rest_that_lags_when_its_time_comes(start: Start) -> None:
    now_s = [1_000.0]
    client = await start(now_s=lambda: now_s[0])
    await client.sandbox.fault({"do": "rest_lag", "s": 10})
    await client.sandbox.fault({**MOVE, "announce": False, "position": False})
    opening = {"asset": "USDT", "free": "100000.00000000", "locked": "0.00000000"}
    assert opening in (await client.rows("account"))["balances"]
    now_s[0] += 10
    assert opening | {"free": "100250.50000000"} in (await client.rows("account"))["balances"]


# Nonsense.


def differences(told: list[dict[str, Any]], true: list[dict[str, Any]]) -> list[dict[str, tuple[Any, Any]]]:
    """Of each row that differs: field -> (true, told)."""
    pairs = zip(true, told, strict=True)
    return [{name: (a[name], b[name]) for name in a if a[name] != b[name]} for a, b in pairs if a != b]


@pytest.mark.parametrize(
    ("kind", "path", "fields"),
    [
        ("negative_qty", "allOrders", {"origQty", "executedQty"}),
        ("negative_qty", "myTrades", {"qty"}),
        ("nan_price", "allOrders", {"price"}),
        ("nan_price", "myTrades", {"price"}),
        ("shrinking_order", "allOrders", {"origQty", "executedQty", "cummulativeQuoteQty"}),
        ("other_terminal", "allOrders", {"status"}),
        ("id_reuse", "allOrders", {"side", "type"}),
        ("changed_fill", "myTrades", {"price", "quoteQty"}),
    ],
)
async def test_rest_talks_nonsense_of_one_row_so_often_and_the_truth_stays(
    start: Start, kind: str, path: str, fields: set[str]
) -> None:
    client = await start(history=200, dialect="mixed")
    victim = next(o for o in client.sandbox.books.orders_of("BTCUSDT") if o.status == "FILLED")
    asked = {"symbol": "BTCUSDT", "limit": 1000}
    truth, true = client.sandbox.books.truth(), await client.rows(path, **asked)
    fault = {"do": "nonsense", "kind": kind, "path": path, "count": 2, "order_id": victim.order_id}
    await client.sandbox.fault({**fault, "symbol": "BTCUSDT"})
    await client.rows("allOrders", symbol="ETHUSDT")
    for _ in range(2):
        [lie] = differences(await client.rows(path, **asked), true)
        assert set(lie) == fields
    assert await client.rows(path, **asked) == true
    assert client.sandbox.books.truth() == truth


async def test_get_order_and_open_orders_talk_nonsense_too(start: Start) -> None:
    client = await start(history=200, dialect="mixed")
    order = client.sandbox.books.open_orders()[0]
    asked = {"symbol": order.symbol, "orderId": order.order_id}
    true = await client.rows("order", **asked)
    await client.sandbox.fault({"do": "nonsense", "kind": "shrinking_order", "path": "/order"})
    [lie] = differences([await client.rows("order", **asked)], [true])
    assert Decimal(lie["origQty"][1]) * 2 == Decimal(lie["origQty"][0])
    assert await client.rows("order", **asked) == true
    await client.sandbox.fault({"do": "nonsense", "kind": "nan_price", "path": "openOrders"})
    told = await client.rows("openOrders")
    assert [row["price"] for row in told].count("NaN") == 1


@pytest.mark.parametrize(
    ("kind", "dialect", "check"),
    [
        ("negative_qty", "documented", lambda told, fill, order: told["l"] == f"-{fill.qty}"),
        ("nan_price", "documented", lambda told, fill, order: told["L"] == "NaN"),
        (
            "other_terminal",
            "documented",
            lambda told, fill, order: (told["X"], told["l"]) == ("CANCELED", "0.00000000"),
        ),
        ("id_reuse", "documented", lambda told, fill, order: (told["X"], told["S"] == order.side) == ("NEW", False)),
        ("negative_qty", "full", lambda told, fill, order: (told["l"], told["t"]) == (f"-{fill.qty}", fill.trade_id)),
        ("shrinking_order", "full", lambda told, fill, order: Decimal(told["z"]) * 2 == order.executed_qty),
        ("changed_fill", "full", lambda told, fill, order: told["t"] == fill.trade_id and told["L"] != str(fill.price)),
        ("id_reuse", "full", lambda told, fill, order: (told["o"], told["q"]) == ("MARKET", str(order.orig_qty))),
    ],
)
async def test_the_stream_talks_nonsense_in_one_frame(
    start: Start, kind: str, dialect: str, check: Callable[..., bool]
) -> None:
    client = await start(history=200, dialect=dialect)
    socket, books = await client.socket(), client.sandbox.books
    order = next(
        o
        for o in books.orders.values()
        if (o.status, o.type) == ("FILLED", "LIMIT") and len(books.fills_of_order(*o.key)) == 1
    )
    [fill] = books.fills_of_order(*order.key)
    truth = books.truth()
    fault = {"do": "nonsense", "kind": kind, "where": "stream", "symbol": order.symbol, "order_id": order.order_id}
    await client.sandbox.fault(fault)
    [told] = await frames(socket, 1)
    assert (told["e"], told["s"], told["i"]) == ("executionReport", *order.key)
    assert check(told, fill, order), told
    assert client.sandbox.frames_made == 1
    assert books.truth() == truth


async def test_nonsense_that_a_dialect_cannot_say_or_nobody_fits_is_refused(start: Start) -> None:
    client = await start()
    for kind in ("shrinking_order", "changed_fill"):
        with pytest.raises(ConfigError, match=f"documented cannot say {kind}; use the dialect full"):
            await client.sandbox.fault({"do": "nonsense", "kind": kind, "where": "stream"})
    with pytest.raises(ConfigError, match="no myTrades"):
        await client.sandbox.fault({"do": "nonsense", "kind": "changed_fill"})
    with pytest.raises(ConfigError, match="no order or fill yet that could be told as nan_price"):
        await client.sandbox.fault({"do": "nonsense", "kind": "nan_price", "where": "stream"})


# Faults.


async def test_drop_aborts_every_socket_without_a_close_frame_and_a_new_one_works(start: Start) -> None:
    client = await start()
    socket = await client.socket()
    await client.sandbox.fault({"do": "drop"})
    with pytest.raises(ConnectionClosedError) as closed:
        await asyncio.wait_for(socket.recv(), stretched(10))
    assert closed.value.rcvd is None
    await client.sandbox.until(lambda: client.sandbox.sockets == 0)
    again = await client.socket()
    await client.sandbox.step()
    assert await frames(again, 1)


async def test_silence_stops_even_pongs_while_lost_frames_leave_them(start: Start) -> None:
    client = await start()
    silent = await client.socket(ping_interval=None)
    await client.sandbox.fault({"do": "silence"})
    await client.sandbox.step(3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(await silent.ping(), 0.2)
    deaf = await client.socket(ping_interval=None)
    await client.sandbox.fault({"do": "silence", "frames_only": True})
    await client.sandbox.step(3)
    await asyncio.wait_for(await deaf.ping(), stretched(10))
    assert client.sandbox.frames_sent == 0
    assert client.sandbox.frames_made > 0
    silent.transport.abort()


async def test_sockets_are_refused_for_a_while(start: Start) -> None:
    client = await start()
    await client.open_key()
    await client.sandbox.fault({"do": "refuse_ws", "for_s": 60})
    with pytest.raises(InvalidStatus) as refused:
        await client.socket()
    assert refused.value.response.status_code == 503
    await client.sandbox.fault({"do": "refuse_ws", "for_s": 0})
    assert await client.socket()


async def test_frames_are_lost_doubled_and_shuffled(start: Start) -> None:
    client, plain = await start(now_ms=lambda: 1_700_000_000_000), await start(now_ms=lambda: 1_700_000_000_000)
    spoilt, true = await client.socket(), await plain.socket()
    await plain.sandbox.step(20)
    told = await frames(true, plain.sandbox.frames_made)
    for fault in ({"do": "drop_frames", "n": 2}, {"do": "duplicate", "n": 1}):
        await client.sandbox.fault(fault)
    await client.sandbox.step(20)
    assert await frames(spoilt, client.sandbox.frames_sent) == [told[2], *told[2:]]
    await client.sandbox.fault({"do": "reorder", "n": 12})
    sent = client.sandbox.frames_sent
    await plain.sandbox.step(20)
    await client.sandbox.step(20)
    told = await frames(true, plain.sandbox.frames_made - len(told))
    shuffled = await frames(spoilt, client.sandbox.frames_sent - sent)
    assert shuffled[12:] == told[12:]
    assert shuffled != told
    assert sorted(map(str, shuffled)) == sorted(map(str, told))


async def test_frames_held_back_for_shuffling_come_after_all_when_nothing_follows(start: Start) -> None:
    client = await start()
    socket = await client.socket()
    await client.sandbox.fault({"do": "reorder", "n": 1_000})
    await client.sandbox.step()
    assert client.sandbox.frames_sent == 0
    assert len(await frames(socket, client.sandbox.frames_made)) == client.sandbox.frames_made


async def test_garbage_arrives_as_sent_and_the_oversize_frame_costs_the_connection(start: Start) -> None:
    client = await start()
    socket = await client.socket(max_size=1 << 20)
    await client.sandbox.fault({"do": "garbage"})
    raw = [await asyncio.wait_for(socket.recv(decode=False), stretched(10)) for _ in range(7)]
    assert any(b"\xff\xfe" in frame for frame in raw)
    assert any(b"NaN" in frame for frame in raw)
    await client.sandbox.step()
    assert await frames(socket, 1)
    await client.sandbox.fault({"do": "garbage", "kind": "oversize"})
    await client.sandbox.until(lambda: client.sandbox.sockets == 0)
    with pytest.raises(ConnectionClosedError, match="1009"):
        await frames(socket, client.sandbox.frames_made)


async def test_a_key_can_be_made_to_die_aloud_or_in_silence(start: Start) -> None:
    client = await start()
    socket = await client.socket()
    await client.sandbox.fault({"do": "expire_key"})
    assert [frame["e"] for frame in await frames(socket, 1)] == ["listenKeyExpired"]
    second = await client.socket(await client.open_key())
    await client.sandbox.fault({"do": "expire_key", "announce": False})
    await client.sandbox.step()
    await (await second.ping())
    assert client.sandbox.frames_sent == 1


async def test_a_shutdown_is_announced(start: Start) -> None:
    client = await start()
    socket = await client.socket()
    await client.sandbox.fault({"do": "server_shutdown"})
    assert [frame["e"] for frame in await frames(socket, 1)] == ["serverShutdown"]


async def test_rest_answers_are_spoilt_as_scripted_and_then_true_again(start: Start) -> None:
    client = await start()
    await client.sandbox.fault({"do": "rest_status", "status": 503, "count": 2})
    assert [(await client.get("account")).status_code for _ in range(3)] == [503, 503, 200]
    await client.sandbox.fault({"do": "rest_html", "path": "openOrders"})
    assert (await client.get("account")).status_code == 200
    page = await client.get("openOrders")
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    await client.sandbox.fault({"do": "redirect"})
    moved = await client.get("account")
    assert (moved.status_code, moved.headers["location"][:25]) == (302, "https://elsewhere.invalid")
    await client.sandbox.fault({"do": "rest_truncate"})
    with pytest.raises(httpx.RemoteProtocolError, match=r"without sending complete message body"):
        await client.get("account")
    await client.sandbox.fault({"do": "rest_delay", "s": 0.3})
    began_s = time.monotonic()
    assert (await client.get("account")).status_code == 200
    assert time.monotonic() - began_s >= 0.3
    assert [status for *_, status in client.sandbox.calls] == [503, 503, 200, 200, 502, 302, 200, 200]


async def test_a_scripted_429_is_remembered_against_those_who_do_not_wait(start: Start) -> None:
    client = await start()
    await client.sandbox.fault({"do": "rest_status", "status": 429, "retry_after": 30})
    answer = await client.get("account")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert (await client.http.post("/api/v1/userDataStream")).status_code == 429
    assert list(client.sandbox.rest.impolite) == ["POST /api/v1/userDataStream"]
    await client.sandbox.fault({"do": "rest_status", "status": 500})
    assert (await client.get("account")).status_code == 500
    assert len(client.sandbox.rest.impolite) == 2, "a spoilt answer does not hide the sin"


async def test_rest_can_lag_behind_the_stream(start: Start) -> None:
    now_s = [1_000.0]
    client = await start(now_s=lambda: now_s[0])
    await client.sandbox.fault({"do": "rest_lag", "s": 10})
    await client.sandbox.step(50)
    assert await client.rows("allOrders", symbol="BTCUSDT") == []
    now_s[0] += 10
    truth = [order.order_id for order in client.sandbox.books.orders_of("BTCUSDT")]
    assert [row["orderId"] for row in await client.rows("allOrders", symbol="BTCUSDT")] == truth != []
    await client.sandbox.step(50)
    await client.sandbox.fault({"do": "rest_lag", "s": 0})
    truth = [order.order_id for order in client.sandbox.books.orders_of("BTCUSDT")]
    assert [row["orderId"] for row in await client.rows("allOrders", symbol="BTCUSDT")] == truth


async def test_an_order_can_be_denied_for_a_while(start: Start) -> None:
    client = await start()
    await client.sandbox.step(10)
    order = next(iter(client.sandbox.books.orders.values()))
    await client.sandbox.fault({"do": "rest_not_found", "n": 2})
    answers = [await client.get("order", symbol=order.symbol, orderId=order.order_id) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 200]


async def test_the_venues_clock_can_jump(start: Start) -> None:
    client = await start(dialect="full")
    true_ms = client.sandbox.now_ms()
    await client.sandbox.fault({"do": "clock_offset", "ms": 90_000})
    assert problem(await client.get("account", timestamp=true_ms)) == (400, -1021)
    assert (await client.http.get("/api/v1/time")).json()["serverTime"] >= true_ms + 90_000
    told = parsedate_to_datetime((await client.get("account")).headers["date"])
    assert told.timestamp() * 1000 >= true_ms + 89_000, "the Date header tells the same clock"
    [event, *_] = await client.sandbox.step()
    assert event.at_ms >= true_ms + 90_000


async def test_history_calls_can_ignore_what_they_are_asked(start: Start) -> None:
    client = await start(history=300, dialect="mixed")
    truth = [order.order_id for order in client.sandbox.books.orders_of("BTCUSDT")]
    await client.sandbox.fault({"do": "ignore_filters"})
    rows = await client.rows("allOrders", symbol="BTCUSDT", startTime=0, limit=10)
    assert [row["orderId"] for row in rows] == truth[-10:]


async def test_an_unknown_fault_is_refused(start: Start) -> None:
    client = await start()
    with pytest.raises(ConfigError, match="explode"):
        await client.sandbox.fault({"do": "explode"})


# As a program.


async def test_the_truth_and_the_switches_are_there_over_http(start: Start) -> None:
    client = await start(dialect="mixed")
    socket = await client.socket()
    assert (await client.http.post("/sandbox/step?n=25")).json()["events"] >= 25
    truth = (await client.http.get("/sandbox/truth")).json()
    assert truth["dialect"] == "mixed"
    assert len(truth["orders"]) == len(client.sandbox.books.orders)
    assert truth["balances"]["USDT"]["free"] == format(client.sandbox.books.balances["USDT"].free, "f")
    assert (truth["frames_sent"], truth["violations"]) == (client.sandbox.frames_made, [])
    assert (await client.http.post("/sandbox/fault", json={"do": "drop"})).json() == {}
    with pytest.raises(ConnectionClosed):
        await frames(socket, truth["frames_sent"] + 1)
    wrong = await client.http.post("/sandbox/fault", json={"do": "explode"})
    assert wrong.status_code == 400
    assert "explode" in wrong.json()["msg"]
    assert (await client.http.post("/sandbox/step?n=-1")).status_code == 400


async def test_it_trades_by_itself_at_its_rate_until_paused_and_plays_its_script(tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    script.write_text('[{"at_s": 0, "do": "rest_status", "status": 500}]')
    said: asyncio.Queue[str] = asyncio.Queue()
    program = asyncio.create_task(serve(rate=500, faults_path=script, say=said.put_nowait, seed=4))
    lines = (await asyncio.wait_for(said.get(), stretched(10))).splitlines()
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
    own = ["SDX_ACCOUNT", "SDX_DATA_DIR"]
    assert list(settings) == ["SDX_REST_URL", "SDX_STREAM_URL", *own, "SDX_API_KEY", "SDX_API_SECRET"]
    assert settings["SDX_ACCOUNT"].startswith("sandbox-"), "play money has an account of its own"
    assert settings["SDX_ACCOUNT"] in settings["SDX_DATA_DIR"]
    async with httpx.AsyncClient(base_url=settings["SDX_REST_URL"], trust_env=False) as http:
        headers = {"X-SDX-APIKEY": settings["SDX_API_KEY"]}
        assert (await http.post("/api/v1/userDataStream", headers=headers)).status_code == 500
        key = (await http.post("/api/v1/userDataStream", headers=headers)).json()["listenKey"]
        async with connect(f"{settings['SDX_STREAM_URL']}/ws/{key}") as socket:
            assert len(await frames(socket, 50)) == 50
            await http.post("/sandbox/pause")
            paused = (await http.get("/sandbox/truth")).json()
            assert (await http.get("/sandbox/truth")).json()["orders"] == paused["orders"]
            await http.post("/sandbox/resume")
            assert await frames(socket, paused["frames_sent"] - 50 + 10)
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program


async def test_the_program_begins_with_a_history_of_so_many_orders_and_days() -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    program = asyncio.create_task(serve(rate=0, history=300, history_days=10, say=said.put_nowait))
    rest_url = (await asyncio.wait_for(said.get(), stretched(10))).splitlines()[1].split("=", 1)[1]
    async with httpx.AsyncClient(base_url=rest_url, trust_env=False) as http:
        truth = (await http.get("/sandbox/truth")).json()
    assert (len(truth["orders"]), truth["frames_made"]) == (300, 0)
    assert 9 * DAY_MS < truth["now_ms"] - truth["orders"][0]["created_ms"] <= 10 * DAY_MS + 10_000
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program


async def test_a_fault_that_cannot_be_played_is_told_and_the_script_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "faults.json"
    script.write_text('[{"do": "move", "asset": "ABC", "amount": "-1"}, {"do": "rest_status", "status": 500}]')
    said: asyncio.Queue[str] = asyncio.Queue()
    program = asyncio.create_task(serve(rate=0, faults_path=script, say=said.put_nowait))
    rest_url = (await asyncio.wait_for(said.get(), stretched(10))).splitlines()[1].split("=", 1)[1]
    async with httpx.AsyncClient(base_url=rest_url, trust_env=False) as http:
        assert (await http.get("/api/v1/account")).status_code == 500
    assert "cannot give 1.00000000 ABC" in caplog.text
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program


async def test_a_port_that_is_taken_is_one_clear_sentence(start: Start) -> None:
    client = await start()
    with pytest.raises(UsageError, match=rf"cannot listen on port {client.sandbox.port}"):
        await serve(port=client.sandbox.port)


async def test_ten_thousand_frames_a_second_leave_in_order(start: Start) -> None:
    client = await start()
    socket, sandbox = await client.socket(max_queue=None), client.sandbox
    began_s = time.process_time()
    await sandbox.step(4_000)
    took_s = time.process_time() - began_s
    assert sandbox.frames_sent == sandbox.frames_made > 10_000
    told = await frames(socket, sandbox.frames_made)
    clocks = [frame["T"] for frame in told if frame["e"] == "executionReport"]
    assert clocks == sorted(clocks)
    # Our own client shares this processor time; alone the server is more than twice as fast.
    assert sandbox.frames_sent / took_s > 5_000
