"""The socket against real WebSocket servers: well-behaved, broken, silent and hostile ones."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from ledger.errors import ConfigError, VenueBusy, VenueRefused, VenueUnreachable
from ledger.wire.clock import Clock, ManualClock
from ledger.wire.socket import (
    BATCH_MAX_BYTES,
    FRAME_OVERHEAD_BYTES,
    READ_AHEAD_MAX,
    READ_AT_ONCE_MAX,
    BufferFull,
    Connection,
    FrameBuffer,
    Received,
    open_connection,
    ping_every_s,
)
from tests.flows.scripted_http import HANG, ScriptedHttp, reply
from tests.patience import stretched

LISTEN_KEY = "lIsTeN-0123456789"
SILENCE_S = 75.0

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def venue(handler: Handler) -> AsyncIterator[str]:
    """A WebSocket server; the URL of its stream. It does not ping by itself."""
    async with serve(handler, "127.0.0.1", 0, ping_interval=None, close_timeout=1) as server:
        yield stream_url(server)


def stream_url(server: Server) -> str:
    port = next(iter(server.sockets)).getsockname()[1]
    return f"ws://127.0.0.1:{port}/ws/{LISTEN_KEY}"


async def connected(url: str, buffer: FrameBuffer, clock: Clock | None = None) -> Connection:
    return await open_connection(url, buffer, clock or Clock(), silence_s=SILENCE_S)


def drained(buffer: FrameBuffer) -> list[Received]:
    frames: list[Received] = []
    while batch := buffer.take(1000):
        frames += batch
    return frames


def frame(session_id: UUID, frame_no: int, raw: bytes = b"{}") -> Received:
    return Received(session_id, frame_no, raw, 1_717_430_400_000)


# --- the buffer ---------------------------------------------------------------------------------------------


def test_the_buffer_gives_batches_of_one_session_without_holes() -> None:
    first, second = uuid4(), uuid4()
    buffer = FrameBuffer()
    for number in (1, 2, 3):
        buffer.put(frame(first, number))
        buffer.put(frame(second, number))

    batches = [[(one.session_id, one.frame_no) for one in buffer.take(2)] for _ in range(5)]

    assert batches == [
        [(first, 1), (first, 2)],
        [(second, 1), (second, 2)],
        [(first, 3)],
        [(second, 3)],
        [],
    ]
    assert (len(buffer), buffer.size_bytes) == (0, 0)


def test_the_buffer_refuses_what_goes_over_its_limit_and_keeps_the_rest() -> None:
    session = uuid4()
    buffer = FrameBuffer(limit_bytes=2 * FRAME_OVERHEAD_BYTES + 10)
    buffer.put(frame(session, 1, b"12345"))
    buffer.put(frame(session, 2, b"12345"))

    with pytest.raises(BufferFull, match="holds 2 frames"):
        buffer.put(frame(session, 3, b""))

    assert [one.frame_no for one in buffer.take(10)] == [1, 2]
    buffer.put(frame(session, 3, b""))


def test_a_batch_ends_before_it_grows_without_bound() -> None:
    session = uuid4()
    buffer = FrameBuffer()
    for number in range(1, 21):
        buffer.put(frame(session, number, bytes(1024 * 1024)))

    assert [len(buffer.take(1000)) for _ in range(4)] == [8, 8, 4, 0]


@pytest.mark.parametrize(
    ("size", "count", "read_ahead"),
    [
        (2, READ_AHEAD_MAX + 5, READ_AHEAD_MAX),
        (1024 * 1024, 20, BATCH_MAX_BYTES // (1024 * 1024 + FRAME_OVERHEAD_BYTES)),
    ],
)
async def test_what_arrives_is_read_at_once_but_for_no_more_than_a_little(
    size: int, count: int, read_ahead: int
) -> None:
    """While the database is away frames wait as bytes: read, they would take several times the room."""
    session = uuid4()
    read: list[int] = []

    def note(received: Received) -> str:
        read.append(received.frame_no)
        return f"entry {received.frame_no}"

    buffer = FrameBuffer(read=note)
    for number in range(1, count + 1):
        buffer.put(frame(session, number, bytes(size)))
    assert read == list(range(1, read_ahead + 1))

    taken = drained(buffer)

    assert [one.entry for one in taken] == [f"entry {n}" for n in range(1, count + 1)]
    assert read == list(range(1, count + 1)), "each once, in order"
    buffer.put(frame(session, count + 1))
    assert read[-1] == count + 1
    await asyncio.sleep(0)  # what take() asked of the loop finds nothing to do


async def test_what_waited_is_read_while_those_before_are_written() -> None:
    """A database that was slow for a moment is not made slower by reading between its calls."""
    session = uuid4()
    read: list[int] = []

    def note(received: Received) -> int:
        read.append(received.frame_no)
        return received.frame_no

    buffer = FrameBuffer(read=note)
    for number in range(1, READ_AHEAD_MAX + 501):
        buffer.put(frame(session, number))
    assert len(read) == READ_AHEAD_MAX

    buffer.take(300)
    assert len(read) == READ_AHEAD_MAX
    for _ in range(300 // READ_AT_ONCE_MAX):
        await asyncio.sleep(0)

    assert read == list(range(1, READ_AHEAD_MAX + 301))


async def test_waiting_ends_with_a_frame_a_wake_or_the_time() -> None:
    buffer = FrameBuffer()
    assert not await buffer.wait(0.01)

    waiting = asyncio.create_task(buffer.wait())
    buffer.put(frame(uuid4(), 1))
    assert await waiting
    buffer.put(frame(uuid4(), 1))
    buffer.take(1)
    assert await buffer.wait(), "another session's frame is still there"
    buffer.take(1)
    assert not await buffer.wait(0.01)

    buffer.wake()
    assert await buffer.wait()


# --- what arrives -------------------------------------------------------------------------------------------


async def test_frames_are_kept_byte_for_byte_and_numbered_in_order() -> None:
    texts = [b'{"e":"executionReport"}', b"\xff\xfe not UTF-8", b"", "ünï".encode()]

    async def handler(peer: ServerConnection) -> None:
        for text in texts:
            await peer.send(text, text=True)
        await peer.send(b"\x00binary")

    clock, buffer = ManualClock(start_ms=1000), FrameBuffer()
    clock.set_offset(50, 2)
    async with venue(handler) as url:
        connection = await connected(url, buffer, clock)
        cause = await connection.wait_closed()

    frames = drained(buffer)
    assert [one.raw for one in frames] == [*texts, b"\x00binary"]
    assert [one.frame_no for one in frames] == [1, 2, 3, 4, 5]
    assert {one.session_id for one in frames} == {connection.session_id}
    assert {(one.received_ms, one.problem) for one in frames} == {(1000, None)}
    assert connection.opened_ms == 1050, "the venue's clock"
    assert connection.frames == 5
    assert cause == "closed by venue 1000"


async def test_a_message_in_fragments_is_one_frame() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send([b'{"e":', b'"balance', b'Update"}'], text=True)
        await peer.send([b"", *[b""] * 2_000, b"{", b"", b"}"], text=True)
        await peer.send(b"[]", text=True)

    buffer = FrameBuffer()
    async with venue(handler) as url:
        await (await connected(url, buffer)).wait_closed()

    assert [one.raw for one in drained(buffer)] == [b'{"e":"balanceUpdate"}', b"{}", b"[]"]


async def test_the_socket_is_drained_though_nobody_empties_the_buffer() -> None:
    count = 5_000
    all_sent = asyncio.Event()

    async def handler(peer: ServerConnection) -> None:
        for _ in range(count):
            await peer.send(b"x" * 1000, text=True)
        all_sent.set()
        await peer.wait_closed()

    buffer = FrameBuffer()
    async with venue(handler) as url:
        connection = await connected(url, buffer)
        await all_sent.wait()
        await connection.close("stopped")

    assert [one.frame_no for one in drained(buffer)] == list(range(1, count + 1))


async def test_two_sockets_are_two_sessions() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(b"{}", text=True)
        await peer.wait_closed()

    buffer = FrameBuffer()
    async with venue(handler) as url:
        first, second = await connected(url, buffer), await connected(url, buffer)
        await first.close("rotated")
        await second.close("stopped")

    assert sorted((one.session_id, one.frame_no) for one in drained(buffer)) == sorted(
        [(first.session_id, 1), (second.session_id, 1)]
    )


# --- how it ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011, 1012, 3000, 4999])
async def test_the_venues_goodbye_is_the_cause(code: int) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(b"{}", text=True)
        await peer.close(code, "listenKey lIsTeN-0123456789 is over")

    buffer = FrameBuffer()
    async with venue(handler) as url:
        assert await (await connected(url, buffer)).wait_closed() == f"closed by venue {code}"

    assert len(drained(buffer)) == 1


@pytest.mark.parametrize("with_reset", [True, False], ids=["RST", "FIN"])
async def test_a_line_cut_without_a_word_is_lost(with_reset: bool) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(b"{}", text=True)
        if with_reset:
            raw = peer.transport.get_extra_info("socket")
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            peer.transport.abort()
        else:
            peer.transport.close()

    buffer = FrameBuffer()
    async with venue(handler) as url:
        assert await (await connected(url, buffer)).wait_closed() == "lost"

    assert len(drained(buffer)) <= 1


async def test_our_own_goodbye_keeps_the_cause_it_was_given_and_is_said_once() -> None:
    closed_with = asyncio.get_running_loop().create_future()

    async def handler(peer: ServerConnection) -> None:
        await peer.wait_closed()
        closed_with.set_result(peer.close_code)

    async with venue(handler) as url:
        connection = await connected(url, FrameBuffer())
        await asyncio.gather(connection.close("rotated"), connection.close("stopped"))
        await connection.close("again")

        assert await connection.wait_closed() == "rotated"
        assert await closed_with == 1000


async def test_what_arrives_until_the_goodbye_is_answered_is_kept() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A server that sends one more frame between our goodbye and its own."""
        await _accept(reader, writer)
        opcode = (await reader.readexactly(2))[0] & 0x0F
        assert opcode == Opcode.CLOSE
        writer.write(_frame(Opcode.TEXT, b"late") + _frame(Opcode.CLOSE, b"\x03\xe8"))
        await writer.drain()
        await reader.read()

    buffer = FrameBuffer()
    async with _raw_server(late) as url:
        await (await connected(url, buffer)).close("stopped")

    assert [one.raw for one in drained(buffer)] == [b"late"]


