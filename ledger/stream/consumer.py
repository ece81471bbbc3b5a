"""Sockets in, rows out: one account's stream.

Always holds: a socket is drained whatever the database does; whatever arrived while one call was in flight was read
meanwhile and goes into the next (group commit, no timer); a gap row is written before the frames of the socket that
ended the outage; time counts as covered only when every frame before it was written. Nothing is lost when two sockets
overlap.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
import structlog

from ledger.db import apply, coverage, quarantine, reads
from ledger.db.apply import Batch, Entry
from ledger.db.coverage import Gap
from ledger.db.reads import PastKey
from ledger.db.rows import lay
from ledger.errors import KeyRefused, UnreadableFrame, VenueBusy, VenueError, VenueRefused, WentBack
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Fact
from ledger.stream import liveness
from ledger.stream.lease import ListenKeyLease
from ledger.venue import frames, stream_events
from ledger.venue.reading import is_remark
from ledger.wire.clock import Clock
from ledger.wire.postgres import Writer, is_refusal, refusal, sqlstate_of
from ledger.wire.socket import Connection, FrameBuffer, Received, open_connection

log = structlog.get_logger(__name__)

FRAMES_PER_CALL_MAX = 1000
BEAT_S = 1.0
"""How often a quiet stream says that it is alive."""
KEY_PAUSE_S = 300.0
"""The longest pause while the venue refuses the API key a listen key."""
ROW_AGAIN_S = 5.0
"""How often the row of an outage is written again: a database that went back may have lost it."""
ATTEMPT_EVERY_S = 1.0
"""Connection attempts are at least this far apart."""
ROTATE = "rotate"
DEAF = "deaf"
CORRECTED = "clock corrected"
DRAIN_S = 3.0
"""How long a stop waits for a database that is away or refuses to work, to write what had arrived."""
SLOW_CALL_S = 2.0
"""A call that takes longer shows that frames come faster than they are written."""
ROTATE_AGAIN_S = 10.0
"""Pause after a rotation whose new socket could not be opened; the old one goes on meanwhile."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of one account's stream; all in seconds."""

    stream_url: str
    silence_s: float
    max_age_s: float
    rest_lag_s: float
    sockets: int = 1


@dataclass(frozen=True, slots=True)
class Outage:
    """No socket is up. ``not_after_ms``: frames may have been missed since then (venue clock), None: since now."""

    cause: str
    not_after_ms: int | None


@dataclass(slots=True, eq=False)
class _Socket:
    """One socket that is up, the listen key it hangs on, and the word that it is over, if it came, with since when
    frames may have been missed (venue clock, ms; None: only from now on)."""

    connection: Connection
    key: str
    told: asyncio.Future[tuple[str, int | None]]


@dataclass(frozen=True, slots=True)
class _Down:
    """To be written: the stream is down. ``outage``: its gap is open from now on; None: nobody will bring it back."""

    outage: Outage | None


@dataclass(frozen=True, slots=True)
class _Up:
    """To be written: the stream is live again since ``until_ms``; the outage is a gap."""

    outage: Outage
    until_ms: int


def _earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    """The earlier of two instants, None where neither is told."""
    return min((ms for ms in (one_ms, other_ms) if ms is not None), default=None)


def _what_of(is_new: bool, from_ms: int | None, until_ms: int | None) -> str:
    """What the log says of a gap that was written down."""
    if is_new:
        return "first load: history is read over REST" if from_ms is None else "gap opened"
    return "outage goes on" if until_ms is None else "outage is over"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _let_go(_: object) -> None:
    """Whatever it is, it was held until now."""


def read(received: Received) -> Entry:
    """One journal row to be. Never raises: what cannot be read is kept with its problem."""
    if received.problem is not None:
        return Entry(received.frame_no, received.received_ms, "unreadable", None, received.raw, received.problem, ())
    frame, facts, problem = understand(received.raw)
    if problem is not None and not is_remark(problem):
        facts = stream_events.left_open(frame, problem, received.received_ms)
    return Entry(received.frame_no, received.received_ms, frame.kind, frame.venue_ms, received.raw, problem, lay(facts))


