"""A venue's REST server that says exactly what a test tells it to, byte for byte, over a real socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; ``target`` is the raw path with its query, header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))


def reply(status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> bytes:
    """A whole, well-formed answer."""
    raw = body.encode() if isinstance(body, str) else body
    told = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} Told\r\n{lines}\r\n".encode() + raw


def until_closed(body: bytes, status: int = 200) -> bytes:
    """An answer whose end is the end of the connection, so that nobody can tell a cut from an end."""
    return f"HTTP/1.1 {status} Told\r\nConnection: close\r\n\r\n".encode() + body


HANG = b""
"""Take the request and say nothing."""


class ScriptedHttp:
    """Answers requests with ``script``, one after the other, then with ``{}``.

    An answer that cannot keep the connection (no Content-Length of its own body) is followed by its end.
    """

    def __init__(self, script: Sequence[bytes | Callable[[], bytes]] = ()) -> None:
        self.script = deque(script)
        self.asked: list[Asked] = []
        self.url = ""
        self._arrived = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    async def until_asked(self, count: int) -> None:
        """Wait until ``count`` requests have arrived in all."""
        while len(self.asked) < count:
            self._arrived.clear()
            await self._arrived.wait()

    def answer_to(self, asked: Asked) -> bytes:
        """The next of the script, whatever is asked; a venue with opinions of its own says something else."""
        told = self.script.popleft() if self.script else reply(200, b"{}")
        return told if isinstance(told, bytes) else told()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while await self._answer(reader, writer):
                pass
            writer.close()
            await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
        self.asked.append(Asked(method, target, headers))
        self._arrived.set()
        answer = self.answer_to(self.asked[-1])
        if answer == HANG:
            await reader.read()
            return False
        writer.write(answer)
        await writer.drain()
        return _keeps_connection(answer)


def _keeps_connection(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"\r\nContent-Length: {len(body)}".encode() in head