async def test_a_peer_that_says_goodbye_and_stays_is_hung_up_on() -> None:
    async def lingering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.write(_frame(Opcode.CLOSE, b"\x03\xe9"))
        await writer.drain()
        await asyncio.Event().wait()

    async with _raw_server(lingering) as url:
        connection = await connected(url, FrameBuffer())
        async with asyncio.timeout(stretched(10)):
            assert await connection.wait_closed() == "closed by venue 1001"


async def test_an_oversize_frame_costs_the_connection_and_leaves_a_row() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(b"before", text=True)
        await peer.send(b"x" * (1024 * 1024), text=True)
        await peer.send(b"y" * (1024 * 1024 + 1), text=True)
        await peer.wait_closed()

    buffer = FrameBuffer()
    async with venue(handler) as url:
        assert await (await connected(url, buffer)).wait_closed() == "oversize"

    kept = [(one.frame_no, len(one.raw), one.problem) for one in drained(buffer)]
    assert kept == [(1, 6, None), (2, 1024 * 1024, None), (3, 0, "oversize")]


async def test_fragments_without_end_are_oversize_too() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.write(_frame(Opcode.TEXT, b"x", fin=False))
        while True:
            writer.write(_frame(Opcode.CONT, b"x" * 50_000, fin=False))
            await writer.drain()

    buffer = FrameBuffer()
    async with _raw_server(endless) as url, asyncio.timeout(stretched(20)):
        assert await (await connected(url, buffer)).wait_closed() == "oversize"

    assert [one.problem for one in drained(buffer)] == ["oversize"]


