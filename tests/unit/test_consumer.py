"""What the consumer says of itself while frames wait: alive, but nothing more is covered."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from ledger.stream.consumer import FRAMES_PER_CALL_MAX, Consumer, Rules, _Socket
from ledger.wire.clock import ManualClock
from ledger.wire.socket import Connection, Received
from tests.patience import stretched

LAG_S = 10


def consumer(clock: ManualClock, writer: Any = None) -> Consumer:
    rules = Rules("ws://127.0.0.1", silence_s=75, max_age_s=82_800, rest_lag_s=LAG_S)
    return Consumer("main", rules, cast(Any, SimpleNamespace(key=None, confirmed_ms=None)), writer, clock)


async def test_a_drained_live_stream_covers_up_to_the_lag_and_one_that_is_behind_covers_nothing_more() -> None:
    clock = ManualClock()
    it = consumer(clock)
    clock.advance(5)
    assert it._through_ms() is None, "nothing is live before the first socket"

    session = uuid4()
    connection = cast(Connection, SimpleNamespace(session_id=session, heard_s=5.0, opened_ms=clock.venue_now_ms()))
    it._live[session] = _Socket(connection, "key", asyncio.get_running_loop().create_future())
    assert it._through_ms() == clock.venue_now_ms() - LAG_S * 1000
    assert it._through_ms() is None, "said a moment ago"

    clock.advance(1)
    it._buffer.put(Received(session, 1, b"{}", clock.now_ms()))
    assert it._through_ms() == 0, "alive, but a frame waits"

    clock.advance(1)
    it._buffer.take(1)
    assert it._through_ms() == clock.venue_now_ms() - LAG_S * 1000


class Slow:
    """A writer whose calls end when they are let; it tells of each from which frame on and how many it holds."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.turn = asyncio.Semaphore(0)

    async def run(self, work: Any, **_: Any) -> Any:
        return await work(self)

    async def fetchrow(self, _: str, *arguments: Any) -> dict[str, Any]:
        self.calls.put_nowait((arguments[11], arguments[17].count(",") + 1))
        await self.turn.acquire()
        names = ("first_seq", "last_seq", "fills_new", "orders_changed", "others_changed", "repeated", "digest")
        return dict.fromkeys(names)


async def test_the_next_full_call_is_laid_out_while_the_one_before_is_on_its_way() -> None:
    clock, writer, session = ManualClock(), Slow(), uuid4()
    it, full = consumer(clock, writer), FRAMES_PER_CALL_MAX

    async def arrive(first: int, last: int) -> None:
        for number in range(first, last + 1):
            it._buffer.put(Received(session, number, b"{}", clock.now_ms()))
        for _ in range(3):
            await asyncio.sleep(0)

    await arrive(1, 3)
    async with asyncio.timeout(stretched(5)), asyncio.TaskGroup() as tasks:
        tasks.create_task(it._write())
        assert await writer.calls.get() == (1, 3)
        await arrive(4, full + 2)
        assert it._ahead is None, "not a full call yet: what comes now still goes with it"
        await arrive(full + 3, 2 * full + 13)
        assert it._ahead is not None
        assert len(it._buffer) == full + 10

        writer.turn.release()
        assert await writer.calls.get() == (4, full)
        it._stopping = True
        for _ in range(3):
            writer.turn.release()
        assert [await writer.calls.get() for _ in range(2)] == [(full + 4, full), (2 * full + 4, 10)]
