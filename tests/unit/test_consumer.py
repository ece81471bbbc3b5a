"""What the consumer says of itself while frames wait: alive, but nothing more is covered."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from ledger.stream.consumer import Consumer, Rules, _Socket
from ledger.wire.clock import ManualClock
from ledger.wire.socket import Connection, Received

LAG_S = 10


def consumer(clock: ManualClock) -> Consumer:
    rules = Rules("ws://127.0.0.1", silence_s=75, max_age_s=82_800, rest_lag_s=LAG_S)
    return Consumer("main", rules, cast(Any, None), cast(Any, None), clock)


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