async def test_a_full_buffer_ends_the_connection_and_keeps_what_fitted() -> None:
    async def handler(peer: ServerConnection) -> None:
        for _ in range(10):
            await peer.send(b"x" * 100, text=True)
        await peer.wait_closed()

    buffer = FrameBuffer(limit_bytes=3 * (100 + FRAME_OVERHEAD_BYTES))
    async with venue(handler) as url:
        connection = await connected(url, buffer)
        assert await connection.wait_closed() == "buffer_full"

    assert [one.frame_no for one in drained(buffer)] == [1, 2, 3]
    assert connection.frames == 3


async def test_nonsense_on_the_line_ends_the_connection() -> None:
    async def masked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.write(b"\x83\x02zz")  # an opcode that does not exist
        await writer.drain()
        await reader.read()

    async with _raw_server(masked) as url:
        assert await (await connected(url, FrameBuffer())).wait_closed() == "broken protocol 1002"


# --- silence ------------------------------------------------------------------------------------------------


def test_three_pings_fit_into_the_silence() -> None:
    assert [ping_every_s(silence_s) for silence_s in (75, 60, 30, 3)] == [20, 20, 10, 1]


async def test_a_peer_that_answers_nothing_is_dead_after_the_silence_and_not_before() -> None:
    async def black_hole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        await reader.read()

    clock = ManualClock()
    async with _raw_server(black_hole) as url:
        connection = await connected(url, FrameBuffer(), clock)
        closed = asyncio.create_task(connection.wait_closed())
        for seconds in (20, 20, 20, 14.9):
            await clock.until_asleep()
            clock.advance(seconds)
        await clock.until_asleep()
        assert not closed.done()
        clock.advance(0.2)

        assert await closed == "silent"
        assert connection.heard_s == connection.opened_s == 0


