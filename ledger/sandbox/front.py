"""The front door: one port of 127.0.0.1 that takes HTTP requests and WebSockets, byte by byte.

Always holds: an upgraded connection is in ``sockets`` as long as it can be talked to; after ``stop`` no
task and no connection is left; every wait for a client ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from http.client import responses

import h11

from ledger.sandbox.rest import Answer, Call
from ledger.sandbox.sockets import Socket

HOST = "127.0.0.1"
IDLE_S = 120.0
CLOSE_S = 10.0
BODY_BYTES_MAX = 1 << 20
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How a venue looks after its sockets: pings, patience, and the age at which it sends them away; seconds."""

    ping_every_s: float = 20.0
    pong_timeout_s: float = 60.0
    connection_max_age_s: float = 86_400.0


class Front:
    """Listens, answers, keeps sockets. What is answered is up to the callables handed in.

    ``answer`` answers one call; ``refusal`` gives the HTTP status and reason a listen key is turned away with, or None;
    ``changed`` is called whenever a socket came or went or a call was answered.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Call], Awaitable[Answer]],
        refusal: Callable[[str], tuple[int, str] | None],
        changed: Callable[[], None],
        now_ms: Callable[[], int],
        now_s: Callable[[], float],
        upkeep: Upkeep,
    ) -> None:
        self.port = 0
        self.sockets: set[Socket] = set()
        self.sockets_opened = 0
        self._answer_to, self._refusal, self._changed = answer, refusal, changed
        self._now_ms, self._now_s = now_ms, now_s
        self._upkeep = upkeep
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listen on ``port``; 0 takes any free one. Raises OSError when it is taken."""
        self._server = await asyncio.start_server(self._accept, HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything and end every task, those of ``spawn`` included; safe to call twice."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server:
            await self._server.wait_closed()
            self._server = None

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run ``work`` until it ends or ``stop`` ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.spawn(self._connection(reader, writer))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=READ_BYTES)
        try:
            while request := await self._read_request(http, reader):
                if _wants_socket(request[0]):
                    await self._talk(http, request[0], reader, writer)
                    break
                await self._answer(http, *request, writer)
                if http.our_state is not h11.DONE:
                    break
                http.start_next_cycle()
        except (ConnectionError, TimeoutError, h11.ProtocolError):
            pass  # the client is gone, idle or no HTTP client at all: nothing to tell it
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
            writer.transport.abort()
            self._writers.discard(writer)

    async def _read_request(
        self, http: h11.Connection, reader: asyncio.StreamReader
    ) -> tuple[h11.Request, bytes] | None:
        request, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(IDLE_S):
                    http.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES_MAX:
                    return None
            elif isinstance(event, h11.EndOfMessage) and request:
                return request, body
            else:
                return None

    async def _answer(
        self, http: h11.Connection, request: h11.Request, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        call = _call(request, body, writer.get_extra_info("peername")[0])
        answer = await self._answer_to(call)
        headers = [
            ("Date", formatdate(self._now_ms() / 1000, usegmt=True)),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        ]
        if not any(name == "Content-Type" for name, _ in headers):
            headers.append(("Content-Type", "application/json;charset=UTF-8"))
        reason = responses.get(answer.status, "")
        writer.write(http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason)) or b"")
        if answer.cut:
            writer.write(answer.body[: len(answer.body) // 2])
            http.send_failed()
        else:
            writer.write(http.send(h11.Data(data=answer.body)) or b"")
            writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        self._changed()

    async def _talk(
        self,
        http: h11.Connection,
        request: h11.Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        socket = Socket(writer, request.target.decode("ascii").removeprefix("/ws/"))
        if not socket.shake_hands(_head(request), self._refusal(socket.key)):
            await writer.drain()
            return
        self.sockets.add(socket)
        self.sockets_opened += 1
        self._changed()
        pinger = self.spawn(self._ping(socket))
        try:
            data = http.trailing_data[0] or await reader.read(READ_BYTES)
            while data and socket.hear(data):
                data = await reader.read(READ_BYTES)
        finally:
            pinger.cancel()
            self.sockets.discard(socket)
            self._changed()

    async def _ping(self, socket: Socket) -> None:
        """Ping now and then; a client that answers none for too long is cut, an old one sent away."""
        opened_s = pong_s = self._now_s()
        while socket.is_open:
            socket.ping()
            await asyncio.sleep(self._upkeep.ping_every_s)
            if socket.heard_pong or socket.silent:
                pong_s = self._now_s()
            if self._now_s() - pong_s > self._upkeep.pong_timeout_s:
                socket.abort()
            if self._now_s() - opened_s > self._upkeep.connection_max_age_s:
                socket.close(1001, "connection is too old")
        await asyncio.sleep(CLOSE_S)
        socket.abort()  # it has not answered our close


def _wants_socket(request: h11.Request) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)


def _head(request: h11.Request) -> bytes:
    """The request as it came, for the WebSocket protocol to read again."""
    lines = [b"%s: %s" % (name, value) for name, value in request.headers]
    return b"\r\n".join([b"GET %s HTTP/1.1" % request.target, *lines, b"", b""])


def _call(request: h11.Request, body: bytes, ip: str) -> Call:
    path, _, query = request.target.decode("ascii").partition("?")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
    return Call(request.method.decode("ascii"), path, query, headers, body, ip)