def understand(raw: bytes) -> tuple[frames.Frame, list[Fact], str | None]:
    """A frame, what it says, and why that is nothing where it could not be understood, or a remark about it."""
    frame = frames.read(raw)
    if frame.problem is not None:
        return frame, [], frame.problem
    try:
        return frame, stream_events.facts(frame), frame.remark
    except UnreadableFrame as error:
        return frame, [], str(error)


def _quarantined(batch: Batch, error: Exception) -> Batch:
    """The batch's one frame without its facts, which the database refused: kept, and listed in quarantine."""
    (frame,) = batch.frames
    at_ms = frame.received_ms if frame.venue_ms is None else frame.venue_ms
    where = quarantine.hole(understand(frame.raw)[1], source="stream", at_ms=at_ms)
    return quarantine.refused(batch, refusal(error), sqlstate_of(error), where)


class Consumer:
    """One account's stream. ``writer`` is its own connection and used by ``write`` alone; ``fence`` is the number under
    which this process leads (None: nobody leads); Fenced ends it once another does. ``connect`` opens sockets."""

    def __init__(
        self,
        account: str,
        rules: Rules,
        lease: ListenKeyLease,
        writer: Writer,
        clock: Clock,
        rng: random.Random | None = None,
        *,
        fence: int | None = None,
        connect: Callable[..., Awaitable[Connection]] = open_connection,
    ) -> None:
        self._account = account
        self._fence = fence
        self._open_connection = connect
        self._rules = rules
        self._lease = lease
        self._writer = writer
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._buffer = FrameBuffer(read=read, full_at=FRAMES_PER_CALL_MAX, full=self._lay_ahead)
        self._sending = False
        self._sent_s = 0.0
        self._ahead: Batch | None = None
        """Laid out while the call before it is on its way."""
        self._live: dict[UUID, _Socket] = {}
        self._memories: dict[UUID, SessionMemory] = {}
        self._kept_as: dict[UUID, tuple[UUID, int]] = {}
        """Of sockets whose first frames the database lost: the session that the others are kept as, and how many came
        before those."""
        self._anew: set[UUID] = set()
        """Sockets whose next frame is to be the first of another session."""
        self._outage: Outage | None = Outage("start", None)
        self._due: deque[_Down | _Up] = deque()
        self._beat_s = 0.0
        self._row_s: float | None = None
        """When the row of the outage that goes on was last written (monotonic); None: it has none."""
        self._told_ms: int | None = None
        """Venue clock of the newest frame that was written."""
        self._error: str | None = None
        self._away_after: int | None = None
        """How many answers the venue had given when it last gave none for a listen key; None: it was not that."""
        self._refusals = 0
        """How often in a row the API key was refused a listen key."""
        self._stopping = False
        self._past_key: PastKey | None = None
        """The listen key the last process used, and when that was read (monotonic)."""
        self._past_key_read_s = 0.0
        self._kept_key: tuple[bytes, float | None] | None = None
        self._steps_back = clock.steps_back
        """Corrections of the venue's clock that were acted upon."""

    async def run(self) -> None:
        """Mirror the stream until cancelled; then write what arrived and leave the stream marked as down."""
        try:
            self._past_key = await self._writer.run(lambda conn: reads.stream_key(conn, self._account))
        except WentBack:
            self._writer.go_on()  # nothing was read yet, and the gap goes back further than any key
        self._past_key_read_s = self._clock.monotonic_s()
        writing = asyncio.create_task(self._write(), name=f"write {self._account}")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lease.keep(), name=f"lease {self._account}")
                for slot in range(self._rules.sockets):
                    tasks.create_task(self._keep_connected(), name=f"socket {slot} {self._account}")
                tasks.create_task(self._watch(writing))
                tasks.create_task(self._look_after(ATTEMPT_EVERY_S), name=f"start {self._account}")
        finally:
            for socket in list(self._live.values()):
                await socket.connection.close("stopped")
            self._live.clear()
            self._due.append(_Down(None))
            # Only now: a writer that finds nothing due would end before the last frames and the end itself are written.
            self._stopping = True
            self._buffer.wake()
            await self._drained(writing)

    @property
    def is_up(self) -> bool:
        """Whether a socket brings frames."""
        return bool(self._live)

    async def _look_after(self, seconds: float) -> None:
        """A first socket that is not up by then is an outage, whatever its attempt waits for."""
        await self._clock.sleep(seconds)
        self._is_lasting()

    async def _drained(self, writing: asyncio.Task[None]) -> None:
        """What had arrived is written, or given up where the database does not take it: the next start opens a gap."""
        while not writing.done():
            await asyncio.wait((writing,), timeout=DRAIN_S)
            if not writing.done() and self._writer.waits:
                log.warning("stopped before everything was written, which will be a gap", account=self._account)
                writing.cancel()
                await asyncio.wait((writing,))
        if not writing.cancelled():
            await writing

    def doubt(self, since_ms: int) -> None:
        """REST tells what no socket brought since ``since_ms`` (venue clock): all of them are deaf, whatever they ping.

        Every socket ends now; the gap runs from the last frame that came before that. Nothing happens while frames wait
        for the database: they may say it all, and nobody could know yet.
        """
        if self._is_behind():
            log.info("frames wait to be written, so no socket is taken for deaf", account=self._account)
            return
        since_ms = min(since_ms, self._told_ms or since_ms)
        for socket in self._live.values():
            if not socket.told.done():
                socket.told.set_result((DEAF, since_ms))

    def _is_behind(self) -> bool:
        """Whether the database takes frames later than they come, or not at all."""
        slow = self._sending and self._clock.monotonic_s() - self._sent_s > SLOW_CALL_S
        return self._writer.waits or slow or len(self._buffer) >= FRAMES_PER_CALL_MAX

    @staticmethod
    async def _watch(writing: asyncio.Task[None]) -> None:
        """A writer that fails takes the sockets down with it, instead of letting them fill the buffer."""
        await asyncio.shield(writing)

    # --- sockets -----------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """One socket at all times: make a new one when it is lost, and before it grows too old."""
        attempt = 0
        current: _Socket | None = None
        rotate_in_s = self._rules.max_age_s
        while True:
            if current is None:
                if attempt and await self._pause(attempt):
                    attempt = 0
                current = await self._connect()
                if current is None:
                    attempt += 1
                    continue
                self._begin(current)
                rotate_in_s = self._rules.max_age_s
            cause, doubt_ms = await self._until_over(current, rotate_in_s)
            if cause == ROTATE:
                fresh = await self._connect()
                rotate_in_s = ROTATE_AGAIN_S if fresh is None else self._rules.max_age_s
                if fresh is not None:
                    self._begin(fresh)
                    await current.connection.close("rotated")
                    self._end(current, "rotated", None)
                    current = fresh
                continue
            await current.connection.close(cause)
            self._end(current, cause, doubt_ms)
            lived_s = self._clock.monotonic_s() - current.connection.opened_s
            attempt = liveness.next_attempt(attempt, lived_s)
            current = None

    async def _pause(self, attempt: int) -> bool:
        """Wait as long as ``attempt`` failures call for. True: not so long, the venue has answered something else."""
        pause_s, after = liveness.backoff_s(attempt, self._rng), self._away_after
        if after is None:
            await self._clock.sleep(pause_s)
            return False
        await self._clock.sleep(min(pause_s, ATTEMPT_EVERY_S))
        answered = asyncio.create_task(self._lease.until_answered(after))
        passed = asyncio.create_task(self._clock.sleep(max(0.0, pause_s - ATTEMPT_EVERY_S)))
        try:
            await asyncio.wait((answered, passed), return_when=asyncio.FIRST_COMPLETED)
            return answered.done()
        finally:
            answered.cancel()
            passed.cancel()

    async def _connect(self) -> _Socket | None:
        """Open one socket; None when that failed."""
        key: str | None = None
        self._away_after = None
        try:
            # A key that lives serves every socket; asking again might replace it under the others.
            key = (self._lease.key if self._live else None) or await self._acquire()
            url = f"{self._rules.stream_url}/ws/{quote(key, safe='=+')}"
            connection = await self._open_connection(url, self._buffer, self._clock, silence_s=self._rules.silence_s)
        except KeyRefused as error:
            self._note(error)
            self._refusals += 1
            # Again soon, for one refusal may be a mistake; then ever more seldom, for a person must look.
            await self._clock.sleep(min(liveness.PAUSE_MAX_S * 2.0 ** min(self._refusals - 1, 10), KEY_PAUSE_S))
            self._lease.retry_key()
            return None
        except VenueError as error:
            self._note(error)
            if isinstance(error, VenueRefused) and key is not None:
                self._lease.invalidate("refused by the stream", key)
            if isinstance(error, VenueBusy):
                # A venue that was away is back as soon as it answers anything; one that refuses is not.
                self._away_after = self._lease.answers if key is None else None
                if error.retry_after_s:
                    await self._clock.sleep(error.retry_after_s)
            return None
        self._refusals = 0
        return _Socket(connection, key, asyncio.get_running_loop().create_future())

    async def _acquire(self) -> str:
        """A listen key. That another took the place of the one held shows that it died unnoticed, who knows when."""
        before, confirmed_ms = self._lease.key, self._lease.confirmed_ms
        key = await self._lease.acquire()
        if self._outage is not None and before not in (None, key):
            doubt_ms = _earlier(self._outage.not_after_ms, confirmed_ms)
            self._outage = Outage(self._outage.cause, doubt_ms)
        if self._outage is not None and self._past_key is not None:
            past, self._past_key = self._past_key, None
            if past.digest != _digest(key):
                # The last process may have been killed before it noticed that its key was dead.
                doubt_ms = past.not_after_ms(self._clock.venue_ms_at(self._past_key_read_s))
                self._outage = Outage(self._outage.cause, _earlier(self._outage.not_after_ms, doubt_ms))
        return key

    async def _until_over(self, socket: _Socket, rotate_in_s: float) -> tuple[str, int | None]:
        """Wait until this socket is no longer good.

        Returns why, and since when frames may have been missed (venue clock; None: only from now on).
        """
        socket.told = asyncio.get_running_loop().create_future() if socket.told.done() else socket.told
        closed = asyncio.create_task(socket.connection.wait_closed())
        lost = asyncio.create_task(self._lease.wait_lost(socket.key))
        aged = asyncio.create_task(self._clock.sleep(rotate_in_s))
        try:
            await asyncio.wait((closed, lost, aged, socket.told), return_when=asyncio.FIRST_COMPLETED)
            if socket.told.done():
                return socket.told.result()
            if closed.done():
                return closed.result(), self._heard_ms(socket.connection)
            if lost.done():
                # The key may have died unnoticed any time after the venue last confirmed it.
                return f"listen key lost: {lost.result()}", self._lease.confirmed_ms
            return ROTATE, None
        finally:
            for task in (closed, lost, aged):
                task.cancel()

    def _begin(self, socket: _Socket) -> None:
        self._live[socket.connection.session_id] = socket
        log.info("stream connected", account=self._account, session=str(socket.connection.session_id))
        if self._outage is not None:
            outage, self._outage = self._outage, None
            self._is_over(outage, socket.connection.opened_ms)

    def _end(self, socket: _Socket, cause: str, doubt_ms: int | None) -> None:
        """This socket is gone. It is an outage unless another was up all the time since ``doubt_ms``."""
        self._live.pop(socket.connection.session_id, None)
        others_ms = [other.connection.opened_ms for other in self._live.values()]
        if any(doubt_ms is None or opened_ms <= doubt_ms for opened_ms in others_ms):
            return
        # Before it was last heard REST may have trailed, and so may what counts as covered.
        not_after_ms = None if doubt_ms is None else doubt_ms - self._trail_ms
        log.warning("stream lost", account=self._account, cause=cause)
        if others_ms:
            self._is_over(Outage(cause, not_after_ms), min(others_ms))
        elif self._outage is None:
            self._outage = Outage(cause, not_after_ms)
            self._is_lasting()

    def _is_lasting(self) -> None:
        """The outage there is has a row as long as it goes on; what is known of its beginning may have changed."""
        if self._outage is not None and not any(isinstance(due, _Down) for due in list(self._due)[1:]):
            self._due.append(_Down(self._outage))
            self._buffer.wake()

    def _is_over(self, outage: Outage, until_ms: int) -> None:
        """A gap is due. With those that could not be written yet it is one: a database that is away makes no crowd."""
        while len(self._due) > 1:  # the first may be on its way to the database
            due = self._due.pop()
            if isinstance(due, _Up):
                outage = Outage(due.outage.cause, _earlier(due.outage.not_after_ms, outage.not_after_ms))
        self._due.append(_Up(outage, until_ms))
        self._buffer.wake()

    def _heard_ms(self, connection: Connection) -> int:
        """The last instant this socket was known to work, venue clock."""
        silent_s = self._clock.monotonic_s() - connection.heard_s
        return self._clock.venue_now_ms() - int(silent_s * 1000)

    def _note(self, error: VenueError) -> None:
        say = log.warning if isinstance(error, VenueBusy) else log.error
        say("stream cannot be opened now", account=self._account, error=str(error))
        self._error = str(error)
        self._is_lasting()
        self._buffer.wake()

    # --- rows --------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Write what arrived, in order, until stopped and drained."""
        while True:
            self._notice_correction()
            if self._row_s is not None and self._clock.monotonic_s() - self._row_s >= ROW_AGAIN_S:
                self._is_lasting()
            try:
                await self._write_due()
                await self._keep_key()
            except WentBack:
                (self._ahead,) = self._laid_out_anew(self._ahead)
                continue
            batch = self._ahead or self._next_batch()
            self._ahead = None
            through_ms = self._through_ms()
            if batch is None and through_ms is not None:
                batch = apply.build(self._account, UUID(int=0), "stream", (), SessionMemory())
            if batch is not None:
                await self._write_batch(batch if through_ms is None else batch.through(through_ms))
            elif self._stopping and not self._due:
                return
            elif not self._due:
                await self._buffer.wait(BEAT_S)

    async def _write_due(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            await self._writer.run(lambda conn: coverage.set_error(conn, self._account, error))
            if not self._live:
                await self._writer.run(lambda conn: coverage.set_stream_error(conn, self._account, error))
        while self._due:
            due = self._due[0]
            if isinstance(due, _Down) and due.outage is None:
                await self._writer.run(lambda conn: coverage.stream_down(conn, self._account, fence=self._fence))
            else:
                gap = await self._writer.run(partial(self._open_gap, due=due))
                # Nothing was missed before the first start: what is loaded then is no outage.
                is_loss = gap.is_new and gap.from_ms is not None
                log.log(
                    logging.WARNING if is_loss else logging.INFO if gap.until_ms or gap.is_new else logging.DEBUG,
                    _what_of(gap.is_new, gap.from_ms, gap.until_ms),
                    account=self._account,
                    gap=gap.gap_id,
                    cause=gap.cause,
                    from_ms=gap.from_ms,
                    until_ms=gap.until_ms,
                )
            self._row_s = None if isinstance(due, _Up) or due.outage is None else self._clock.monotonic_s()
            if isinstance(due, _Up):
                await self._writer.run(lambda conn: coverage.set_stream_error(conn, self._account, None))
            self._due.popleft()

    async def _keep_key(self) -> None:
        """Keep which key the sockets hang on, for the next process; after the gap of the key before, never earlier."""
        key, confirmed_ms = self._lease.key, self._lease.confirmed_ms
        keys = {socket.key for socket in self._live.values()}
        if key is None or confirmed_ms is None or self._due or keys != {key}:
            return
        digest = _digest(key)
        if (digest, self._lease.confirmed_s) != self._kept_key:
            kept_key = digest, self._lease.confirmed_s
            await self._writer.run(partial(self._set_key, digest=digest, confirmed_ms=confirmed_ms))
            self._kept_key = kept_key

    async def _set_key(self, conn: Any, digest: bytes, confirmed_ms: int) -> None:
        age_ms = self._clock.venue_now_ms() - confirmed_ms
        await coverage.set_stream_key(conn, self._account, digest, confirmed_ms, age_ms=age_ms)

    async def _open_gap(self, conn: Any, due: _Down | _Up) -> Gap:
        assert due.outage is not None, "only the end of this process has none"
        return await coverage.open_gap(
            conn,
            self._account,
            cause=due.outage.cause,
            until_ms=due.until_ms if isinstance(due, _Up) else None,
            not_after_ms=due.outage.not_after_ms,
            live=isinstance(due, _Up),
            fence=self._fence,
            now_ms=self._clock.venue_now_ms(),
            trail_ms=self._trail_ms,
        )

    @property
    def _trail_ms(self) -> int:
        return self._clock.trail_ms(self._rules.rest_lag_s)

    def _notice_correction(self) -> None:
        """The venue's clock turned out to have been ahead: what was covered by it since it was believed is in doubt."""
        if self._clock.steps_back == self._steps_back:
            return
        self._steps_back = self._clock.steps_back
        doubt_ms = self._clock.venue_ms_at(self._clock.doubted_since_s) - self._trail_ms
        log.warning("the venue's clock was taken to be ahead of what it is", account=self._account, since_ms=doubt_ms)
        if self._outage is not None:
            self._outage = Outage(self._outage.cause, _earlier(self._outage.not_after_ms, doubt_ms))
        elif self._live or self._due:
            self._is_over(Outage(CORRECTED, doubt_ms), self._clock.venue_now_ms())

    def _next_batch(self) -> Batch | None:
        """Everything that waits, up to a full call, laid out; None when nothing does."""
        received = self._buffer.take(FRAMES_PER_CALL_MAX)
        if not received:
            return None
        session_id, entries = received[0].session_id, [one.entry for one in received]
        self._obey(session_id, entries)
        return self._laid_out(session_id, entries)

    def _laid_out(self, session_id: UUID, entries: list[Entry]) -> Batch:
        """Frames of one socket as a call, under the session they are kept as."""
        if session_id in self._anew:
            self._anew.discard(session_id)
            self._kept_as[session_id] = uuid4(), entries[0].frame_no - 1
            self._memories[session_id] = SessionMemory()
        kept_as, before = self._kept_as.get(session_id, (session_id, 0))
        if before:
            entries = [msgspec.structs.replace(one, frame_no=one.frame_no - before) for one in entries]
        memory = self._memories.setdefault(session_id, SessionMemory())
        clockless = self._is_clockless(session_id)
        return apply.build(self._account, kept_as, "stream", entries, memory, clockless=clockless)

    def _lay_ahead(self) -> None:
        """Enough for a full call waits: lay it out while the database is busy, so that it need not wait for that."""
        if self._sending and self._ahead is None and len(self._buffer) >= FRAMES_PER_CALL_MAX:
            self._ahead = self._next_batch()
            assert self._ahead is not None
            self._ahead.columns  # noqa: B018 - laid out now, sent later

    async def _write_batch(self, batch: Batch) -> None:
        self._sending, self._sent_s = True, self._clock.monotonic_s()
        loop = asyncio.get_running_loop()
        loop.call_soon(self._lay_ahead)
        try:
            await self._send_to_the_end(batch)
        finally:
            self._sending = False
        # A frame may say any time; none of them is believed to come from later than now.
        now_ms = self._clock.venue_now_ms()
        newest_ms = [min(frame.venue_ms, now_ms) for frame in batch.frames if frame.venue_ms]
        self._told_ms = max((ms for ms in (self._told_ms, *newest_ms) if ms), default=None)
        self._forget_sessions()
        # What was written is let go while the database is busy with what comes next, not before it is.
        loop.call_soon(_let_go, batch)

    async def _send_to_the_end(self, batch: Batch) -> None:
        """Send it, under new sessions where the database lost what it had of the old ones."""
        while True:
            try:
                await self._send(batch)
            except WentBack:
                through_ms = batch.header[-1]
                again, self._ahead = self._laid_out_anew(batch, self._ahead)
                assert again is not None
                batch = again if through_ms is None else again.through(through_ms)
            else:
                return

    def _laid_out_anew(self, *batches: Batch | None) -> list[Batch | None]:
        """What waits to be written to a database that went back, its frames as the first ones of other sessions."""
        received = [self._as_received(one) if one is not None and one.frames else None for one in batches]
        self._begin_sessions_anew()
        return [one if was is None else self._laid_out(*was) for one, was in zip(batches, received, strict=True)]

    def _begin_sessions_anew(self) -> None:
        """The database lost the last frames of every session it had: those to come are the first of other sessions."""
        self._writer.go_on()
        self._kept_key = None
        self._anew = {*self._memories, *self._live}

    def _as_received(self, batch: Batch) -> tuple[UUID, list[Entry]]:
        """The socket a call's frames came from, and they as numbered there."""
        name = batch.header[1]
        session_id, before = next(((s, n) for s, (kept_as, n) in self._kept_as.items() if kept_as == name), (name, 0))
        return session_id, [msgspec.structs.replace(one, frame_no=one.frame_no + before) for one in batch.frames]

    async def _send(self, batch: Batch) -> None:
        try:
            await self._writer.run(lambda conn: apply.apply(conn, batch, fence=self._fence), rows=batch.rows)
        except Exception as error:
            if not is_refusal(error) or batch.is_bare:
                raise
            # One frame the database refuses must not hold up the others: send them singly, that one without facts.
            log.error("database refused a batch", account=self._account, frames=len(batch.frames), error=refusal(error))
            alone = len(batch.frames) == 1
            singles = [_quarantined(batch, error)] if alone else batch.split()
            for single in singles:
                await self._send(single)

    def _through_ms(self) -> int | None:
        """Up to when everything is written now, 0 where that is not known; None: not live, or said a moment ago."""
        now_s = self._clock.monotonic_s()
        if not self._live or self._due or now_s - self._beat_s < BEAT_S:
            return None
        self._beat_s = now_s
        if len(self._buffer) or self._clock.may_be_ahead:
            return 0  # alive, but behind or not sure of the time: coverage stays where it is
        heard_s = max(socket.connection.heard_s for socket in self._live.values())
        late_s = liveness.late_s(now_s - heard_s, self._rules.silence_s)
        return self._clock.venue_now_ms() - int(late_s * 1000) - self._trail_ms

    def _obey(self, session_id: UUID, entries: list[Entry]) -> None:
        """The venue says that this stream or its key is over: act on it without waiting for silence."""
        socket = self._live.get(session_id)
        for entry in entries:
            if socket is None or entry.kind not in stream_events.CONTROLS:
                continue
            if entry.kind == "listenKeyExpired":
                self._lease.invalidate(entry.kind, socket.key)
            if not socket.told.done():
                # A server that announces its shutdown still speaks: the new socket comes first.
                socket.told.set_result((ROTATE if entry.kind == "serverShutdown" else entry.kind, None))

    def _is_clockless(self, session_id: UUID) -> bool:
        """Positions without a venue clock are ordered by arrival, so only the oldest live socket may tell them."""
        oldest = next(iter(self._live), session_id)
        return session_id in self._live and session_id != oldest

    def _forget_sessions(self) -> None:
        """A session is over when its socket is gone and its frames are written."""
        if len(self._buffer) == 0:
            for session_id in [s for s in self._memories if s not in self._live]:
                del self._memories[session_id]
                self._kept_as.pop(session_id, None)
                self._anew.discard(session_id)