async def test_answers_to_our_pings_keep_a_quiet_account_alive() -> None:
    async def quiet(peer: ServerConnection) -> None:
        await peer.wait_closed()

    clock = ManualClock()
    async with venue(quiet) as url:
        connection = await connected(url, FrameBuffer(), clock)
        heard = _ear(connection)
        for _ in range(20):
            await clock.until_asleep()
            clock.advance(20)
            async with asyncio.timeout(stretched(10)):
                await heard()
        assert connection.heard_s == 400
        await connection.close("stopped")
        assert await connection.wait_closed() == "stopped"


async def test_pings_of_the_venue_are_answered_and_count_as_life() -> None:
    clock = ManualClock()
    asked, answered = asyncio.Event(), asyncio.Event()

    async def pinging(peer: ServerConnection) -> None:
        await asked.wait()
        await (await peer.ping(b"copy me"))
        answered.set()
        await peer.wait_closed()

    async with venue(pinging) as url:
        connection = await connected(url, FrameBuffer(), clock)
        await clock.until_asleep()
        clock.advance(5)
        asked.set()
        await answered.wait()

        assert connection.heard_s == 5
        await connection.close("stopped")


async def test_bytes_that_never_become_a_frame_are_no_sign_of_life() -> None:
    drip = asyncio.Queue[bytes]()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.write(b"\x81\x7e\xff\xff")  # a text frame of 65,535 bytes is coming, it says
        while True:
            writer.write(await drip.get())
            await writer.drain()

    clock = ManualClock()
    async with _raw_server(dripping) as url:
        connection = await connected(url, FrameBuffer(), clock)
        closed = asyncio.create_task(connection.wait_closed())
        for _ in range(5):
            drip.put_nowait(b"x")
            await clock.until_asleep()
            clock.advance(15)
        assert await closed == "silent"


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_pieces_of_a_message_that_never_ends_are_no_sign_of_life(piece: bytes) -> None:
    drip = asyncio.Queue[bytes]()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.write(_frame(Opcode.TEXT, piece, fin=False))
        while True:
            writer.write(_frame(Opcode.CONT, await drip.get(), fin=False))
            await writer.drain()

    clock = ManualClock()
    async with _raw_server(dripping) as url:
        connection = await connected(url, FrameBuffer(), clock)
        closed = asyncio.create_task(connection.wait_closed())
        for _ in range(5):
            drip.put_nowait(piece)
            await clock.until_asleep()
            clock.advance(15)
        assert await closed == "silent"
        assert connection.heard_s == 0


async def test_a_peer_that_pings_and_reads_nothing_is_hung_up_on() -> None:
    async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _accept(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
        ping = _frame(Opcode.PING, b"x" * 125) * 1000
        while True:
            writer.write(ping)
            await writer.drain()

    async with _raw_server(flooding) as url:
        connection = await connected(url, FrameBuffer())
        async with asyncio.timeout(stretched(60)):
            assert await connection.wait_closed() == "lost"


# --- getting in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_key_the_venue_does_not_know_is_refused_with_its_status(status: int) -> None:
    async with ScriptedHttp([reply(status, LISTEN_KEY)]) as server:
        with pytest.raises(VenueRefused) as caught:
            await connected(_ws(server), FrameBuffer())

    assert (caught.value.status, caught.value.code) == (status, None)
    _tells_no_secret(caught.value)


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (reply(429, "", {"Retry-After": "11"}), 11),
        (reply(418, ""), 120),
        (reply(503, ""), None),
        (reply(500, "", {"Retry-After": "3"}), 3),
    ],
)
async def test_a_busy_venue_says_how_long(answer: bytes, wait_s: float | None) -> None:
    async with ScriptedHttp([answer]) as server:
        with pytest.raises(VenueBusy) as caught:
            await connected(_ws(server), FrameBuffer())

    assert caught.value.retry_after_s == wait_s
    _tells_no_secret(caught.value)


