"""The listen key: a lease with a deadline of its own, on which every socket of the account depends.

Always holds: one key is held at a time, and past its deadline it is dead even while pings flow; whoever waits on
a key learns exactly once that it is lost, and a second word of the same loss changes nothing for the next key.
The key reads the whole account, so it is hidden from logs and in no message.

Source: the venue documents 60 minutes, a PUT at least every 30 and a DELETE. That POST gives the active key again,
that PUT and DELETE name it as listenKey, and -1125 for an unknown key are those of the venue it follows.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field

import structlog

from ledger.errors import KeyRefused, VenueBusy, VenueError, VenueRefused
from ledger.log import hide
from ledger.venue import requests
from ledger.venue.rest_pages import said
from ledger.wire.clock import Clock
from ledger.wire.http import VenueHttp

log = structlog.get_logger(__name__)

UNKNOWN_KEY = -1125
RETRY_S = 5.0
"""Pause after a PUT that failed, or a third of the keepalive time if that is shorter."""
KEY_RETRY_S = 60.0
"""The same while the API key is refused: nothing is asked then, only the alarm repeated."""


@dataclass(slots=True, eq=False)
class _Held:
    """One key and when the venue last confirmed it (monotonic)."""

    key: str = field(repr=False)
    confirmed_s: float
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str | None = None


class ListenKeyLease:
    """The listen key of one account. Times in seconds: extended every ``keepalive_s``, dead after ``ttl_s``."""

    def __init__(self, http: VenueHttp, clock: Clock, *, keepalive_s: float, ttl_s: float) -> None:
        assert 0 < keepalive_s < ttl_s
        self._http = http
        self._clock = clock
        self._keepalive_s = keepalive_s
        self._ttl_s = ttl_s
        self._held: _Held | None = None
        self._answers = 0
        self._acquiring = asyncio.Lock()
        self._acquired = asyncio.Event()

    @property
    def key(self) -> str | None:
        """The key to connect with; None when there is none that is alive."""
        return None if self._held is None or self.expired(self._clock.monotonic_s()) else self._held.key

    @property
    def confirmed_ms(self) -> int | None:
        """When the venue last confirmed the key, dead or alive (venue clock, as it is believed now); None before the
        first one."""
        return None if self._held is None else self._clock.venue_ms_at(self._held.confirmed_s)

    @property
    def confirmed_s(self) -> float | None:
        """The same by the monotonic clock."""
        return None if self._held is None else self._held.confirmed_s

    def expired(self, now_s: float) -> bool:
        """Whether the stream is dead for want of a key: none held, lost, or past the deadline (monotonic)."""
        held = self._held
        return held is None or held.reason is not None or now_s >= held.confirmed_s + self._ttl_s

    async def acquire(self) -> str:
        """Ask for a key: a new one, or the active one for another full time. Raises VenueError.

        Another key than the one held means that the held one is dead: whoever waits on it is told 'replaced'.
        Callers that come together share one question.
        """
        before = self._answers
        async with self._acquiring:
            shared = self.key
            if self._answers == before or shared is None:
                return await self._acquire()
            return shared

    async def keep(self) -> None:
        """Extend whatever key is held, until cancelled. Raises nothing: a PUT that fails is an alarm and repeated."""
        while True:
            held = self._held
            if held is None or held.reason is not None:
                self._acquired.clear()
                await self._acquired.wait()
                continue
            async with asyncio.TaskGroup() as tasks:
                extending = tasks.create_task(self._extend(held))
                await self._until_lost(held)
                extending.cancel()

    async def wait_lost(self, key: str | None = None) -> str:
        """Wait until the key is lost and say why: '-1125', 'deadline', 'replaced', 'released', or what
        ``invalidate`` was told.

        ``key``: the one to wait on (None: the one held now); one that is not held any more is lost.
        """
        held = self._held
        if held is None or (key is not None and held.key != key):
            return "replaced" if held is not None else "released"
        await held.lost.wait()
        assert held.reason is not None
        return held.reason

    def invalidate(self, reason: str, key: str | None = None) -> None:
        """The key is no longer good. ``key``: the one that is meant, if known; a word about an old one is ignored."""
        if self._held is not None and key in (None, self._held.key):
            self._lose(self._held, reason)

    def retry_key(self) -> None:
        """Let an API key that was refused a listen key be tried again."""
        self._http.retry_key("key")

    @property
    def answers(self) -> int:
        """Good answers of the venue to anything but the listen key, so far."""
        return self._http.answers

    async def until_answered(self, after: int) -> None:
        """Wait until the venue has given more good ``answers`` than ``after``."""
        await self._http.until_answered(after)

    async def release(self) -> None:
        """Tell the venue that the key is no longer wanted, by anybody: all clients of the account share it.

        Raises VenueError when the venue did not take it; the key lapses by itself then.
        """
        held = self._held
        if held is None or held.reason is not None:
            return
        self._lose(held, "released")
        await self._http.send(requests.delete_listen_key(held.key))

    async def _acquire(self) -> str:
        asked_s = self._clock.monotonic_s()
        key = key_in((await self._http.send(requests.create_listen_key())).body)
        hide(key)
        self._answers += 1
        held = self._held
        if held is not None and held.reason is None and held.key == key:
            self._confirm(held, asked_s)
            return key
        if held is not None and held.key != key:
            log.warning("venue gave another listen key than the one held")
            self._lose(held, "replaced")
        self._held = _Held(key, asked_s)
        self._acquired.set()
        return key

    async def _extend(self, held: _Held) -> None:
        """PUT at the pace of the keepalive, faster after a failure, until cancelled or the key is lost."""
        pause_s = held.confirmed_s + self._keepalive_s - self._clock.monotonic_s()
        while held.reason is None:
            await self._clock.sleep(pause_s)
            asked_s = self._clock.monotonic_s()
            try:
                await self._http.send(requests.extend_listen_key(held.key))
            except VenueRefused as refused:
                if refused.code == UNKNOWN_KEY:
                    self._lose(held, str(UNKNOWN_KEY))
                    return
                pause_s = self._alarm(held, refused)
            except VenueError as error:
                pause_s = self._alarm(held, error)
            else:
                self._confirm(held, asked_s)
                pause_s = self._keepalive_s

    def _alarm(self, held: _Held, error: VenueError) -> float:
        """Say that the key could not be extended; returns the seconds until the next try."""
        left_s = round(held.confirmed_s + self._ttl_s - self._clock.monotonic_s())
        log.error("listen key not extended, the stream dies with it", error=str(error), seconds_left=left_s)
        told_s = error.retry_after_s if isinstance(error, VenueBusy) else None
        pause_s = KEY_RETRY_S if isinstance(error, KeyRefused) else RETRY_S
        return max(told_s or 0.0, min(pause_s, self._keepalive_s / 3))

    async def _until_lost(self, held: _Held) -> None:
        """Wait until the key is lost, and lose it at its deadline, which moves with every confirmation."""
        while held.reason is None:
            left_s = held.confirmed_s + self._ttl_s - self._clock.monotonic_s()
            if left_s <= 0:
                self._lose(held, "deadline")
                return
            lost = asyncio.create_task(held.lost.wait())
            passed = asyncio.create_task(self._clock.sleep(left_s))
            try:
                await asyncio.wait((lost, passed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                lost.cancel()
                passed.cancel()

    def _confirm(self, held: _Held, asked_s: float) -> None:
        """The venue knows the key. Counted from when we asked, since nobody can tell when it did so."""
        held.confirmed_s = max(held.confirmed_s, asked_s)

    def _lose(self, held: _Held, reason: str) -> None:
        if held.reason is not None:
            return
        held.reason = reason
        held.lost.set()
        if reason not in ("released", "replaced"):
            log.error("listen key lost", reason=reason)


def key_in(body: bytes) -> str:
    """The key in the answer. Raises VenueRefused when there is none that could stand in an address."""
    told: object = None
    try:
        told = json.loads(body)
        key = told.get("listenKey") if isinstance(told, dict) else None
    except (ValueError, RecursionError):
        key = None
    # "." and ".." would name another path of the address than a key.
    if not isinstance(key, str) or not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._~=+-]{1,512}", key):
        raise VenueRefused(
            f"POST /api/v1/userDataStream: expected a listen key, got no listen key in the answer{said(told)}",
            status=200,
            code=None,
        )
    return key
