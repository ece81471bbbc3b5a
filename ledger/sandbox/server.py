"""The sandbox server: the API at the front door, a market behind it, faults in between.

``Sandbox`` runs inside a test or the demo and is driven by ``step``; ``serve`` runs it as a program that
trades by itself. Either way the truth can be read, in process from ``books`` and over HTTP from
``/sandbox/truth``.

Always holds: an event is in the books before its frames leave; every socket of the valid listen key gets
every frame, in the order it happened; after ``stop`` nothing of the sandbox runs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import shlex
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import assert_never
from urllib.parse import parse_qsl

import msgspec

from ledger.errors import ConfigError, UsageError
from ledger.sandbox import faults, nonsense
from ledger.sandbox.books import Books, Event, Movement, Order, Position
from ledger.sandbox.dialects import dialect_named, event_json, listen_key_expired_json
from ledger.sandbox.front import HOST, Front, Upkeep
from ledger.sandbox.market import Market, live_through
from ledger.sandbox.rest import DAY_MS, Answer, Call, Rest, error, json
from ledger.sandbox.state import Action, Beginning, Hit, Moved, State, Stepped, opened

API_KEY, API_SECRET = "sandbox-key", "sandbox-secret"
"""What a client signs with unless told otherwise; they open nothing but a sandbox."""
HELD_FRAMES_S = 1.0
TRADE_TICK_S = 0.01
STEP_MAX = 1_000_000
_LOG = logging.getLogger(__name__)
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class Sandbox:
    """One venue with one account. Times are handed in as ``now_ms`` (ms UTC) and ``now_s`` (steady seconds).

    ``rate`` is actions per second once started; 0 trades by ``step`` alone. ``history`` orders are made up before the
    start, spread over ``history_days``, ``burst`` of them within one millisecond. With ``window_only`` a history call
    must bound its window on both sides. ``state``: the past the market has, in place of ``seed`` and history, and where
    what happens from now on is kept. Raises UsageError for a dialect that does not exist.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        dialect: str = "documented",
        position_clock: bool = True,
        api_key: str = API_KEY,
        api_secret: str = API_SECRET,
        rate: float = 0.0,
        history: int = 0,
        history_days: int = 90,
        burst: int = 0,
        window_only: bool = False,
        script: Sequence[faults.Fault] = (),
        state: State | None = None,
        weight_per_minute: int = 1200,
        ping_every_s: float = 20.0,
        pong_timeout_s: float = 60.0,
        listen_key_ttl_s: float = 3600.0,
        connection_max_age_s: float = 86_400.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dialect = dialect_named(dialect, position_clock=position_clock)
        self.api_key, self.api_secret = api_key, api_secret
        self.state = state
        self.market = Market(seed if state is None else state.beginning.seed)
        self.faults = faults.Switches(seed)
        self.rest = Rest(
            self.dialect,
            api_key=api_key,
            api_secret=api_secret,
            weight_per_minute=weight_per_minute,
            ttl_s=listen_key_ttl_s,
            window_only=window_only,
        )
        self.calls: deque[tuple[str, str, int]] = deque(maxlen=10_000)
        """The last API calls: method, path, status answered."""
        self.frames_made = 0
        """Frames the market gave rise to, whatever became of them."""
        self.frames_sent = 0
        """Frames that left, counted once per socket."""
        self._rate = rate
        self._script = script
        self._clock_ms, self._now_s = now_ms, now_s
        self._clock_offset_ms = 0
        self._refuse_ws_until_s = 0.0
        self._lag_s = 0.0
        self._behind: Books | None = None
        self._to_come: deque[tuple[float, Event]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._trading = asyncio.Event()
        self._trading.set()
        self._changed = asyncio.Event()
        self._front = Front(
            answer=self._answer,
            refusal=self._refusal,
            changed=self._signal,
            now_ms=self.now_ms,
            now_s=now_s,
            upkeep=Upkeep(ping_every_s, pong_timeout_s, connection_max_age_s),
        )
        if state is not None:
            state.relive(self.market)
            return
        until_ms = self.now_ms()
        live_through(self.market, history, until_ms - history_days * DAY_MS, until_ms, burst=burst)

    # The control surface.

    @property
    def books(self) -> Books:
        """The truth. Orders by (symbol, id), fills by (symbol, order id, trade id), balances by asset."""
        return self.market.books

    @property
    def port(self) -> int:
        """Where it listens; 0 before ``start``."""
        return self._front.port

    @property
    def rest_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://{HOST}:{self.port}"

    @property
    def sockets(self) -> int:
        """How many sockets are open on the valid listen key."""
        return sum(socket.is_open and socket.key == self.rest.keys.key for socket in self._front.sockets)

    @property
    def sockets_opened(self) -> int:
        """How many sockets were ever let in."""
        return self._front.sockets_opened

    @property
    def violations(self) -> list[str]:
        """Calls that could have traded."""
        return list(self.rest.violations)

    def now_ms(self) -> int:
        """The venue's clock, jumps included."""
        return self._clock_ms() + self._clock_offset_ms

    async def start(self, port: int = 0) -> None:
        """Listen on ``port`` (0: any free one) and begin the script and the trading."""
        await self._front.start(port)
        if self._script:
            self._front.spawn(self._play())
        if self._rate > 0:
            self._front.spawn(self._trade())

    async def stop(self) -> None:
        """Close everything; safe to call twice."""
        if self._expiry:
            self._expiry.cancel()
        await self._front.stop()

    def pause(self) -> None:
        """Stop trading by itself; ``step`` goes on working."""
        self._trading.clear()
        self._push(self.faults.release())

    def resume(self) -> None:
        self._trading.set()

    async def step(self, n: int = 1) -> list[Event]:
        """Do ``n`` actions now and push their frames. Returns their events."""
        events: list[Event] = []
        for _ in range(n):
            now_ms = self.now_ms()
            self._keep(Stepped(now_ms))
            happened = self.market.step(now_ms)
            events += happened
            self._publish(happened)
            await asyncio.sleep(0)  # clients in the same loop must get to read
        return events

    def hit(self, key: tuple[str, int], qty: Decimal) -> Order:
        """Let somebody take ``qty`` of a resting order, (symbol, order id), and push the frames. Returns it after."""
        now_ms = self.now_ms()
        self._keep(Hit(now_ms, *key, qty))
        self._publish(self.market.hit(self.books.orders[key], qty, now_ms))
        return self.books.orders[key]

    async def until(self, true: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for a condition; it is looked at again after every call, socket and fault. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not true():
                await self._changed.wait()

    async def fault(self, spec: Mapping[str, object]) -> None:
        """Play one fault now, whatever its ``at_s``. Raises ConfigError when it does not exist."""
        self._play_one(faults.fault_from(spec))

    def truth(self) -> dict[str, object]:
        """Everything a comparison needs, as JSON can carry it."""
        return {
            "dialect": self.dialect.name,
            "now_ms": self.now_ms(),
            "frames_made": self.frames_made,
            "frames_sent": self.frames_sent,
            "sockets": self.sockets,
            "violations": self.violations,
            "impolite": list(self.rest.impolite),
            **self.rest.truth(self.books, self.now_ms()),
        }

    def _keep(self, action: Action) -> None:
        if self.state is not None:
            self.state.note(action)

    # Frames.

    def _publish(self, events: Sequence[Event], *, untold: tuple[type[Event], ...] = ()) -> None:
        for event in events:
            if self._behind:
                self._to_come.append((self._now_s(), event))
            if not isinstance(event, untold):
                self._tell(event)

    def _tell(self, event: Event) -> None:
        if frame := event_json(self.dialect, event):
            self.frames_made += 1
            self._push(self.faults.frames(msgspec.json.encode(frame)))

    def _push(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            for socket in self._front.sockets:
                if socket.key == self.rest.keys.key:
                    self.frames_sent += socket.send(payload)

    async def _trade(self) -> None:
        """So many actions a second; what a slow moment missed is caught up within the next."""
        due, last_s = 0.0, self._now_s()
        while True:
            await asyncio.sleep(TRADE_TICK_S)
            now_s = self._now_s()
            elapsed_s, last_s = min(now_s - last_s, 1.0), now_s
            if not self._trading.is_set():
                await self._trading.wait()
                due, last_s = 0.0, self._now_s()
                continue
            due += elapsed_s * self._rate
            while due >= 1 and self._trading.is_set():  # a pause holds at once, also in the middle of a rush
                await self.step()
                due -= 1

    # Faults.

    async def _play(self) -> None:
        started_s = self._now_s()
        for one in self._script:
            await asyncio.sleep(max(0.0, one.at_s - (self._now_s() - started_s)))
            try:
                self._play_one(one)
            except ConfigError as wrong:
                _LOG.error("%s The script goes on without that fault.", wrong)

    def _play_one(self, one: faults.Fault) -> None:
        match one:
            case faults.Drop():
                self._drop()
            case faults.Silence():
                self._silence(one)
            case faults.RefuseWs():
                self._refuse_ws_until_s = self._now_s() + one.for_s
            case faults.DropFrames():
                self.faults.drop_frames = one.n
            case faults.Duplicate():
                self.faults.duplicate = one.n
            case faults.Reorder():
                self.faults.shuffle_next(one.n)
                asyncio.get_running_loop().call_later(HELD_FRAMES_S, lambda: self._push(self.faults.release()))
            case faults.Garbage():
                self._push(faults.garbage(one.kind, self.now_ms()))
            case faults.ExpireKey():
                self._expire_key(announce=one.announce)
            case faults.ServerShutdown():
                self._push([msgspec.json.encode({"e": "serverShutdown", "E": self.now_ms()})])
            case faults.ClockOffset():
                self._clock_offset_ms = one.ms
            case faults.RestLag():
                self._fall_behind(one.s)
            case faults.RestNotFound():
                self.rest.not_found = one.n
            case faults.RestForgets():
                self.rest.hides_rejected, self.rest.archived_after_s = one.rejected, one.after_s
            case faults.OddEndings():
                self.market.odd_endings = one.n
            case faults.IgnoreFilters():
                self.rest.ignore_filters = one.on
            case faults.Pages():
                self.rest.rows_max, self.rest.refuses_limits = one.rows, one.refuse
            case faults.History():
                self.rest.history_days, self.rest.refuses_age = one.days, one.refuse
            case faults.RefuseMarket(code=None):
                self.rest.refused.pop(one.symbol, None)
            case faults.RefuseMarket():
                assert one.code is not None
                self.rest.refused[one.symbol] = one.code
            case faults.Move():
                self._move(one)
            case faults.Nonsense():
                self._talk_nonsense(one)
            case (
                faults.RestStatus() | faults.RestHtml() | faults.RestTruncate() | faults.RestDelay() | faults.Redirect()
            ):
                self.faults.spoil(one)
            case _:
                assert_never(one)
        self._signal()

    def _move(self, move: faults.Move) -> None:
        now_ms = self.now_ms()
        self._keep(Moved(now_ms, move.asset, move.amount))
        events = self.market.move(move.asset, move.amount, now_ms)
        untold = ((Movement, not move.announce), (Position, not move.position))
        self._publish(events, untold=tuple(kind for kind, hidden in untold if hidden))

    def _talk_nonsense(self, fault: faults.Nonsense) -> None:
        """Over REST with the answers to come, on the stream at once. Raises ConfigError where it cannot be said."""
        if fault.where == "rest":
            if fault.kind == "changed_fill" and not self.dialect.trades:
                raise ConfigError(f"The dialect {self.dialect.name} has no myTrades to tell {fault.kind} with.")
            self.faults.talk_nonsense(fault)
            return
        if fault.kind in nonsense.ONLY_LONG and not self.dialect.full:
            raise ConfigError(
                f"The short reports of the dialect {self.dialect.name} cannot say {fault.kind}; use the dialect full."
            )
        self._tell(nonsense.report(fault.kind, self.books, fault.fits, self.now_ms()))

    def _drop(self) -> None:
        for socket in self._front.sockets:
            socket.abort()

    def _silence(self, silence: faults.Silence) -> None:
        hushed = tuple(self._front.sockets)

        def hush(on: bool) -> None:
            for socket in hushed:
                if silence.frames_only:
                    socket.deaf = on
                else:
                    socket.silent = on

        hush(True)
        if silence.for_s is not None:
            asyncio.get_running_loop().call_later(silence.for_s, hush, False)

    def _fall_behind(self, lag_s: float) -> None:
        """From now on REST answers from books of its own, which take each event ``lag_s`` late; 0 ends it."""
        self._lag_s = lag_s
        self._behind = self.books.copy() if lag_s > 0 else None
        self._to_come.clear()

    def _rest_books(self) -> Books:
        if not self._behind:
            return self.books
        while self._to_come and self._to_come[0][0] <= self._now_s() - self._lag_s:
            self._behind.apply(self._to_come.popleft()[1])
        return self._behind

    # The listen key.

    def _refusal(self, key: str) -> tuple[int, str] | None:
        if self._now_s() < self._refuse_ws_until_s:
            return 503, "The sandbox's script refuses sockets for now.\n"
        if not key or key != self.rest.keys.key:
            return 401, "This listenKey does not exist.\n"
        return None

    def _arm_expiry(self) -> None:
        if self._expiry:
            self._expiry.cancel()
        if self.rest.keys.key:
            left_s = max(0.0, self.rest.keys.deadline_s - self._now_s())
            self._expiry = asyncio.get_running_loop().call_later(left_s, self._expire_key)

    def _expire_key(self, *, announce: bool = True) -> None:
        """The key dies. Its sockets stay up and never hear anything again."""
        key = self.rest.keys.key
        if key and announce:
            self._push([msgspec.json.encode(listen_key_expired_json(key, self.now_ms()))])
        self.rest.keys.key = None
        self._signal()

    def _close_key(self, key: str) -> None:
        """The client has deleted the key: its streams end in good order."""
        for socket in self._front.sockets:
            if socket.key == key:
                socket.close(1000, "listen key closed")

    def _signal(self) -> None:
        """Wake everybody in ``until``."""
        self._changed.set()
        self._changed = asyncio.Event()

    # Answers.

    async def _answer(self, call: Call) -> Answer:
        if call.path.startswith("/sandbox/"):
            return await self._control(call)
        answer = await self._api_answer(call)
        self.calls.append((call.method, call.path, answer.status))
        return answer

    async def _api_answer(self, call: Call) -> Answer:
        spoilt = self.faults.spoilt(call.path)
        self.rest.watch(call, self.now_ms())
        if isinstance(spoilt, faults.RestDelay):
            await asyncio.sleep(spoilt.s)
        elif spoilt and (answer := self._spoilt_answer(call, spoilt)):
            return answer
        key = self.rest.keys.key
        answer = self.rest.answer(
            call,
            self._rest_books(),
            now_ms=self.now_ms(),
            now_s=self._now_s(),
            telling=partial(self.faults.told, call.path),
        )
        if call.path.endswith("/userDataStream"):
            if key and not self.rest.keys.key:
                self._close_key(key)
            self._arm_expiry()
        return replace(answer, cut=isinstance(spoilt, faults.RestTruncate))

    def _spoilt_answer(self, call: Call, spoilt: faults.SpoiltAnswer) -> Answer | None:
        """What is sent in place of the true answer; None when the true one is needed."""
        if isinstance(spoilt, faults.RestStatus):
            wait = spoilt.retry_after
            if isinstance(wait, int) and spoilt.status in (418, 429):
                # Scripted or earned, a client that calls again before the time is impolite.
                self.rest.meter.block(call.ip, self.now_ms() + wait * 1000)
            headers = () if wait is None else (("Retry-After", str(wait)),)
            usual = {429: -1003, 418: -1003, 401: -2015, 403: -2015, 503: -1008}.get(spoilt.status, -1001)
            code = usual if spoilt.code is None else spoilt.code
            return error(spoilt.status, code, "A fault of the sandbox's script.", headers)
        if isinstance(spoilt, faults.RestHtml):
            return Answer(spoilt.status, HTML, (("Content-Type", "text/html"),))
        if isinstance(spoilt, faults.Redirect):
            return Answer(302, b"", (("Location", f"{spoilt.to}{call.path}?{call.query}"),))
        return None

    async def _control(self, call: Call) -> Answer:
        """``/sandbox/...``: the truth and the switches, for whoever runs on this machine."""
        if not ipaddress.ip_address(call.ip).is_loopback:
            return error(403, -1002, "The sandbox is controlled from its own machine only.")
        match call.method, call.path.removeprefix("/sandbox/"):
            case "GET", "truth":
                return json(self.truth())
            case "POST", "pause":
                self.pause()
            case "POST", "resume":
                self.resume()
            case "POST", "step":
                n = dict(parse_qsl(call.query)).get("n", "1")
                if not (n.isascii() and n.isdigit() and int(n) <= STEP_MAX):
                    return error(400, -1100, f"n must be a whole number up to {STEP_MAX}, not {n!r}.")
                return json({"events": len(await self.step(int(n)))})
            case "POST", "fault":
                try:
                    await self.fault(msgspec.json.decode(call.body, type=dict[str, object]))
                except (ConfigError, msgspec.DecodeError) as wrong:
                    return error(400, -1130, str(wrong))
            case _:
                return error(404, -1000, f"There is no {call.method} {call.path}.")
        return json({})


async def serve(
    *,
    port: int = 0,
    seed: int = 1,
    dialect: str = "documented",
    faults_path: Path | None = None,
    state_path: Path | None = None,
    rate: float = 5.0,
    history: int = 0,
    history_days: int = 90,
    weight_per_minute: int = 1200,
    position_clock: bool = True,
    say: Callable[[str], object] | None = None,
) -> None:
    """Run the sandbox until cancelled; ``say`` (stdout) gets how to point a mirror at it, once it listens.

    ``state_path``: the file its market lives in over restarts, key included; without it each is a new market with a key
    of its own. Raises UsageError for an unknown dialect or a port that is taken, ConfigError for a script or state that
    cannot be read.
    """
    script = faults.read_script(faults_path) if faults_path else ()
    dialect_named(dialect, position_clock=position_clock)
    new = Beginning(seed=seed, history=history, history_days=history_days, until_ms=time.time_ns() // 1_000_000)
    state = opened(state_path, new) if state_path else State(new)
    sandbox = Sandbox(
        state=state,
        dialect=dialect,
        position_clock=position_clock,
        api_key=state.beginning.api_key,
        api_secret=state.beginning.api_secret,
        rate=rate,
        weight_per_minute=weight_per_minute,
        script=script,
    )
    try:
        await sandbox.start(port)
    except OSError as taken:
        state.close()
        raise UsageError(f"The sandbox cannot listen on port {port}: {_reason(taken)}. Choose another port.") from None
    try:
        (say or _print)(how_to_connect(sandbox, state_path))
        await asyncio.Event().wait()
    finally:
        await sandbox.stop()
        state.close()


def _print(lines: str) -> None:
    sys.stdout.write(lines)
    sys.stdout.flush()  # whoever started us as a process waits for these lines


def how_to_connect(sandbox: Sandbox, state_path: Path | None = None) -> str:
    """The lines that point a mirror at this sandbox, ready to paste into a shell.

    Account and data folder are the market's own, so that its play money never comes into another ledger.
    """
    name = "sandbox" if sandbox.state is None else f"sandbox-{sandbox.state.beginning.name}"
    folder = Path(tempfile.gettempdir()) / f"sdx-ledger-{name}"
    if state_path is not None:
        folder = state_path.absolute().with_name(f"{state_path.name}.data")
    return (
        f"sandbox venue, dialect {sandbox.dialect.name}: {sandbox.rest_url} and {sandbox.stream_url};"
        " mirror it from another terminal with `sdx-ledger run` and\n"
        f"export SDX_REST_URL={sandbox.rest_url}\n"
        f"export SDX_STREAM_URL={sandbox.stream_url}\n"
        f"export SDX_ACCOUNT={name}\n"
        f"export SDX_DATA_DIR={shlex.quote(str(folder))}\n"
        f"export SDX_API_KEY={sandbox.api_key}\n"
        f"export SDX_API_SECRET={sandbox.api_secret}\n"
    )


def _reason(error: OSError) -> str:
    """The system's word: what asyncio wraps around it says the address once more."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
