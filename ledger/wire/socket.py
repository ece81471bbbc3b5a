"""WebSockets of the stream: bytes from the venue into a bounded buffer, and word of every end.

Always holds: one connection is one session; its frames get the numbers 1, 2, 3 … in the order they came and are
kept byte for byte; the socket is drained however slowly the buffer is emptied, until that is full; a connection
ends for exactly one cause, and everything it delivered is in the buffer by then. The URL holds the listen key:
it is in no message and no log line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event

from ledger.errors import ConfigError, LedgerError, VenueBusy, VenueError, VenueRefused, VenueUnreachable
from ledger.wire import tls
from ledger.wire.budget import told_wait_s
from ledger.wire.clock import Clock
from ledger.wire.reach import why

BUFFER_MAX_BYTES = 64 * 1024 * 1024
BATCH_MAX_BYTES = 8 * 1024 * 1024
"""A batch ends with the frame that goes over this."""
FRAME_MAX_BYTES = 1024 * 1024
FRAME_OVERHEAD_BYTES = 256
"""What an empty frame costs in memory: a flood of those is bounded too."""
PING_EVERY_S = 20.0
CLOSE_WAIT_S = 1.0
"""How long the other side may take to hang up once either side has said goodbye."""
UNSENT_MAX_BYTES = 32 * 1024
READ_AHEAD_MAX = 2_000
"""So many of the next frames, and no more than a batch in bytes, are read while the database is at work on those
before; the others wait as bytes: what was read takes several times the room."""
READ_AT_ONCE_MAX = 20
"""Then others have their turn: a large call leaves in several writes, and the database waits for each."""

OVERSIZE = "oversize"
BUFFER_FULL = "buffer_full"

# At DEBUG the library logs the request line, which holds the listen key, and every frame.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.WARNING)


def ping_every_s(silence_s: float) -> float:
    """How often we ping: often enough that three pings go unanswered before a silence of ``silence_s`` is over."""
    return min(PING_EVERY_S, silence_s / 3)


class BufferFull(LedgerError):
    """The buffer cannot take another frame: the database has been away for too long."""


class Received(msgspec.Struct, gc=False):
    """One frame as it came. ``received_ms``: this machine's clock. ``problem`` (oversize): ``raw`` is empty.

    ``entry`` is what the buffer's ``read`` made of it; None where nobody read it yet. However many wait, the garbage
    collector does not walk over them.
    """

    session_id: UUID
    frame_no: int
    raw: bytes
    received_ms: int
    problem: str | None = None
    entry: Any = None

    @property
    def size_bytes(self) -> int:
        """What it takes of the buffer."""
        return len(self.raw) + FRAME_OVERHEAD_BYTES

    def __repr__(self) -> str:
        return f"Received({self.session_id}, {self.frame_no}, {len(self.raw)} bytes)"


class FrameBuffer:
    """Frames between the sockets and the database, a queue per session, bounded in bytes over all.

    ``read`` makes a frame's ``entry``, before it is taken, and may not raise. It is called as frames arrive and, for
    those that came while many waited, in between whatever else the loop does. ``full`` is called soon after ``full_at``
    frames have come to wait.
    """

    def __init__(
        self,
        limit_bytes: int = BUFFER_MAX_BYTES,
        *,
        read: Callable[[Received], object] | None = None,
        full_at: int = 0,
        full: Callable[[], object] | None = None,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._full_at = full_at
        self._full = full
        self.size_bytes = 0
        self._queues: OrderedDict[UUID, deque[Received]] = OrderedDict()
        self._frames = 0
        self._stirred = asyncio.Event()
        self._read = read
        self._unread: deque[Received] = deque()
        self._read_frames = 0
        self._read_bytes = 0
        self._reading = False

    def __len__(self) -> int:
        return self._frames

    def put(self, received: Received) -> None:
        """Append a frame. Raises BufferFull, and then keeps nothing of it."""
        size_bytes = received.size_bytes
        if self.size_bytes + size_bytes > self.limit_bytes:
            raise BufferFull(
                f"the buffer holds {self._frames} frames, {self.size_bytes} of {self.limit_bytes} bytes, and cannot "
                "take more; is the database away?"
            )
        self._queues.setdefault(received.session_id, deque()).append(received)
        self.size_bytes += size_bytes
        self._frames += 1
        if self._read is not None:
            self._unread.append(received)
            if len(self._unread) == 1 or self._unread[0].entry is not None:
                self._read_next()
        if self._frames == self._full_at and self._full is not None:
            asyncio.get_running_loop().call_soon(self._full)
        self._stirred.set()

    def take(self, limit: int) -> list[Received]:
        """Up to ``limit`` frames of one session, without holes, in the order they came; empty when there are none.

        The session that has waited longest has its turn, so that sockets side by side still make large batches.
        """
        assert limit >= 1
        self._stirred.clear()
        if not self._queues:
            return []
        session_id, queue = self._queues.popitem(last=False)
        batch: list[Received] = []
        batch_bytes = 0
        while queue and len(batch) < limit and batch_bytes < BATCH_MAX_BYTES:
            received = queue.popleft()
            size_bytes = received.size_bytes
            if received.entry is not None:
                self._read_frames -= 1
                self._read_bytes -= size_bytes
            elif self._read is not None:
                received.entry = self._read(received)
            batch.append(received)
            batch_bytes += size_bytes
        if queue:
            self._queues[session_id] = queue
        self.size_bytes -= batch_bytes
        self._frames -= len(batch)
        if self._frames:
            self._stirred.set()
        if self._unread and not self._reading:
            self._reading = True
            asyncio.get_running_loop().call_soon(self._read_ahead)
        return batch

    def _read_ahead(self) -> None:
        """Read some of the next frames, and more of them in the loop's next round."""
        for _ in range(READ_AT_ONCE_MAX):
            if not self._read_next():
                self._reading = False
                return
        asyncio.get_running_loop().call_soon(self._read_ahead)

    def _read_next(self) -> bool:
        """Read the first frame that is not, if there is room for it. False when there was nothing to do."""
        assert self._read is not None
        while self._unread and self._unread[0].entry is not None:
            self._unread.popleft()  # it was taken
        if not self._unread or self._read_frames >= READ_AHEAD_MAX:
            return False
        size_bytes = self._unread[0].size_bytes
        if self._read_bytes + size_bytes > BATCH_MAX_BYTES:
            return False
        received = self._unread.popleft()
        received.entry = self._read(received)
        self._read_frames += 1
        self._read_bytes += size_bytes
        return True

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there are frames or somebody wakes us. False when ``timeout_s`` passed (None: no limit)."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._stirred.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """End a ``wait`` though there may be no frame: something else is to be done."""
        self._stirred.set()


class Connection:
    """One socket that is up, one session. Made by ``open_connection``.

    ``opened_s`` and ``heard_s`` are monotonic.
    """

    def __init__(self, socket: _Socket, buffer: FrameBuffer, clock: Clock, silence_s: float) -> None:
        self.session_id = uuid4()
        self.opened_s = clock.monotonic_s()
        self.heard_s = self.opened_s
        """When the last whole message, ping or pong came. What never becomes one is no sign of life."""
        self.frames = 0
        self._socket = socket
        self._buffer = buffer
        self._clock = clock
        self._silence_s = silence_s
        self._cause: str | None = None
        socket.listen(self._heard, self._keep)
        self._life = asyncio.create_task(self._live(), name=f"socket {self.session_id}")

    @property
    def opened_ms(self) -> int:
        """When the handshake was over, by the venue's clock as it is believed now."""
        return self._clock.venue_ms_at(self.opened_s)

    async def wait_closed(self) -> str:
        """Wait for the end and say why: 'lost', 'silent', 'buffer_full', 'oversize', 'closed by venue 1001', or
        what ``close`` was told.

        Every frame that came is in the buffer then.
        """
        return await asyncio.shield(self._life)

    async def close(self, cause: str) -> None:
        """Say goodbye, keep what still comes, and end within about a second. An end that was before stays as it is."""
        self._cause = self._cause or cause
        await self._socket.close()
        await self.wait_closed()

    def _heard(self) -> None:
        self.heard_s = self._clock.monotonic_s()

    def _keep(self, raw: bytes, problem: str | None = None) -> None:
        if self._cause == BUFFER_FULL:
            return  # after a hole nothing counts
        received = Received(self.session_id, self.frames + 1, raw, self._clock.now_ms(), problem)
        try:
            self._buffer.put(received)
        except BufferFull:
            self._cause = BUFFER_FULL
            self._socket.transport.abort()
        else:
            self.frames += 1

    async def _live(self) -> str:
        watcher = asyncio.create_task(self._watch(), name=f"pings {self.session_id}")
        try:
            await self._socket.wait_closed()
        finally:
            watcher.cancel()
            self._socket.transport.abort()
            with suppress(asyncio.CancelledError):
                await watcher
        self._cause = self._cause or _cause(self._socket.protocol.close_exc)
        if self._cause == OVERSIZE:
            self._keep(b"", OVERSIZE)
        return self._cause

    async def _watch(self) -> None:
        """Ping, and hang up on silence: a connection cut without a word looks like a quiet account otherwise."""
        every_s = ping_every_s(self._silence_s)
        ping_at_s = self.opened_s + every_s
        with suppress(ConnectionClosed):
            while True:
                now_s = self._clock.monotonic_s()
                dead_at_s = self.heard_s + self._silence_s
                if now_s >= dead_at_s:
                    self._cause = self._cause or "silent"
                    self._socket.transport.abort()
                    return
                if now_s >= ping_at_s:
                    await self._socket.ping()
                    ping_at_s = now_s + every_s
                await self._clock.sleep(min(ping_at_s, dead_at_s) - now_s)


