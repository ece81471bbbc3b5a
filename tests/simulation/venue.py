"""A venue without sockets: the sandbox's market, books and REST API, and a wire between them and each process.

Always holds: an event is in the books before its frames leave; frames of one socket arrive in order unless a fault says
otherwise, and a frame on its way when its socket is cut is lost; faults change what is told, never what is true; what
a killed process had asked may still happen here. HTTP reaches the real ``VenueHttp`` by an ``httpx`` transport, frames
the real ``Connection`` by a stand-in for the library's socket.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from email.utils import formatdate
from random import Random
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close

from ledger.errors import VenueBusy, VenueRefused
from ledger.sandbox.books import PAIRS, Balance, Books, Event, Fill, Movement, Order, Position, Report
from ledger.sandbox.dialects import Dialect, event_json, listen_key_expired_json
from ledger.sandbox.faults import garbage
from ledger.sandbox.market import Market
from ledger.sandbox.rest import DAY_MS, Answer, Call, ListenKeys, Rest, error
from ledger.wire.budget import PACE_S, REQUESTS_PER_S_MAX
from ledger.wire.clock import Clock
from ledger.wire.socket import CLOSE_WAIT_S, Connection, FrameBuffer
from tests.simulation.loop import Process, SimLoop

START_MS = 1_717_372_800_000  # 2024-06-03T00:00:00Z
YEAR_9999_MS = 253_402_300_799_000
API_KEY, API_SECRET = "simulated-key", "simulated-secret"
UNSAID = ("timestamp=", "recvWindow=", "signature=")
"""Of every question, and of no interest."""
REST_URL, STREAM_URL = "http://127.0.0.1:1", "ws://127.0.0.1:1"
ADDRESS = "127.0.0.1"
READ_TIMEOUT_S = 10.0
"""How long the HTTP client waits for bytes; its network layer, which would see to it, is not here."""
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

OrderKey = tuple[str, int]


@dataclass(slots=True)
class Spoilt:
    """What becomes of one REST answer. ``path``: of calls that contain it."""

    kind: str
    path: str = ""
    status: int = 503
    retry_after: int | None = None
    slow_s: float = 0.0


@dataclass(slots=True)
class _Keys(ListenKeys):
    """Listen keys that come from the seed."""

    rng: Random = field(default_factory=Random)

    def open(self, now_s: float) -> str:
        self.key = self.key or f"{self.rng.getrandbits(240):060x}"
        self.deadline_s = now_s + self.ttl_s
        return self.key


class Wire:
    """One socket, both ends of it: what stands for the library's connection in the process, and what the venue holds.

    ``silent``: nothing passes any more, either way. ``deaf``: pings pass, frames are lost.
    """

    def __init__(self, venue: Venue, process: Process, key: str) -> None:
        self.key = key
        self.process = process
        self.silent = False
        self.deaf = False
        self.open = True
        self._venue = venue
        self._on_event: Callable[[], None] | None = None
        self._on_message: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []
        self._over: ConnectionClosed | None = None
        self._lost: asyncio.Future[None] = venue.loop.create_future()
        self._last_due_s = 0.0
        self._all_due_s = 0.0

    @property
    def transport(self) -> Wire:
        return self

    @property
    def protocol(self) -> Wire:
        return self

    # --- the venue's end

    def push(self, raw: bytes, delay_s: float, *, in_order: bool) -> None:
        """Send one frame; it arrives after so many seconds, in its order or as it comes."""
        if not self.open or self.silent or self.deaf:
            return
        due_s = self._venue.loop.time() + delay_s
        if in_order:
            due_s = max(due_s, self._last_due_s)
            self._last_due_s = due_s
        self._all_due_s = max(self._all_due_s, due_s)
        self._at(due_s, self._deliver, raw)

    def hang_up(self, code: int) -> None:
        """Close in good order: what was sent before still arrives."""
        if self.open and not self.silent:
            self.open = False
            due_s = self._goodbye_s()
            self._venue.farewell_s = max(self._venue.farewell_s, due_s)
            self._at(due_s, self._end, ConnectionClosedError(Close(code, ""), Close(code, ""), True))

    def cut(self) -> None:
        """The connection breaks; what is on its way is lost."""
        if self.open and not self.silent:
            self.open = False
            self._at(self._venue.loop.time(), self._end, ConnectionClosedError(None, None))

    # --- the process's end, as the library's connection

    def listen(self, on_event: Callable[[], None], on_message: Callable[[bytes], None]) -> None:
        self._on_event, self._on_message = on_event, on_message
        early, self._early = self._early, []
        for raw in early:
            on_message(raw)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    @property
    def close_exc(self) -> ConnectionClosed:
        assert self._over is not None
        return self._over

    async def ping(self) -> None:
        if self._over is not None:
            raise self._over
        if self.open and not self.silent:
            self._at(self._venue.loop.time() + 2 * self._venue.latency_s(), self._pong)

    async def close(self) -> None:
        await self.process.point("say goodbye")
        said = Close(1000, "")
        heard = self.open and not self.silent
        self.open = self.open and self.silent
        answered_s = self._goodbye_s() + self._venue.latency_s()
        if self._over is None and heard and answered_s <= self._venue.loop.time() + CLOSE_WAIT_S:
            await asyncio.sleep(answered_s - self._venue.loop.time())
            self._end(ConnectionClosedOK(said, said, False))
        elif self._over is None:
            await asyncio.sleep(CLOSE_WAIT_S)
            self._end(ConnectionClosedError(None, said))

    def abort(self) -> None:
        self.open = False
        self._end(ConnectionClosedError(None, None))

    def forget(self) -> None:
        """Its process is dead: the venue soon finds nobody there."""
        self.open = False

    def _at(self, due_s: float, callback: Callable[..., None], *args: Any) -> None:
        self._venue.loop.call_at(due_s, callback, *args, context=self.process.context)

    def _goodbye_s(self) -> float:
        return max(self._all_due_s, self._venue.loop.time() + self._venue.latency_s())

    def _deliver(self, raw: bytes) -> None:
        if self._over is not None or self.silent or self.process.touch("frame comes"):
            return
        self._venue.log(f"frame {self.process.name} {raw[:2000]!r}")
        if len(raw) > 1 << 20:
            self.open = False
            self._end(ConnectionClosedError(None, Close(1009, "")))
            return
        if self._on_message is None:
            self._early.append(raw)
        else:
            self._on_message(raw)
        self._heard()
        self.process.touch("frame came")

    def _pong(self) -> None:
        if self._over is None and not self.silent:
            self._heard()

    def _end(self, why: ConnectionClosed) -> None:
        if self._over is None:
            self._over = why
            self._lost.set_result(None)
            if why.rcvd is not None:
                self._heard()

    def _heard(self) -> None:
        if self._on_event is not None:
            self._on_event()


class Venue:
    """The venue of one seed. Times are virtual; ``latency_s`` is one way over the wire."""

    def __init__(
        self,
        loop: SimLoop,
        rng: Random,
        log: Callable[[str], None],
        market: Market,
        dialect: Dialect,
        *,
        key_ttl_s: float,
        weight_per_minute: int,
        budget: int,
        may_double: Callable[[Event], bool],
    ) -> None:
        self.loop = loop
        self.log = log
        self.market = market
        self.dialect = dialect
        self.rest = Rest(
            dialect, api_key=API_KEY, api_secret=API_SECRET, weight_per_minute=weight_per_minute, ttl_s=key_ttl_s
        )
        self.rest.keys = _Keys(key_ttl_s, rng=rng)
        self.budget = budget
        self.wires: list[Wire] = []
        self.done: Counter[str] = Counter()
        self.impolite: list[str] = []
        """Calls of a process that had been told to be silent."""
        self.silent_until_s: dict[str, float] = {}
        self.spoilt: list[Spoilt] = []
        self.doubling = 0
        self.losing = 0
        self.refused_until_s = 0.0
        self.rest_down_until_s = 0.0
        self.denied_until_s = 0.0
        self.no_key_until_s = 0.0
        self.disorder_until_s = 0.0
        self.late_until_s = 0.0
        self.late_s = 0.0
        self.farewell_s = 0.0
        """Until then sockets that were hung up still bring what was on its way, and nobody can know."""
        self.overtaken_s = 0.0
        """So late come frames that leave now, and those that leave afterwards come before them; 0: in time."""
        self.date_wrong_until_s = 0.0
        self.date_off_ms = 0
        self.odd_until_s = 0.0
        self.odd_every = 1
        """Until then one order of so many cannot be read over REST, nor its trades."""
        self.unreadable = 0
        """So many reports more cannot be read."""
        self.empty_until_s = 0.0
        """Until then fields that only describe are told as nothing or as nonsense."""
        self.former = Books()
        """What the markets whose ids began anew had before."""
        self.twins: set[tuple[str, int]] = set()
        """Orders that had two fills equal in everything the documented stream tells."""
        self._told: set[object] = set()
        self.pushed: set[bytes] = set()
        """Every frame that ever left."""
        self.held: dict[str, list[tuple[int, Balance]]] = defaultdict(list)
        """Every balance that was ever true, by asset and in the order of time, with its first millisecond."""
        for asset, held in market.books.balances.items():
            self.held[asset].append((0, held))
        self._spent: dict[str, deque[tuple[float, int]]] = {}
        self._paced: dict[str, deque[float]] = {}
        self._rng = rng
        self._may_double = may_double
        self._lag_s = 0.0
        self._is_partly_late = False
        self._behind: Books | None = None
        self._to_come: deque[tuple[float, Event]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._last_ms = 0

    @property
    def books(self) -> Books:
        """What is true."""
        return self.market.books

    def now_ms(self) -> int:
        return START_MS + int(self.loop.time() * 1000)

    def date_ms(self) -> int:
        """What the Date header says."""
        wrong = self.loop.time() < self.date_wrong_until_s
        return min(self.now_ms() + (self.date_off_ms if wrong else 0), YEAR_9999_MS)

    def latency_s(self) -> float:
        return self._rng.uniform(0.001, 0.03)

    def truth(self, former: frozenset[OrderKey] = frozenset()) -> dict[str, Any]:
        """Everything a comparison needs, as ``ledger.proof`` takes it.

        ``former``: orders that the mirror has as they were before their ids began anew.
        """
        told = self.rest.truth(self.books, self.now_ms())
        for name, before in self.former.truth().items():
            if name in ("orders", "fills"):
                now, before = cast("list[Any]", told[name]), cast("list[Any]", before)
                told[name] = [row for row in now if (row["symbol"], row["order_id"]) not in former]
                told[name] += [row for row in before if (row["symbol"], row["order_id"]) in former]
        return {"dialect": self.dialect.name, "violations": list(self.rest.violations), **told}

    # --- trading

    def trade(self) -> None:
        """One action, in a millisecond of its own."""
        self._last_ms = max(self._last_ms + 1, self.now_ms())
        self._happened(self.market.step(self._last_ms))

    def _happened(self, events: list[Event]) -> None:
        self.log(f"market {self._last_ms} {len(events)} events")
        for event in events:
            if isinstance(event, Report):
                self._note_twin(event)
            if isinstance(event, Position):
                for asset, held in event.balances:
                    self.held[asset].append((event.at_ms, held))
            if self._behind is not None:
                self._to_come.append((self.loop.time(), event))
            if (frame := event_json(self.dialect, event)) is not None:
                self._publish(msgspec.json.encode(frame), event)

    def amend(self, chance: Random) -> None:
        """Some resting order is left with less, in a millisecond of its own."""
        resting = [one for one in self.books.open_orders() if one.left > PAIRS[one.symbol].step]
        if not resting:
            return
        self._last_ms = max(self._last_ms + 1, self.now_ms())
        order = chance.choice(resting)
        step = PAIRS[order.symbol].step
        less = chance.randint(1, int(order.left // step) - 1) * step
        self.done["order_amended"] += 1
        self._happened(self.market.amend(order, order.orig_qty - less, self._last_ms))

    def hit(self, key: OrderKey, parts: int, times: int = 1) -> None:
        """A resting order is executed in one of so many parts of what is left, ``times`` times in one millisecond."""
        order = self.books.orders[key]
        qty = order.left // PAIRS[order.symbol].step // parts * PAIRS[order.symbol].step
        if not order.is_open or not qty:
            return
        self._last_ms = max(self._last_ms + 1, self.now_ms())
        for _ in range(times):
            self._happened(self.market.hit(self.books.orders[key], qty, self._last_ms))

    def cancel(self, key: OrderKey) -> None:
        """A resting order is canceled, in a millisecond of its own."""
        order = self.books.orders[key]
        if order.is_open:
            self._last_ms = max(self._last_ms + 1, self.now_ms())
            self._happened(self.market.cancel(order, self._last_ms))

    def resting(self, parts: int) -> OrderKey | None:
        """The oldest resting order of which so much is left that each of so many parts is something."""
        orders = self.books.open_orders()
        return next((one.key for one in orders if one.left >= parts * PAIRS[one.symbol].step), None)

    def begin_anew(self, chance: Random, orders: int) -> None:
        """The ids of a market in which nothing happened for days begin anew, and somebody trades there again."""
        busy = {
            one.symbol for one in self.books.orders.values() if one.is_open or one.updated_ms > START_MS - 2 * DAY_MS
        }
        quiet = sorted({one.symbol for one in self.books.orders.values()} - busy)
        if not quiet:
            return
        symbol = chance.choice(quiet)
        before = self.market.relist(symbol)
        self.former.orders |= before.orders
        self.former.fills |= before.fills
        self.fall_behind(0)
        self.done["ids_began_anew"] += 1
        for number in range(orders):
            self.loop.outside(0.01 + 0.3 * number, self._order_in, symbol)

    def _order_in(self, symbol: str) -> None:
        self._last_ms = max(self._last_ms + 1, self.now_ms())
        self._happened(self.market.order_in(symbol, self._last_ms))

    def _note_twin(self, event: Report) -> None:
        if (fill := event.fill) is not None:
            content = (*event.order.key, event.order.status, fill.time_ms, fill.qty, fill.price, fill.fee)
            if content in self._told:
                self.twins.add(event.order.key)
            self._told.add(content)

    def move(self, asset: str, amount: Decimal) -> None:
        """A deposit or withdrawal."""
        self._last_ms = max(self._last_ms + 1, self.now_ms())
        movement = Movement(asset, amount, self._last_ms)
        position = self.books.apply(movement)
        self._happened([movement, *([position] if position else [])])

    def _publish(self, raw: bytes, event: Event) -> None:
        times = 1
        if self.losing:
            self.losing -= 1
            times = 0
            self.done["frame_lost"] += 1
        elif self.doubling and self._may_double(event):
            self.doubling -= 1
            times = 2
            self.done["frame_doubled"] += 1
        if isinstance(event, Report):
            raw = self._oddly(raw, event.order)
        for _ in range(times):
            self.push(raw)

    def _oddly(self, raw: bytes, order: Order) -> bytes:
        """A report that cannot be read, or one whose describing fields are nonsense.

        Of an order that REST rightly has none of nobody else could ever tell: its report can be read.
        """
        told = msgspec.json.decode(raw)
        if self.unreadable and self.rest.hidden(order, self.now_ms()) is None:
            self.unreadable -= 1
            self.done["report_unreadable"] += 1
            ways = ({"l": 7}, {"X": ""}, {"i": str(told["i"])}, {"T": told["T"] * 1000, "E": told["T"] * 1000})
            return msgspec.json.encode(told | self._rng.choice(ways))
        if self.loop.time() < self.empty_until_s and self.dialect.full:
            self.done["fields_empty"] += 1
            return msgspec.json.encode(told | {"f": "", "o": "x" * 65, "m": "no"})
        return raw

    def push(self, raw: bytes) -> None:
        """A frame to every socket of the key that is valid now."""
        self.pushed.add(raw)
        now_s = self.loop.time()
        for wire in self.wires:
            if wire.key != self.rest.keys.key:
                continue
            delay_s = self.latency_s()
            if now_s < self.late_until_s:
                delay_s += self._rng.uniform(0, self.late_s)
            if self.overtaken_s:
                wire.push(raw, self.overtaken_s, in_order=False)
            elif now_s < self.disorder_until_s:
                wire.push(raw, delay_s + self._rng.uniform(0, 0.5), in_order=False)
            else:
                wire.push(raw, delay_s, in_order=True)

    def spread_garbage(self, kind: str) -> None:
        for raw in garbage(kind, self.now_ms()):
            self.push(raw)

    # --- sockets and the listen key

    def subscribed(self) -> bool:
        """Whether a socket of the valid key is up that really hears."""
        return any(wire.key == self.rest.keys.key and not wire.silent and not wire.deaf for wire in self.live())

    def live(self) -> list[Wire]:
        """The sockets that are up, as the venue sees it."""
        self.wires = [wire for wire in self.wires if wire.open]
        return list(self.wires)

    def connect_as(self, process: Process) -> Callable[..., Any]:
        """What stands for ``wire.socket.open_connection`` in that process."""

        async def connect(url: str, buffer: FrameBuffer, clock: Clock, *, silence_s: float) -> Connection:
            await process.point("before handshake")
            told: asyncio.Future[Wire | Exception] = self.loop.create_future()
            self.loop.outside(self.latency_s(), self._shake_hands, process, url.rpartition("/")[2], told)
            wire = await told
            await process.point("after handshake")
            if isinstance(wire, Exception):
                raise wire
            return Connection(cast(Any, wire), buffer, clock, silence_s)

        return connect

    def _shake_hands(self, process: Process, key: str, told: asyncio.Future[Wire | Exception]) -> None:
        answer: Wire | Exception
        if not process.alive:
            return
        if self.loop.time() < self.refused_until_s:
            answer = VenueBusy("stream: not now (HTTP 503); connecting again later")
        elif key != self.rest.keys.key:
            answer = VenueRefused("stream: not let in (HTTP 401)", status=401, code=None)
        else:
            answer = Wire(self, process, key)
            process.on_killed.append(answer.forget)
            self.live()
            self.wires.append(answer)
        self.log(f"handshake {process.name} {type(answer).__name__}")
        self.loop.outside(self.latency_s(), _tell, told, answer)

    def expire_key(self, *, announce: bool) -> None:
        """The key dies; its sockets stay up and never hear anything again."""
        key = self.rest.keys.key
        if key and announce:
            self.push(msgspec.json.encode(listen_key_expired_json(key, self.now_ms())))
        self.rest.keys.key = None

    def _arm_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if self.rest.keys.key:
            left_s = max(0.0, self.rest.keys.deadline_s - self.loop.time())
            self._expiry = self.loop.outside(left_s, self._lapse)

    def _lapse(self) -> None:
        self.expire_key(announce=self._rng.random() < 0.5)

    # --- REST

    def note_manners(self, process: Process, call: Call) -> None:
        """A call leaves its process: is it one that should have waited?"""
        now_s, what = self.loop.time(), f"{process.name} {call.method} {call.path}"
        if now_s < self.silent_until_s.get(process.name, 0.0):
            self.impolite.append(f"{what} at {now_s:.3f} s, told to be silent")
        spent = self._spent.setdefault(process.name, deque())
        while spent and spent[0][0] <= now_s - 60:
            spent.popleft()
        spent.append((now_s, weight_of(call)))
        if call.path not in ("/api/v1/userDataStream", "/api/v1/time"):
            paced = self._paced.setdefault(process.name, deque(maxlen=REQUESTS_PER_S_MAX + 1))
            paced.append(now_s)
            if len(paced) > REQUESTS_PER_S_MAX and now_s - paced[0] < PACE_S - 0.05:
                self.impolite.append(f"{what} at {now_s:.3f} s is number {len(paced)} within a second")
        weight = sum(weight for _, weight in spent)
        if weight > self.budget:
            self.impolite.append(f"{what} at {now_s:.3f} s brings the weight of a minute to {weight}")

    def fall_behind(self, lag_s: float, *, partly: bool = False) -> None:
        """From now on REST knows every event so many seconds late; 0 ends it.

        ``partly``: only some answers are late, as if several machines gave them.
        """
        self._lag_s = lag_s
        self._is_partly_late = partly
        self._behind = self.books.copy() if lag_s > 0 else None
        self._to_come.clear()

    def _rest_books(self) -> Books:
        if self._behind is None:
            return self.books
        while self._to_come and self._to_come[0][0] <= self.loop.time() - self._lag_s:
            self._behind.apply(self._to_come.popleft()[1])
        return self.books if self._is_partly_late and self._rng.random() < 0.5 else self._behind

    def heal(self) -> None:
        """No more trouble from now on."""
        self.spoilt, self.doubling, self.losing, self.unreadable = [], 0, 0, 0
        self.empty_until_s = 0.0
        self.refused_until_s = self.rest_down_until_s = self.disorder_until_s = self.late_until_s = 0.0
        self.date_wrong_until_s = 0.0
        self.denied_until_s = self.no_key_until_s = 0.0
        self.rest.not_found = 0
        self.rest.unlisted = frozenset()
        self.odd_until_s = 0.0
        self.fall_behind(0)

    def _garbled(self, rows: list[Order | Fill]) -> list[Order | Fill]:
        if self.loop.time() >= self.odd_until_s:
            return rows
        odd = [row.order_id % self.odd_every == 0 for row in rows]
        self.done["row_garbled"] += sum(odd)
        return [
            row if not is_odd else replace(row, status="") if isinstance(row, Order) else replace(row, qty=-row.qty)
            for row, is_odd in zip(rows, odd, strict=True)
        ]

    def transport_of(self, process: Process) -> httpx.AsyncBaseTransport:
        """HTTP between that process and the venue."""
        return _Transport(self, process)

    def serve(self, process: Process, call: Call, told: asyncio.Future[Answer | Exception]) -> None:
        """Answer one call that has arrived."""
        if not process.alive and self._rng.random() < 0.5:
            return
        spoilt = next((one for one in self.spoilt if one.path in call.path), None)
        delay_s = self.latency_s()
        if spoilt is not None:
            self.spoilt.remove(spoilt)
            self.done[f"rest_{spoilt.kind}"] += 1
            delay_s += spoilt.slow_s
        answer = self._answer(call, spoilt)
        process.touch(f"served, not answered: {call.method} {call.path}")
        told_kind = answer.status if isinstance(answer, Answer) else type(answer).__name__
        asked = "&".join(part for part in call.query.split("&") if not part.startswith(UNSAID))
        told_kind = f"{told_kind} {spoilt.kind}" if spoilt else told_kind
        self.log(f"http {process.name} {call.method} {call.path} {asked} {told_kind}")
        if spoilt is not None and spoilt.kind == "slow" and spoilt.slow_s > READ_TIMEOUT_S:
            answer, delay_s = httpx.ReadTimeout("simulated"), READ_TIMEOUT_S
        self.loop.outside(delay_s, _tell, told, answer)

    def _answer(self, call: Call, spoilt: Spoilt | None) -> Answer | Exception:
        if self.loop.time() < self.rest_down_until_s:
            return httpx.ConnectError("simulated: connection refused")
        kind = "" if spoilt is None else spoilt.kind
        if spoilt is not None and kind == "status":
            wait = () if spoilt.retry_after is None else (("Retry-After", str(spoilt.retry_after)),)
            code = {429: -1003, 418: -1003, 503: -1008}.get(spoilt.status, -1001)
            return error(spoilt.status, code, "simulated", wait)
        if kind == "html":
            return Answer(502, HTML, (("Content-Type", "text/html"),))
        if spoilt is not None and kind == "odd":
            return Answer(spoilt.status, HTML if spoilt.status == 403 else b'{"success":false}')
        if call.path.endswith("/userDataStream") and call.method == "POST" and self.loop.time() < self.no_key_until_s:
            self.done["key_gone"] += 1
            return Answer(410, HTML, (("Content-Type", "text/html"),))
        if call.path.endswith("/myTrades") and self.loop.time() < self.denied_until_s:
            self.done["trades_denied"] += 1
            return error(401, -2015, "Invalid API-key, IP, or permissions for action.")
        if kind == "broken":
            return httpx.ReadError("simulated")
        answer = self.rest.answer(
            call, self._rest_books(), now_ms=self.now_ms(), now_s=self.loop.time(), telling=self._garbled
        )
        if call.path.endswith("/userDataStream"):
            self._arm_expiry()
        if kind == "lost":
            return httpx.ReadError("simulated")
        if kind == "cut":
            return Answer(answer.status, answer.body, answer.headers, cut=True)
        return answer


WEIGHTS = {"account": 10, "order": 2, "allOrders": 10, "myTrades": 10, "exchangeInfo": 10}


def weight_of(call: Call) -> int:
    """What the venue's pages say a call weighs; 1 where they say nothing."""
    name = call.path.rpartition("/")[2]
    if name == "openOrders":
        return 3 if "symbol=" in call.query else 40
    return WEIGHTS.get(name, 1)