async def test_a_redirect_is_not_followed_with_the_key_in_hand() -> None:
    async with ScriptedHttp() as elsewhere:
        location = {"Location": f"ws://127.0.0.1:{elsewhere.url.rpartition(':')[2]}/ws/{LISTEN_KEY}"}
        async with ScriptedHttp([reply(302, "", location)]) as server:
            with pytest.raises(VenueRefused, match="redirected, not followed") as caught:
                await connected(_ws(server), FrameBuffer())

    assert elsewhere.asked == []
    _tells_no_secret(caught.value)


@pytest.mark.parametrize(
    "answer", [reply(200, "{}"), b"\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]
)
async def test_something_that_is_no_websocket_is_tried_again(answer: bytes) -> None:
    async with ScriptedHttp([answer]) as server:
        with pytest.raises((VenueBusy, VenueRefused)) as caught:
            await connected(_ws(server), FrameBuffer())

    _tells_no_secret(caught.value)


async def test_nobody_there_is_busy() -> None:
    async with ScriptedHttp() as server:
        url = _ws(server)
    with pytest.raises(VenueUnreachable) as caught:
        await connected(url, FrameBuffer())

    assert str(caught.value) == f"cannot reach ws{server.url.removeprefix('http')} (SDX_STREAM_URL): connection refused"
    _tells_no_secret(caught.value)


async def test_a_handshake_that_hangs_is_given_up() -> None:
    async with ScriptedHttp([HANG]) as server:
        with pytest.raises(VenueBusy, match="no answer in time") as caught:
            await open_connection(_ws(server), FrameBuffer(), Clock(), silence_s=SILENCE_S, open_timeout_s=0.2)

    _tells_no_secret(caught.value)


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "ws://", "ws://127.0.0.1:99999", "nonsense"])
async def test_an_address_that_is_none_is_a_setting_to_correct(base: str) -> None:
    with pytest.raises(ConfigError, match="SDX_STREAM_URL") as caught:
        await connected(f"{base}/ws/{LISTEN_KEY}", FrameBuffer())

    _tells_no_secret(caught.value)


async def test_the_listen_key_is_in_no_log_line_even_at_debug(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen_by_server: list[str] = []

    async def handler(peer: ServerConnection) -> None:
        assert peer.request is not None
        seen_by_server.append(peer.request.path)
        await peer.send(f'{{"e":"listenKeyExpired","listenKey":"{LISTEN_KEY}"}}')

    server_log = logging.getLogger("test.server")
    server_log.setLevel(logging.CRITICAL)
    buffer = FrameBuffer()
    async with serve(handler, "127.0.0.1", 0, logger=server_log) as server:
        connection = await connected(stream_url(server), buffer)
        await connection.wait_closed()

    (received,) = drained(buffer)
    printed = capsys.readouterr()
    assert seen_by_server == [f"/ws/{LISTEN_KEY}"]
    assert LISTEN_KEY not in caplog.text + printed.out + printed.err + repr(received) + repr(connection)


async def test_no_compression_is_offered_and_no_proxy_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    offered: list[str | None] = []

    def note(peer: ServerConnection, request: Request) -> Response | None:
        offered.append(request.headers.get("Sec-WebSocket-Extensions"))
        return None

    async def handler(peer: ServerConnection) -> None:
        await peer.wait_closed()

    async with serve(handler, "127.0.0.1", 0, process_request=note) as server:
        await (await connected(stream_url(server), FrameBuffer())).close("stopped")

    assert offered == [None]


# --- helpers ------------------------------------------------------------------------------------------------


def _tells_no_secret(error: BaseException) -> None:
    assert LISTEN_KEY not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None, "a traceback would print the library's words"


def _ws(server: ScriptedHttp) -> str:
    return f"ws{server.url.removeprefix('http')}/ws/{LISTEN_KEY}"


def _frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=False)


def _ear(connection: Connection) -> Callable[[], Awaitable[None]]:
    """A function that waits for the next sign of life."""
    heard = asyncio.Event()
    listen = connection._socket.on_event

    def noted() -> None:
        assert listen is not None
        listen()
        heard.set()

    connection._socket.on_event = noted

    async def wait() -> None:
        await heard.wait()
        heard.clear()

    return wait


async def _accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server's half of the handshake."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    await writer.drain()


@asynccontextmanager
async def _raw_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that speaks bytes, for what no library would send."""
    serving: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/{LISTEN_KEY}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        await server.wait_closed()
