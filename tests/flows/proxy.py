"""A TCP proxy on loopback that goes wrong on demand: between the mirror and whatever it talks to.

Always holds: bytes pass in order and unchanged until a line is told otherwise; after the end of the block no line
and no task is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

READ_BYTES = 1 << 16
HOST = "127.0.0.1"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """One client and its line to the server. ``hello`` is what the client said first."""

    def __init__(self, client: Stream, server: Stream) -> None:
        self.hello = b""
        self.hushed = False
        """Whatever comes from either side is swallowed, and nobody is told."""
        self._client, self._server = client, server

    def cut(self) -> None:
        """Abort both ends."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def carry(self, proxy: Proxy) -> None:
        """Pass bytes both ways until either side ends."""
        ways = [asyncio.create_task(self._to_server(proxy)), asyncio.create_task(self._to_client(proxy))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _to_server(self, proxy: Proxy) -> None:
        while data := await self._client[0].read(READ_BYTES):
            self.hello = self.hello or data
            proxy.hear(self, data)
            await self._pass(data, self._server[1])

    async def _to_client(self, proxy: Proxy) -> None:
        while data := await self._server[0].read(READ_BYTES):
            if proxy.loses_answer(self):
                self.cut()
                return
            await self._pass(data, self._client[1])

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if not self.hushed:
            writer.write(data)
            await writer.drain()


class Proxy:
    """Listens on ``port``; ``connect`` opens the line to the server behind it."""

    def __init__(self, connect: Callable[[], Awaitable[Stream]]) -> None:
        self.port = 0
        self.lines: list[Line] = []
        """Those that are up, oldest first."""
        self.answers_lost = 0
        self._connect = connect
        self._away = False
        self._marker: bytes | None = None
        self._unanswered: Line | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def go_away(self) -> None:
        """Cut every line and let nobody in until ``come_back``."""
        self._away = True
        for line in self.lines:
            line.cut()

    def come_back(self) -> None:
        """Let lines through again."""
        self._away = False

    def lose_answer_to(self, marker: bytes) -> None:
        """The next words of a client that hold ``marker`` reach the server; its answer is lost with the line."""
        self._marker = marker

    def hear(self, line: Line, data: bytes) -> None:
        """A client has spoken."""
        if self._marker is not None and self._marker in data:
            self._marker, self._unanswered = None, line

    def loses_answer(self, line: Line) -> bool:
        """Whether this line's answer is the one to be lost."""
        if line is not self._unanswered:
            return False
        self._unanswered = None
        self.answers_lost += 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._away:
            writer.transport.abort()
            return
        with suppress(OSError):
            line = Line((reader, writer), await self._connect())
            self.lines.append(line)
            try:
                await line.carry(self)
            finally:
                self.lines.remove(line)


def before_port(port: int) -> Proxy:
    """A proxy in front of a server on this machine."""
    return Proxy(lambda: asyncio.open_connection(HOST, port))


def before_database(url: str) -> Proxy:
    """A proxy in front of the PostgreSQL of ``url``, be it reached over TCP or a socket in a folder."""
    parts = urlsplit(url)
    told = parse_qs(parts.query)
    port = parts.port or int(told.get("port", ["5432"])[0])
    folder = told.get("host", [""])[0]
    if folder.startswith("/"):
        return Proxy(lambda: asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}"))
    return Proxy(lambda: asyncio.open_connection(parts.hostname or HOST, port))


def through(proxy: Proxy, url: str) -> str:
    """The same database, reached through the proxy."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{HOST}:{proxy.port}", query=""))