async def open_connection(
    url: str,
    buffer: FrameBuffer,
    clock: Clock,
    *,
    silence_s: float,
    frame_max_bytes: int = FRAME_MAX_BYTES,
    open_timeout_s: float = 10.0,
) -> Connection:
    """Connect, and from then on fill ``buffer``. ``url`` is secret.

    Raises VenueBusy when the venue cannot be reached or is busy, VenueRefused with its status when it does not let
    us in (an unknown listen key, a redirect), ConfigError for an address that is none.
    """
    try:
        socket = await _Connect(
            url,
            ssl=tls.context() if url.lower().startswith("wss:") else None,
            create_connection=_Socket,
            compression=None,
            proxy=None,
            max_size=frame_max_bytes,
            write_limit=UNSENT_MAX_BYTES,
            open_timeout=open_timeout_s,
            close_timeout=CLOSE_WAIT_S,
            ping_interval=None,
            logger=_library_log,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ValueError) as error:
        refusal = _refusal(error, _origin(url), clock.venue_now_ms())
    else:
        assert isinstance(socket, _Socket)
        return Connection(socket, buffer, clock, silence_s)
    # Outside the handler: what the library raises may hold the URL.
    raise refusal


class _Socket(ClientConnection):
    """The library's connection, which hands each message over as it comes, and limits what it leaves unsent.

    The library's own way, a queue and a coroutine that waits for it, costs as much again as reading the frame.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_event: Callable[[], None] | None = None
        self.on_message: Callable[[bytes], None] | None = None
        self._begun: bytearray | None = None
        """A message of which more is to come; the library bounds its bytes, and empty fragments take no room."""
        self._early: list[bytes] = []
        """What came between the handshake and ``listen``: no more than one read of the socket or two."""
        self._ending = False

    def listen(self, on_event: Callable[[], None], on_message: Callable[[bytes], None]) -> None:
        """Call ``on_event`` at each message, ping and pong, ``on_message`` with each message, from the first on."""
        self.on_event, self.on_message = on_event, on_message
        early, self._early = self._early, []
        for raw in early:
            on_message(raw)

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and self._begun is None:
            self._heard_whole(bytes(event.data))
        else:
            self._begun = bytearray() if self._begun is None else self._begun
            self._begun += event.data
            if not event.fin:
                return  # no sign of life: a message that never ends, in empty pieces, could go on for ever
            whole, self._begun = bytes(self._begun), None
            self._heard_whole(whole)
        if self.on_event is not None:
            self.on_event()

    def _heard_whole(self, raw: bytes) -> None:
        if self.on_message is None:
            self._early.append(raw)
        else:
            self.on_message(raw)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A peer that has said goodbye, or sent what we refuse, may keep the line open for ever.
        if not self._ending and self.protocol.close_expected():
            self._ending = True
            self.loop.call_later(CLOSE_WAIT_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        # We send pings and pongs alone. So much of them unsent means that nobody reads them.
        self.transport.abort()


class _Connect(connect):
    """The library's connect, which would follow a redirect with the listen key in hand."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _refusal(error: Exception, origin: str, venue_now_ms: int) -> VenueError | ConfigError:
    """Our error for a handshake that failed."""
    if isinstance(error, InvalidURI | ValueError):
        return ConfigError(f"SDX_STREAM_URL: expected a ws:// or wss:// address, got {origin}")
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        headers = {name.lower(): value for name, value in error.response.headers.raw_items()}
        wait_s = told_wait_s(status, headers, "", venue_now_ms)
        if status >= 500 or status in (408, 418, 429):
            return VenueBusy(f"stream {origin}: not now (HTTP {status})", wait_s)
        hint = "redirected, not followed; check SDX_STREAM_URL" if 300 <= status < 400 else "not let in"
        return VenueRefused(f"stream {origin}: {hint} (HTTP {status})", status=status, code=None)
    if isinstance(error, TimeoutError):
        return VenueBusy(f"stream {origin}: no answer in time")
    # Texts of the library may repeat what was sent.
    what = why(error) if isinstance(error, OSError) else type(error).__name__
    return VenueUnreachable(f"cannot reach {origin} (SDX_STREAM_URL): {what}")


def _cause(closed: ConnectionClosed) -> str:
    """Why a connection ended that we did not close."""
    if closed.rcvd is not None:
        return f"closed by venue {closed.rcvd.code}"
    if closed.sent is None:
        return "lost"
    return OVERSIZE if closed.sent.code == 1009 else f"broken protocol {closed.sent.code}"


def _origin(url: str) -> str:
    """Scheme and host of the URL, for messages."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable address"
    return f"{parts.scheme}://{parts.hostname or ''}{port}"