def _tell(told: asyncio.Future[Any], answer: object) -> None:
    if not told.done():
        told.set_result(answer)


class _Body(httpx.AsyncByteStream):
    """A body as it comes in: whole, or half of it and then the end of the connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._answer.body
        yield body[: len(body) // 2] if self._answer.cut else body
        if self._answer.cut:
            raise httpx.RemoteProtocolError("simulated: peer closed connection")


class _Transport(httpx.AsyncBaseTransport):
    """One process's way to the venue's REST API."""

    def __init__(self, venue: Venue, process: Process) -> None:
        self._venue = venue
        self._process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        venue, process = self._venue, self._process
        if not process.alive:
            raise asyncio.CancelledError
        parts = urlsplit(str(request.url))
        await process.point(f"before {request.method} {parts.path}")
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(request.method, parts.path, parts.query, headers, b"", ADDRESS)
        venue.note_manners(process, call)
        told: asyncio.Future[Answer | Exception] = venue.loop.create_future()
        venue.loop.outside(venue.latency_s(), venue.serve, process, call, told)
        answer = await told
        await process.point(f"after {request.method} {parts.path}")
        if isinstance(answer, Exception):
            raise answer
        wait = dict(answer.headers).get("Retry-After")
        if wait is not None and answer.status in (418, 429):
            venue.silent_until_s[process.name] = venue.loop.time() + float(wait) - 0.001
        date = formatdate(venue.date_ms() / 1000, usegmt=True)
        told_headers = [("Date", date), ("Content-Type", "application/json"), *answer.headers]
        return httpx.Response(answer.status, headers=told_headers, stream=_Body(answer))
