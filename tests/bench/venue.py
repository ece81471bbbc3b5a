"""The other side of a bench: a venue of one account whose stream can be loaded, in a process of its own.

``python -m tests.bench.venue`` prints its port. ``POST /bench/load?rate=500&seconds=60`` sends so many frames a second
from then on; ``GET /bench/sent`` answers once the last one has left, and tells how many did and where each one's moment
(CLOCK_MONOTONIC, ns) is written.
REST knows a listen key, no order, no trade and no balance: whatever the mirror knows came over the socket.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qsl

from ledger.sandbox.front import Front, Upkeep
from ledger.sandbox.rest import Answer, Call, error, json
from ledger.sandbox.sockets import framed
from tests.bench.traffic import FRAMES_PER_ORDER, Traffic

KEY = "bench-listen-key"
TICK_S = 0.001
YIELD_EVERY = 1_000
EMPTY = {
    "/api/v1/openOrders": [],
    "/api/v1/allOrders": [],
    "/api/v1/myTrades": [],
    "/api/v1/account": {"balances": []},
    "/api/v1/exchangeInfo": {"symbols": []},
}


class Venue:
    """Frames on demand. ``stamps_file``: where the moments go once a load is over."""

    def __init__(self, stamps_file: Path) -> None:
        self._stamps_file = stamps_file
        self._order = 1
        self._sent = 0
        self._over = asyncio.Event()
        self.front = Front(
            answer=self._answer,
            refusal=lambda key: None if key == KEY else (401, "no such listen key\n"),
            changed=lambda: None,
            now_ms=_now_ms,
            now_s=time.monotonic,
            upkeep=Upkeep(),
        )

    async def _answer(self, call: Call) -> Answer:
        if call.path == "/bench/load":
            wanted = dict(parse_qsl(call.query))
            self._over.clear()
            self.front.spawn(self._load(int(wanted["rate"]), float(wanted["seconds"])))
            return json({})
        if call.path == "/bench/sent":
            await self._over.wait()
            return json({"sent": self._sent, "stamps": str(self._stamps_file)})
        if call.path == "/api/v1/userDataStream":
            return json({"listenKey": KEY} if call.method == "POST" else {})
        if call.path == "/api/v1/time":
            return json({"serverTime": _now_ms()})
        if call.path in EMPTY:
            return json(EMPTY[call.path])
        return error(404, -2013, "Order does not exist.")

    async def _load(self, rate: int, seconds: float) -> None:
        """An open load: what is due leaves, whether or not anybody keeps up.

        The bytes of all frames are made beforehand, so that the venue takes next to nothing of the machine.
        """
        wanted = int(rate * seconds) // FRAMES_PER_ORDER * FRAMES_PER_ORDER
        data, ends = bytearray(), array("q", [0])
        for raw in islice(Traffic(full=True, first_order=self._order, start_ms=_now_ms()).stream(), wanted):
            data += framed(raw)
            ends.append(len(data))
            if len(ends) % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        self._order += wanted // FRAMES_PER_ORDER
        stamps = array("q")
        began_s = time.perf_counter()
        while (sent := len(stamps)) < wanted:
            due = min(wanted, int((time.perf_counter() - began_s) * rate) + 1)
            if due > sent:
                stamps.extend([time.monotonic_ns()] * (due - sent))
                for socket in self.front.sockets:
                    socket.send_framed(data[ends[sent] : ends[due]])
            await asyncio.sleep(TICK_S)
        self._stamps_file.write_bytes(stamps.tobytes())
        self._sent = len(stamps)
        self._over.set()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(stamps_file: Path) -> None:
    venue = Venue(stamps_file)
    await venue.front.start(0)
    print(venue.front.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
