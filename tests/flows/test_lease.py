"""The listen-key lease against a real REST server, on a clock moved by hand."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from ledger.errors import KeyRefused, VenueBusy, VenueRefused
from ledger.log import redact
from ledger.stream.lease import ListenKeyLease
from ledger.wire.clock import ManualClock
from ledger.wire.http import VenueHttp
from tests.flows.scripted_http import HANG, ScriptedHttp, reply

KEEPALIVE_S, TTL_S = 1500, 3600
START_MS = 1_717_430_400_000
OK = reply(200, "{}")
UNKNOWN_KEY = reply(400, '{"code":-1125,"msg":"This listenKey does not exist."}')


def key_told(key: str) -> bytes:
    return reply(200, json.dumps({"listenKey": key}))


@dataclass(frozen=True, slots=True)
class Scene:
    """A venue, a clock and a lease on them."""

    server: ScriptedHttp
    clock: ManualClock
    lease: ListenKeyLease

    def said(self) -> list[str]:
        """What the venue was asked, key named: 'PUT first'."""
        return [f"{asked.method} {asked.params.get('listenKey', '')}".rstrip() for asked in self.server.asked]

    async def pass_time(self, seconds: float) -> None:
        """Let time pass once somebody sleeps for exactly that long."""
        await self.clock.until_asleep(seconds)
        self.clock.advance(seconds)


@asynccontextmanager
async def scene(script: Sequence[bytes] = ()) -> AsyncIterator[Scene]:
    clock = ManualClock(START_MS)
    async with ScriptedHttp(script) as server:
        http = VenueHttp(server.url, "api-key", "secret", clock, rng=random.Random(1))
        try:
            yield Scene(server, clock, ListenKeyLease(http, clock, keepalive_s=KEEPALIVE_S, ttl_s=TTL_S))
        finally:
            await http.close()


@asynccontextmanager
async def keeping(lease: ListenKeyLease) -> AsyncIterator[None]:
    task = asyncio.create_task(lease.keep())
    try:
        yield
        assert not task.done(), "it keeps going whatever happens"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --- a key that lives ---------------------------------------------------------------------------------------


async def test_a_key_is_asked_for_and_extended_before_it_lapses() -> None:
    async with scene([key_told("first"), OK, OK]) as s, keeping(s.lease):
        assert (s.lease.key, s.lease.confirmed_ms) == (None, None)
        assert s.lease.expired(s.clock.monotonic_s())

        assert await s.lease.acquire() == "first"
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(2)
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(3)
        await s.clock.until_asleep(KEEPALIVE_S)

        assert s.said() == ["POST", "PUT first", "PUT first"]
        assert s.lease.key == "first"
        assert s.lease.confirmed_ms == START_MS + 2 * KEEPALIVE_S * 1000
        assert not s.lease.expired(2 * KEEPALIVE_S + TTL_S - 1)
        assert s.lease.expired(2 * KEEPALIVE_S + TTL_S)


async def test_asking_again_for_the_active_key_extends_it_and_disturbs_nobody() -> None:
    async with scene([key_told("same"), key_told("same")]) as s:
        await s.lease.acquire()
        waiting = asyncio.create_task(s.lease.wait_lost())
        s.clock.advance(3000)
        assert await s.lease.acquire() == "same"

        assert not s.lease.expired(3000 + TTL_S - 1)
        assert not waiting.done()
        waiting.cancel()


async def test_callers_that_come_together_share_one_question() -> None:
    async with scene([key_told("one"), key_told("two")]) as s:
        assert await asyncio.gather(*(s.lease.acquire() for _ in range(3))) == ["one"] * 3
        assert s.said() == ["POST"]


async def test_callers_that_come_together_for_the_active_key_share_too() -> None:
    async with scene([key_told("same"), key_told("same"), key_told("other")]) as s:
        await s.lease.acquire()
        both = await asyncio.gather(s.lease.acquire(), s.lease.acquire())
        assert list(both) == ["same", "same"]
        assert s.said() == ["POST", "POST"]


async def test_a_keeper_started_anew_extends_when_it_is_due_not_later() -> None:
    async with scene([key_told("first"), OK]) as s:
        async with keeping(s.lease):
            await s.lease.acquire()
            await s.clock.until_asleep(KEEPALIVE_S)
            s.clock.advance(1000)
        async with keeping(s.lease):
            await s.pass_time(500)
            await s.server.until_asked(2)

        assert s.said() == ["POST", "PUT first"]


# --- trouble ------------------------------------------------------------------------------------------------


async def test_a_failed_extension_is_an_alarm_and_tried_again_soon() -> None:
    async with scene([key_told("first"), reply(502, "<html>"), reply(500, "{}"), OK]) as s:
        with capture_logs() as logs:
            async with keeping(s.lease):
                await s.lease.acquire()
                await s.pass_time(KEEPALIVE_S)
                await s.server.until_asked(2)
                await s.pass_time(5)
                await s.server.until_asked(3)
                await s.pass_time(5)
                await s.server.until_asked(4)
                await s.clock.until_asleep(KEEPALIVE_S)

        alarms = [entry for entry in logs if entry["log_level"] == "error"]
        assert [alarm["seconds_left"] for alarm in alarms] == [2100, 2095]
        assert s.lease.confirmed_ms == START_MS + 1_510_000


async def test_a_retry_waits_as_long_as_the_venue_wants() -> None:
    async with scene([key_told("first"), reply(429, "{}", {"Retry-After": "90"}), OK]) as s, keeping(s.lease):
        await s.lease.acquire()
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(2)
        await s.pass_time(90)
        await s.server.until_asked(3)
        await s.clock.until_asleep(KEEPALIVE_S)

        assert s.lease.key == "first"


async def test_a_refused_api_key_is_told_again_and_again_but_not_asked() -> None:
    async with scene([key_told("first"), reply(401, '{"code":-2015,"msg":"no"}')]) as s:
        with capture_logs() as logs:
            async with keeping(s.lease):
                await s.lease.acquire()
                await s.pass_time(KEEPALIVE_S)
                await s.server.until_asked(2)
                await s.pass_time(60)
                await s.clock.until_asleep(60)
                with pytest.raises(KeyRefused):
                    await s.lease.acquire()
                assert s.said() == ["POST", "PUT first"]

                s.lease.retry_key()
                await s.pass_time(60)
                await s.server.until_asked(3)

        assert sum("not extended" in entry["event"] for entry in logs) == 2


async def test_a_key_past_its_deadline_is_lost_though_the_venue_never_said_so() -> None:
    async with scene([key_told("first"), HANG]) as s, keeping(s.lease):
        await s.lease.acquire()
        waiting = asyncio.create_task(s.lease.wait_lost())
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(2)  # the extension hangs
        await s.pass_time(TTL_S - KEEPALIVE_S)

        assert await waiting == "deadline"
        assert s.lease.key is None
        assert s.lease.expired(TTL_S)
        assert s.lease.confirmed_ms == START_MS


async def test_an_extension_that_comes_late_counts_from_when_it_was_asked() -> None:
    async with scene([key_told("first"), reply(500, "{}"), OK]) as s, keeping(s.lease):
        await s.lease.acquire()
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(2)
        await s.pass_time(5)
        await s.server.until_asked(3)
        await s.clock.until_asleep(KEEPALIVE_S)

        assert s.lease.expired(1505 + TTL_S)
        assert not s.lease.expired(1505 + TTL_S - 1)


async def test_a_key_the_venue_no_longer_knows_is_lost_and_the_next_one_is_kept() -> None:
    async with scene([key_told("first"), UNKNOWN_KEY, key_told("second"), OK]) as s, keeping(s.lease):
        await s.lease.acquire()
        waiting = asyncio.create_task(s.lease.wait_lost())
        await s.pass_time(KEEPALIVE_S)

        assert await waiting == "-1125"
        assert s.lease.key is None

        assert await s.lease.acquire() == "second"
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(4)
        assert s.said() == ["POST", "PUT first", "POST", "PUT second"]


async def test_another_key_than_the_one_held_is_told_to_whoever_waits_on_it() -> None:
    async with scene([key_told("first"), key_told("second"), OK]) as s, keeping(s.lease):
        await s.lease.acquire()
        waiting = asyncio.create_task(s.lease.wait_lost())
        await s.clock.until_asleep(KEEPALIVE_S)

        assert await s.lease.acquire() == "second"
        assert await waiting == "replaced"
        assert await s.lease.wait_lost("first") == "replaced"

        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(3)
        assert s.said() == ["POST", "POST", "PUT second"]


async def test_the_venues_word_ends_the_key_and_a_second_word_does_not_end_the_next() -> None:
    async with scene([key_told("first"), key_told("second")]) as s:
        await s.lease.acquire()
        both = asyncio.gather(s.lease.wait_lost(), s.lease.wait_lost("first"))
        await asyncio.sleep(0)
        s.lease.invalidate("listenKeyExpired", "first")
        assert list(await both) == ["listenKeyExpired", "listenKeyExpired"]

        await s.lease.acquire()
        s.lease.invalidate("listenKeyExpired", "first")
        assert s.lease.key == "second"
        s.lease.invalidate("listenKeyExpired")
        assert s.lease.key is None


async def test_the_same_key_may_come_back_after_it_was_lost() -> None:
    async with scene([key_told("same"), key_told("same"), OK]) as s, keeping(s.lease):
        await s.lease.acquire()
        await s.clock.until_asleep(KEEPALIVE_S)
        s.lease.invalidate("serverShutdown")
        assert await s.lease.wait_lost() == "serverShutdown"

        assert await s.lease.acquire() == "same"
        assert s.lease.key == "same"
        await s.pass_time(KEEPALIVE_S)
        await s.server.until_asked(3)


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        '{"listenKey":5}',
        '{"listenKey":""}',
        '{"listenKey":"a/../b"}',
        '{"listenKey":"a b"}',
        '{"listenKey":"."}',
        '{"listenKey":".."}',
        '{"listenKey":"%2e%2e"}',
        '{"listenKey":"a?b"}',
        '{"listenKey":"a\\n"}',
    ],
)
async def test_an_answer_without_a_usable_key_is_asked_for_again(body: str) -> None:
    async with scene([reply(200, body), key_told("first")]) as s:
        with pytest.raises(VenueRefused, match="expected a listen key"):
            await s.lease.acquire()
        assert await s.lease.acquire() == "first"


@pytest.mark.parametrize("key", ["a.b", "...", ".a", "a..b", "A-z_0~9=+"])
async def test_a_key_with_dots_that_names_no_other_path_is_a_key(key: str) -> None:
    async with scene([key_told(key)]) as s:
        assert await s.lease.acquire() == key


async def test_a_question_that_fails_leaves_the_held_key_as_it_is() -> None:
    async with scene([key_told("first"), reply(500, "{}")]) as s:
        await s.lease.acquire()
        with pytest.raises(VenueBusy):
            await s.lease.acquire()
        assert s.lease.key == "first"


# --- the end ------------------------------------------------------------------------------------------------


async def test_release_deletes_the_key_once_and_tells_whoever_waits() -> None:
    async with scene([key_told("first"), OK]) as s:
        await s.lease.release()  # none held: nothing to say
        await s.lease.acquire()
        waiting = asyncio.create_task(s.lease.wait_lost())
        await asyncio.sleep(0)
        await s.lease.release()
        await s.lease.release()

        assert s.said() == ["POST", "DELETE first"]
        assert await waiting == "released"
        assert s.lease.key is None


async def test_a_release_the_venue_does_not_take_is_told() -> None:
    async with scene([key_told("first"), UNKNOWN_KEY]) as s:
        await s.lease.acquire()
        with pytest.raises(VenueRefused):
            await s.lease.release()
        assert s.lease.key is None


async def test_the_key_is_hidden_from_logs_and_texts_as_soon_as_it_is_known() -> None:
    key = "pqia91ma19a5s61cv6a81va65sdf19v8a65a1"
    assert redact(f"connecting with {key}") == f"connecting with {key}"
    async with scene([key_told(key), UNKNOWN_KEY]) as s:
        with capture_logs() as logs:
            async with keeping(s.lease):
                await s.lease.acquire()
                waiting = asyncio.create_task(s.lease.wait_lost())
                await s.pass_time(KEEPALIVE_S)
                await waiting

        assert redact(f"connecting with {key}") == "connecting with ***"
        assert key not in f"{logs} {s.lease!r} {vars(s.lease)}"
        assert [entry["event"] for entry in logs] == ["listen key lost"]
