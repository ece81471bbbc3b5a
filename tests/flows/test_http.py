"""The REST client against a real server that says what a venue, a firewall or a broken line would say."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import logging
import random
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate

import pytest

from ledger.errors import (
    ConfigError,
    KeyRefused,
    UnreadableFrame,
    VenueBusy,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from ledger.venue import requests, rest_pages
from ledger.wire import http
from ledger.wire.clock import Clock, ManualClock
from ledger.wire.http import VenueHttp
from tests.flows.scripted_http import HANG, ScriptedHttp, reply, until_closed
from tests.patience import stretched

KEY, SECRET, LISTEN_KEY = "kEy-0123456789", "sEcReT-9876543210", "lIsTeN-abcdef"
HTML = "<html><body>Access denied to /api/v1/account?timestamp=1&signature=abc</body></html>"


@asynccontextmanager
async def client(
    server: ScriptedHttp, clock: ManualClock | None = None, weight_per_minute: int = 600
) -> AsyncIterator[VenueHttp]:
    made = VenueHttp(
        server.url,
        KEY,
        SECRET,
        clock or ManualClock(),
        weight_per_minute=weight_per_minute,
        rng=random.Random(3),
    )
    try:
        yield made
    finally:
        await made.close()


def error_body(code: int, message: str = "no") -> str:
    return json.dumps({"code": code, "msg": message})


def signature_of(query: str) -> str:
    payload, _, _ = query.rpartition("&signature=")
    return hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()


async def refusal(venue: VenueHttp, request: requests.Request | None = None) -> VenueError:
    """The error this question meets."""
    with pytest.raises(VenueError) as caught:
        await venue.send(request or requests.account())
    return caught.value


# --- what is sent -------------------------------------------------------------------------------------------


async def test_what_is_signed_is_what_is_sent() -> None:
    clock = ManualClock(start_ms=1_717_430_400_123)
    async with ScriptedHttp() as server, client(server, clock) as venue:
        await venue.send(requests.query_order("币安人生USDT", 288274))

    (asked,) = server.asked
    assert asked.target == (
        "/api/v1/order?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT&orderId=288274"
        f"&recvWindow=5000&timestamp=1717430400123&signature={asked.params['signature']}"
    )
    assert asked.params["signature"] == signature_of(asked.query)
    assert asked.headers["x-sdx-apikey"] == KEY
    assert asked.headers["accept-encoding"] == "identity", "a compressed answer could unpack without bound"


async def test_each_kind_of_security_sends_no_more_than_it_needs() -> None:
    async with ScriptedHttp() as server, client(server) as venue:
        await venue.send(requests.server_time())
        await venue.send(requests.extend_listen_key(LISTEN_KEY))

    public, key = server.asked
    assert "x-sdx-apikey" not in public.headers
    assert (public.method, public.target) == ("GET", "/api/v1/time")
    assert key.headers["x-sdx-apikey"] == KEY
    assert (key.method, key.target) == ("PUT", f"/api/v1/userDataStream?listenKey={LISTEN_KEY}")


async def test_answer_carries_body_lower_case_headers_and_the_venues_time() -> None:
    clock = ManualClock(start_ms=1000)
    clock.set_offset(500, 20)
    async with (
        ScriptedHttp([reply(200, '{"balances":[]}', {"X-Sdx-Trace": "7"})]) as server,
        client(server, clock) as venue,
    ):
        answer = await venue.send(requests.account())

    assert (answer.status, answer.body) == (200, b'{"balances":[]}')
    assert answer.headers["x-sdx-trace"] == "7"
    assert (answer.asked_ms, answer.answered_ms) == (1500, 1500)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with ScriptedHttp() as server, client(server) as venue:
        assert (await venue.send(requests.account())).status == 200


async def test_a_key_no_header_can_hold_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="SDX_API_KEY") as caught:
        VenueHttp("http://127.0.0.1:9", "ключ с пробелом", SECRET, ManualClock())
    assert "ключ" not in str(caught.value)


# --- weight -------------------------------------------------------------------------------------------------


async def test_a_spent_budget_is_waited_for_and_the_time_is_signed_after_the_wait() -> None:
    clock = ManualClock(start_ms=1_000_000)
    async with ScriptedHttp() as server, client(server, clock, weight_per_minute=15) as venue:
        await venue.send(requests.account())
        second = asyncio.create_task(venue.send(requests.account()))
        assert await clock.until_asleep() == pytest.approx(60)
        assert len(server.asked) == 1
        clock.advance(60)
        await second

    assert [asked.params["timestamp"] for asked in server.asked] == ["1000000", "1060000"]


async def test_calls_wait_in_the_order_they_came() -> None:
    clock = ManualClock()
    async with ScriptedHttp() as server, client(server, clock, weight_per_minute=10) as venue:
        await venue.send(requests.account())
        heavy = asyncio.create_task(venue.send(requests.all_orders("BTCUSDT")))
        await clock.until_asleep()
        light = asyncio.create_task(venue.send(requests.query_order("BTCUSDT", 1)))
        clock.advance(60)
        await heavy
        await clock.until_asleep()
        clock.advance(60)
        await light

    assert [asked.path.rsplit("/")[-1] for asked in server.asked] == ["account", "allOrders", "order"]


async def test_a_listen_key_call_never_queues_behind_a_walk_through_history() -> None:
    clock = ManualClock()
    async with ScriptedHttp() as server, client(server, clock, weight_per_minute=20) as venue:
        await venue.send(requests.account())
        walk = asyncio.create_task(venue.send(requests.all_orders("BTCUSDT")))
        await clock.until_asleep()

        await venue.send(requests.create_listen_key())

        assert [asked.path.rsplit("/")[-1] for asked in server.asked] == ["account", "userDataStream"]
        clock.advance(60)
        await walk


async def test_the_venues_own_count_corrects_ours() -> None:
    async with (
        ScriptedHttp([reply(200, "{}", {"X-Mbx-Used-Weight-1M": "590"})]) as server,
        client(server) as venue,
    ):
        await venue.send(requests.account())

        assert venue.weight_used() == 590
        assert venue.requests == 1


# --- silence ------------------------------------------------------------------------------------------------


async def test_retry_after_binds_every_call_and_is_told_to_be_kept() -> None:
    clock, kept = ManualClock(start_ms=5_000), list[int]()

    async def keep(until_ms: int) -> None:
        kept.append(until_ms)

    async with (
        ScriptedHttp([reply(429, error_body(-1003), {"Retry-After": "7"})]) as server,
        client(server, clock) as venue,
    ):
        venue.on_blocked = keep
        first = await refusal(venue)
        clock.advance(6.5)
        for request in (requests.account(), requests.extend_listen_key(LISTEN_KEY), requests.server_time()):
            later = await refusal(venue, request)
            assert isinstance(later, VenueBusy)
            assert later.retry_after_s == pytest.approx(0.5)
        assert len(server.asked) == 1
        clock.advance(0.5)
        await venue.send(requests.account())

    assert isinstance(first, VenueBusy)
    assert first.retry_after_s == 7
    assert kept == [12_000]


async def test_a_ban_holds_for_the_next_process_too() -> None:
    clock = ManualClock(start_ms=1_000_000_000_000)
    banned = error_body(-1003, "Way too many requests; IP banned until 1000000090000.")
    kept: list[int] = []

    async def keep(until_ms: int) -> None:
        kept.append(until_ms)

    async with ScriptedHttp([reply(418, banned)]) as server:
        async with client(server, clock) as venue:
            venue.on_blocked = keep
            assert "banned" in str(await refusal(venue))
        clock.advance(30)
        async with client(server, clock) as restarted:
            restarted.block_until(kept[0])
            error = await refusal(restarted)
            assert restarted.blocked_for_s() == pytest.approx(60)
            clock.advance(60)
            await restarted.send(requests.account())

    assert isinstance(error, VenueBusy)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (reply(429, HTML), 60),
        (reply(418, ""), 120),
        (reply(429, "{}", {"Retry-After": "in a while"}), 60),
        (reply(200, error_body(-1003)), 60),
        (reply(400, error_body(-1003)), 60),
    ],
)
async def test_silence_that_is_not_spelled_out(answer: bytes, wait_s: float) -> None:
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        error = await refusal(venue)

        assert isinstance(error, VenueBusy)
        assert error.retry_after_s == wait_s
        assert venue.blocked_for_s() == wait_s


async def test_an_overloaded_venue_may_ask_for_silence_too() -> None:
    async with ScriptedHttp([reply(503, HTML, {"Retry-After": "9"})]) as server, client(server) as venue:
        error = await refusal(venue)

        assert isinstance(error, VenueBusy)
        assert (error.retry_after_s, venue.blocked_for_s()) == (9, 9)


# --- what is no answer --------------------------------------------------------------------------------------

NO_ANSWERS = {
    "internal error": reply(500, error_body(-1001)),
    "gateway page": reply(502, HTML, {"Content-Type": "text/html"}),
    "shutting down": reply(400, error_body(-1016)),
    "outcome unknown": reply(200, error_body(-1007)),
    "firewall page": reply(403, HTML, {"Content-Type": "text/html"}),
    "page with status 200": reply(200, HTML),
    "empty": reply(200, ""),
    "no content": b"HTTP/1.1 204 Told\r\n\r\n",
    "created": reply(201, "{}"),
    "bare text": reply(200, "fine"),
    "cut JSON": until_closed(b'[{"symbol":"BTCUSDT","orderId":1},{"symb'),
    "shorter than it says": b'HTTP/1.1 200 Told\r\nContent-Length: 100\r\n\r\n[{"symbol":"BTCUSDT"}]',
    "cut chunk": b'HTTP/1.1 200 Told\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n[{"symbol"',
    "compressed unasked": reply(200, b"\x1f\x8b\x08\x00garbage", {"Content-Encoding": "gzip"}),
    "nested too deep": reply(200, b"[" * 200_000 + b"]" * 200_000),
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n",
    "hung up": b"\r\n",
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_only_whole_json_with_status_200_is_an_answer(answer: bytes) -> None:
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        error = await refusal(venue)

    assert isinstance(error, VenueBusy), error
    assert str(error).startswith("GET /api/v1/account: ")
    assert error.__context__ is None or error.__suppress_context__
    assert venue.last_error == str(error)


async def test_half_a_surrogate_pair_does_not_hide_the_rest_of_a_page() -> None:
    page = b'[{"symbol":"BTCUSDT","clientOrderId":"\\ud800"}]'
    async with ScriptedHttp([reply(200, page)]) as server, client(server) as venue:
        assert (await venue.send(requests.open_orders())).body == page


async def test_nobody_there_is_busy() -> None:
    async with ScriptedHttp() as server:
        pass
    async with client(server) as venue:
        error = await refusal(venue)

    assert isinstance(error, VenueUnreachable)
    assert str(error) == f"cannot reach {server.url} (SDX_REST_URL): connection refused"


async def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CALL_TIMEOUT_S", 0.2)
    async with ScriptedHttp([HANG]) as server, client(server) as venue:
        error = await refusal(venue)

        assert isinstance(error, VenueBusy)
        assert venue.weight_used() == 10, "it may have arrived, so it counts"


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_MAX_BYTES", 100_000)
    async with ScriptedHttp([until_closed(b"[" + b"0," * 60_000)]) as server, client(server) as venue:
        error = await refusal(venue)

    assert isinstance(error, VenueBusy)
    assert "larger than 100000 bytes" in str(error)


def raw_deflate(page: bytes) -> bytes:
    undone = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return undone.compress(page) + undone.flush()


@pytest.mark.parametrize(
    ("coding", "pressed"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
async def test_an_answer_that_comes_compressed_unasked_is_undone(
    coding: str, pressed: Callable[[bytes], bytes]
) -> None:
    page = b'[{"symbol":"BTCUSDT","orderId":1}]' + b" " * 100_000
    answer = reply(200, pressed(page), {"Content-Encoding": coding})
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        assert (await venue.send(requests.open_orders())).body == page


BAD_COMPRESSION = {
    "cannot be undone": (b"\x8b\x03abc", "br", r"the answer is compressed \(br\), though it was asked for as it is"),
    "is none": (b"[]", "gzip", r"the answer says that it is compressed \(gzip\) and is not: "),
    "ends early": (gzip.compress(b"[1]" * 1000)[:-12], "gzip", "the answer is compressed and ends too early"),
}


@pytest.mark.parametrize(("body", "coding", "why"), BAD_COMPRESSION.values(), ids=BAD_COMPRESSION.keys())
async def test_a_compressed_answer_that_cannot_be_undone_says_so(body: bytes, coding: str, why: str) -> None:
    async with ScriptedHttp([reply(200, body, {"Content-Encoding": coding})]) as server, client(server) as venue:
        error = await refusal(venue)

    assert isinstance(error, VenueBusy)
    assert re.match(f"GET /api/v1/account: {why}", str(error))


async def test_a_small_answer_that_unpacks_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_MAX_BYTES", 100_000)
    monkeypatch.setattr(http, "INFLATED_AT_ONCE", 10_000)
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    async with ScriptedHttp([reply(200, bomb, {"Content-Encoding": "gzip"})]) as server, client(server) as venue:
        assert "larger than 100000 bytes" in str(await refusal(venue))


async def test_null_is_the_answer_to_a_question_and_no_word_for_done() -> None:
    """Its reader refuses it by its name; no listen key is extended by it."""
    async with ScriptedHttp([reply(200, "null")] * 2) as server, client(server) as venue:
        question = requests.open_orders()
        answer = await venue.send(question)
        with pytest.raises(UnreadableFrame, match=r"^GET /api/v1/openOrders: expected a list of rows, got null$"):
            rest_pages.read(question, answer.body)

        error = await refusal(venue, requests.extend_listen_key("lk0"))

    assert isinstance(error, VenueBusy)
    assert str(error) == "PUT /api/v1/userDataStream: expected HTTP 200 with JSON, got HTTP 200 with null"


# --- what the venue refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (reply(400, error_body(-1121, "Invalid symbol.")), 400, -1121),
        (reply(200, error_body(-2013, "Order does not exist.")), 200, -2013),
        (reply(403, error_body(-2026, "Archived.")), 403, -2026),
        (reply(404, HTML), 404, None),
        (reply(405, ""), 405, None),
    ],
)
async def test_an_error_of_the_venue_is_for_the_caller(answer: bytes, status: int, code: int | None) -> None:
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        error = await refusal(venue, requests.query_order("BTCUSDT", 5))

    assert type(error) is VenueRefused
    assert (error.status, error.code) == (status, code)
    assert str(error).startswith("GET /api/v1/order BTCUSDT: ")


async def test_an_object_that_merely_has_a_code_is_an_answer() -> None:
    async with ScriptedHttp([reply(200, '{"code":0,"msg":"fine"}')]) as server, client(server) as venue:
        assert (await venue.send(requests.account())).status == 200


async def test_a_redirect_is_named_and_never_followed() -> None:
    async with ScriptedHttp() as elsewhere:
        location = {"Location": f"{elsewhere.url}/login?next=%2Fapi&signature=abcdef"}
        async with ScriptedHttp([reply(307, "", location)]) as server, client(server) as venue:
            error = await refusal(venue)

    assert type(error) is VenueRefused
    assert (error.status, error.code) == (307, None)
    assert "redirected to http://127.0.0.1/login" in str(error)
    assert "abcdef" not in str(error)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (reply(401, HTML), "SDX_API_KEY"),
        (reply(400, error_body(-2014)), "SDX_API_KEY"),
        (reply(401, error_body(-2015)), "SDX_API_KEY"),
        (reply(400, error_body(-1022)), "SDX_API_SECRET"),
        (reply(401, error_body(-1022)), "SDX_API_SECRET"),
    ],
)
async def test_a_refused_key_is_not_tried_again_until_somebody_looked(answer: bytes, hint: str) -> None:
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        first = await refusal(venue)
        again = await refusal(venue, requests.open_orders())

        assert isinstance(first, KeyRefused)
        assert isinstance(again, KeyRefused)
        assert hint in str(first)
        assert len(server.asked) == 1

        venue.retry_key()
        assert (await venue.send(requests.account())).status == 200


DENIED = [reply(401, HTML), reply(401, error_body(-2015)), reply(400, error_body(-2014)), reply(400, error_body(-2015))]


@pytest.mark.parametrize("answer", DENIED)
@pytest.mark.parametrize("request_", [requests.my_trades("BTCUSDT"), requests.exchange_info(), requests.server_time()])
async def test_a_call_that_not_every_key_may_make_says_nothing_of_the_key(
    answer: bytes, request_: requests.Request
) -> None:
    async with ScriptedHttp([answer]) as server, client(server) as venue:
        refused = await refusal(venue, request_)
        assert isinstance(refused, VenueRefused)
        assert not isinstance(refused, KeyRefused)
        assert "not offered" in str(refused)
        assert (await venue.send(requests.account())).status == 200, "everything else goes on"


@pytest.mark.parametrize(
    "request_",
    [
        requests.account(),
        requests.open_orders("BTCUSDT"),
        requests.all_orders("BTCUSDT"),
        requests.query_order("BTCUSDT", 7),
        requests.create_listen_key(),
    ],
)
async def test_a_call_that_every_key_may_make_proves_the_key(request_: requests.Request) -> None:
    async with ScriptedHttp([reply(401, error_body(-2015))]) as server, client(server) as venue:
        assert isinstance(await refusal(venue, request_), KeyRefused)


async def test_the_listen_key_is_asked_for_though_a_signed_call_was_refused_and_the_other_way_round() -> None:
    denied = reply(401, error_body(-2015))
    async with ScriptedHttp([denied, reply(200, "{}"), denied, reply(200, "{}")]) as server, client(server) as venue:
        assert isinstance(await refusal(venue), KeyRefused)
        assert (await venue.send(requests.extend_listen_key(LISTEN_KEY))).status == 200
        assert isinstance(await refusal(venue, requests.create_listen_key()), KeyRefused)
        venue.retry_key("signed")
        assert (await venue.send(requests.account())).status == 200
        assert isinstance(await refusal(venue, requests.create_listen_key()), KeyRefused), "still not asked"
        assert len(server.asked) == 4


async def test_answers_to_anything_but_the_listen_key_are_counted_and_waited_for() -> None:
    script = [reply(200, '{"listenKey":"k"}'), reply(500, "{}"), reply(200, "{}")]
    async with ScriptedHttp(script) as server, client(server) as venue:
        waiting = asyncio.create_task(venue.until_answered(0))
        await venue.send(requests.create_listen_key())
        await refusal(venue)
        assert (venue.answers, waiting.done()) == (0, False)
        await venue.send(requests.account())
        await asyncio.wait_for(waiting, stretched(5))
        await venue.until_answered(0)


# --- the clock ----------------------------------------------------------------------------------------------


async def test_a_clock_that_is_off_is_measured_and_the_question_signed_again() -> None:
    clock = ManualClock(start_ms=1_000_000)
    time_told = reply(200, '{"serverTime":1090500}')
    script = [reply(400, error_body(-1021)), time_told, time_told, reply(200, '{"balances":[]}')]
    async with ScriptedHttp(script) as server, client(server, clock) as venue:
        answer = await venue.send(requests.account())

    assert answer.body == b'{"balances":[]}'
    assert clock.offset_ms == 90_500
    first, *_, second = server.asked
    assert (first.params["timestamp"], second.params["timestamp"]) == ("1000000", "1090500")
    assert second.params["signature"] == signature_of(second.query)


async def test_without_a_time_endpoint_the_date_header_tells_within_a_second() -> None:
    clock = ManualClock(start_ms=1_717_430_400_000 + 30_000)  # half a minute fast
    dated = reply(404, HTML, {"Date": "Mon, 03 Jun 2024 16:00:00 GMT"})
    async with ScriptedHttp([dated, dated]) as server, client(server, clock) as venue:
        assert await venue.measure_offset() == -29_500

    assert clock.venue_now_ms() == 1_717_430_400_500


async def test_the_first_answer_shows_a_clock_that_is_far_off_and_is_dated_right_itself() -> None:
    clock = ManualClock(start_ms=1_717_430_400_000)
    stamped = reply(200, '{"listenKey":"k"}', {"Date": "Mon, 03 Jun 2024 15:58:30 GMT"})  # 90 s before our clock
    async with ScriptedHttp([stamped]) as server, client(server, clock) as venue:
        answer = await venue.send(requests.create_listen_key())
        assert (clock.offset_ms, answer.asked_ms) == (-89_500, 1_717_430_310_500)


async def test_a_date_that_is_merely_rounded_or_came_from_a_cache_moves_nothing() -> None:
    clock = ManualClock(start_ms=1_717_430_400_000)
    rounded = reply(200, "{}", {"Date": "Mon, 03 Jun 2024 15:59:58 GMT"})
    cached = reply(200, "{}", {"Date": "Mon, 03 Jun 2024 12:00:00 GMT", "Age": "14400"})
    async with ScriptedHttp([rounded, cached]) as server, client(server, clock) as venue:
        await venue.send(requests.account())
        await venue.send(requests.account())
        assert clock.offset_ms == 0


async def test_two_answers_that_show_the_same_wrong_clock_correct_it_once() -> None:
    """The second was asked before the first had set the clock right."""
    clock = ManualClock(start_ms=1_717_430_400_000)
    stamped = reply(200, "{}", {"Date": "Mon, 03 Jun 2024 15:58:30 GMT"})
    async with ScriptedHttp([stamped, stamped]) as server, client(server, clock) as venue:
        both = await asyncio.gather(venue.send(requests.create_listen_key()), venue.send(requests.create_listen_key()))
    assert clock.offset_ms == -89_500
    assert [answer.asked_ms for answer in both] == [1_717_430_310_500] * 2


async def test_setting_this_machines_clock_does_not_move_the_venues() -> None:
    clock = ManualClock(start_ms=1_000_000)
    assert clock.venue_now_ms() == 1_000_000
    clock.jump(90_000)
    clock.advance(2.5)
    assert (clock.now_ms(), clock.venue_now_ms()) == (1_092_500, 1_002_500)


async def test_of_two_round_trips_the_shorter_tells_the_time() -> None:
    clock = ManualClock(start_ms=1_000_000)

    def told(server_ms: int, took_s: float) -> bytes:
        clock.advance(took_s)
        return reply(200, json.dumps({"serverTime": server_ms}))

    slow, quick = lambda: told(1_005_900, 2.0), lambda: told(1_007_050, 0.1)
    async with ScriptedHttp([slow, quick]) as server, client(server, clock) as venue:
        assert await venue.measure_offset() == 5_000, "the middle of 1,002,000 and 1,002,100 is 1,002,050"

    assert clock.error_ms == 50


async def test_a_clock_knows_how_far_off_it_may_be() -> None:
    clock = Clock()
    assert clock.error_ms == 2000, "nobody measured"
    told = reply(200, json.dumps({"serverTime": clock.now_ms() + 5000}))
    async with ScriptedHttp([told, told]) as server, client(server, clock) as venue:
        await venue.measure_offset()
        assert clock.error_ms < 500
    dated = reply(404, HTML, {"Date": formatdate(clock.now_ms() / 1000 + 5, usegmt=True)})
    async with ScriptedHttp([dated, dated]) as server, client(server, clock) as venue:
        await venue.measure_offset()
        assert 500 <= clock.error_ms < 1000, "whole seconds"


def dated_at(clock: ManualClock, off_s: float, body: str = "{}") -> bytes:
    """An answer whose Date is off by so much."""
    return reply(200, body, {"Date": formatdate(clock.now_ms() / 1000 + off_s, usegmt=True)})


async def test_one_wrong_date_is_asked_about_at_once_and_moves_nothing() -> None:
    clock = ManualClock()
    time_told = lambda: reply(200, json.dumps({"serverTime": clock.now_ms()}))  # noqa: E731 - told when it is asked
    async with ScriptedHttp([dated_at(clock, 7200), time_told, time_told]) as server, client(server, clock) as venue:
        answer = await venue.send(requests.account())

    assert [asked.path for asked in server.asked] == ["/api/v1/account", "/api/v1/time", "/api/v1/time"]
    assert (clock.offset_ms, clock.is_doubted) == (0, False)
    assert answer.asked_ms == clock.now_ms()


@pytest.mark.parametrize("off_s", [7200, 251_000_000_000])
async def test_dates_that_are_wrong_for_seconds_and_all_agree_move_nothing(off_s: int) -> None:
    clock = ManualClock()
    wrong = lambda: reply(404, HTML, {"Date": f"Fri, 31 Dec 9999 23:59:{clock.monotonic_s() % 60:02.0f} GMT"})  # noqa: E731
    if off_s == 7200:
        wrong = lambda: dated_at(clock, off_s)  # noqa: E731 - told when it is asked
    async with ScriptedHttp([dated_at(clock, 0), *[wrong] * 20]) as server, client(server, clock) as venue:
        await venue.send(requests.account())
        for _ in range(5):
            clock.advance(1)
            with suppress(VenueError):
                await venue.send(requests.account())
        assert (clock.offset_ms, clock.is_doubted) == (0, True)
        server.script.clear()
        server.script.append(dated_at(clock, 0))
        await venue.send(requests.account())
        assert (clock.offset_ms, clock.is_doubted, clock.steps_back) == (0, False, 0)


async def test_a_machine_whose_clock_is_hours_behind_signs_right_and_is_believed_once_the_venue_refused_it() -> None:
    clock = ManualClock()
    refused = reply(400, error_body(-1021))
    script = [refused, dated_at(clock, 7200), dated_at(clock, 7200), reply(200, '{"balances":[]}')]
    async with ScriptedHttp(script) as server, client(server, clock) as venue:
        await venue.send(requests.account())

    assert abs(int(server.asked[-1].params["timestamp"]) - clock.now_ms() - 7_200_000) <= 1000
    assert abs(clock.offset_ms - 7_200_000) <= 1000


async def test_a_wrong_date_that_the_venue_itself_refuses_is_neither_believed_nor_signed_by() -> None:
    """The Date is two hours ahead for a while; what is signed by it the venue, whose clock is right, refuses."""
    clock = ManualClock()
    wrong = lambda: dated_at(clock, 7200, '{"balances":[]}')  # noqa: E731 - told when it is asked
    refused = reply(400, error_body(-1021), {"Date": formatdate(clock.now_ms() / 1000 + 7200, usegmt=True)})
    async with ScriptedHttp([*[wrong] * 3, refused, *[wrong] * 3]) as server, client(server, clock) as venue:
        clock.vouch("this machine", clock.now_ms())
        clock.set_offset(0, 0)
        await venue.send(requests.account())
        await venue.send(requests.account())

    asked = [one for one in server.asked if "timestamp" in one.params]
    off_s = [round((int(one.params["timestamp"]) - clock.now_ms()) / 1000) for one in asked]
    assert off_s == [0, pytest.approx(7200, abs=1), 0]
    assert clock.offset_ms == 0


async def test_a_measured_clock_is_corrected_not_doubled() -> None:
    clock = ManualClock(start_ms=1_000_000)
    clock.set_offset(4_000, 10)
    told = reply(200, '{"serverTime":1005000}')
    async with ScriptedHttp([told, told]) as server, client(server, clock) as venue:
        assert await venue.measure_offset() == 5_000


async def test_a_clock_that_stays_off_is_not_asked_about_for_ever() -> None:
    off = reply(400, error_body(-1021))
    told = reply(200, '{"serverTime":1717430400000}')
    async with ScriptedHttp([off, told, told, off, off, off]) as server, client(server) as venue:
        error = await refusal(venue)

    assert type(error) is VenueRefused
    assert error.code == -1021
    assert len(server.asked) == 4


@pytest.mark.parametrize("body", ['{"serverTime":"soon"}', '{"serverTime":-5}', "[]", HTML])
async def test_a_time_that_is_none_is_not_believed(body: str) -> None:
    clock = ManualClock()
    async with ScriptedHttp([reply(200, body)]) as server, client(server, clock) as venue:
        with pytest.raises(VenueBusy, match="told no time"):
            await venue.measure_offset()

    assert clock.offset_ms == 0


# --- patience -----------------------------------------------------------------------------------------------


async def test_patience_waits_as_long_as_the_venue_wants() -> None:
    clock = ManualClock()
    script = [reply(500, "{}"), reply(429, "{}", {"Retry-After": "40"}), reply(200, "[]")]
    async with ScriptedHttp(script) as server, client(server, clock) as venue:
        asking = asyncio.create_task(venue.send_patiently(requests.open_orders("BTCUSDT")))
        first_s = await clock.until_asleep()
        clock.advance(first_s)
        await server.until_asked(2)
        second_s = await clock.until_asleep()
        clock.advance(second_s)
        answer = await asking

    assert 1 <= first_s <= 2
    assert second_s == pytest.approx(40)
    assert answer.body == b"[]"


async def test_patience_ends_after_its_attempts() -> None:
    clock = ManualClock()
    async with ScriptedHttp([reply(500, "{}")] * 9) as server, client(server, clock) as venue:
        asking = asyncio.create_task(venue.send_patiently(requests.account(), attempts=3))
        for _ in range(2):
            clock.advance(await clock.until_asleep())
        with pytest.raises(VenueBusy):
            await asking

    assert len(server.asked) == 3


async def test_patience_starts_nothing_after_its_deadline() -> None:
    clock = ManualClock()
    async with ScriptedHttp([reply(503, "{}", {"Retry-After": "31"})]) as server, client(server, clock) as venue:
        with pytest.raises(VenueBusy):
            await venue.send_patiently(requests.account(), deadline_s=30)

    assert len(server.asked) == 1


async def test_patience_is_not_for_refusals() -> None:
    async with ScriptedHttp([reply(400, error_body(-1121))]) as server, client(server) as venue:
        with pytest.raises(VenueRefused):
            await venue.send_patiently(requests.account())

    assert len(server.asked) == 1


# --- secrets ------------------------------------------------------------------------------------------------


async def test_nothing_secret_is_in_a_message_or_a_log_line_even_at_debug(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []

    def echoing(status: int, code: int) -> bytes:
        echo = f"key {KEY} secret {SECRET} at /x?listenKey={LISTEN_KEY} with {'ab' * 32} signature=cafe1234"
        return reply(status, error_body(code, echo))

    script = [echoing(400, -1100), echoing(500, -1000), echoing(400, -1125), HANG, echoing(401, -2015)]
    async with ScriptedHttp(script) as server, client(server) as venue:
        told.append(str(await refusal(venue)))
        told.append(str(await refusal(venue)))
        told.append(str(await refusal(venue, requests.extend_listen_key(LISTEN_KEY))))
        hanging = asyncio.create_task(venue.send(requests.delete_listen_key(LISTEN_KEY)))
        await server.until_asked(4)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        told.append(str(await refusal(venue)))
        sent = [asked.params.get("signature") for asked in server.asked]

    printed = capsys.readouterr()
    seen = "\n".join([*told, caplog.text, printed.out, printed.err])
    signatures = [signature for signature in sent if signature]
    assert len(signatures) == 3
    assert "GET /api/v1/account" in seen
    for secret in (KEY, SECRET, LISTEN_KEY, "ab" * 32, "cafe1234", *signatures, "timestamp="):
        assert secret not in seen
