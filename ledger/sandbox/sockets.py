"""One WebSocket as the venue's side sees it, with control of every byte.

The protocol is the sans-I/O one of ``websockets``; the bytes go through our hands, so a socket can be
aborted, fall silent, or lose its frames while its pings flow.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

BACKLOG_BYTES_MAX = 64 << 20
"""What may wait for a client that does not read; beyond it the client is cut off."""

# The library would log each handshake, and with it the listen key.
_NO_LOG = logging.getLogger("ledger.sandbox.sockets")
_NO_LOG.disabled = True


class Socket:
    """One client. ``key`` is the listen key it came with; ``silent`` and ``deaf`` are set by faults."""

    def __init__(self, writer: asyncio.StreamWriter, key: str) -> None:
        self.key = key
        self.silent = False
        """Nothing leaves any more, not even a pong."""
        self.deaf = False
        """Frames are lost; pings and pongs flow."""
        self.heard_pong = True
        self._writer = writer
        self._protocol = ServerProtocol(max_size=1 << 20, logger=_NO_LOG)

    @property
    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    def shake_hands(self, head: bytes, refusal: tuple[int, str] | None) -> bool:
        """Answer the upgrade request ``head``; ``refusal``: HTTP status and reason. True: the socket is open."""
        self._protocol.receive_data(head)
        for request in self._protocol.events_received():
            if isinstance(request, Request):
                answer = self._protocol.reject(*refusal) if refusal else self._protocol.accept(request)
                self._protocol.send_response(answer)
        self._flush()
        return self.is_open

    def hear(self, data: bytes) -> bool:
        """Bytes from the client. False when that was the end of the conversation."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.PONG:
                self.heard_pong = True
        self._flush()
        return self._protocol.state is not State.CLOSED and not self._protocol.close_expected()

    def send(self, payload: bytes) -> bool:
        """One text frame; the payload is not looked at, so it may be anything. True when it left."""
        if not self.is_open or self.silent or self.deaf:
            return False
        self._protocol.send_text(payload)
        self._flush()
        self._bound_backlog()
        return True

    def send_framed(self, data: bytes | bytearray) -> None:
        """Frames as ``framed`` laid them out, any number of them; nothing is looked at."""
        self._writer.write(data)
        self._bound_backlog()

    def ping(self) -> None:
        if self.is_open and not self.silent:
            self.heard_pong = False
            self._protocol.send_ping(b"sandbox")
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Begin an orderly close."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._writer.transport.abort()

    def _bound_backlog(self) -> None:
        if self._writer.transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            self.abort()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self.silent:
                continue
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                self._writer.write_eof()


def framed(payload: bytes) -> bytes:
    """The text frame as it goes over the wire."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)
