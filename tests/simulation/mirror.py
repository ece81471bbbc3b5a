"""One mirror process: the real ``app.Mirror``, wired to the simulated world.

Always holds: everything in it is the program's own but its clock, its connections and its transport; what ends it other
than a kill or a stop is remembered in ``failure``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pydantic import SecretStr

from ledger import app, config
from ledger.db import coverage
from ledger.stream.consumer import Consumer
from ledger.wire.budget import Budget
from ledger.wire.clock import Clock
from ledger.wire.http import VenueHttp
from ledger.wire.postgres import Writer
from tests.simulation.database import Database
from tests.simulation.loop import PROCESS, Process, SimLoop
from tests.simulation.venue import API_KEY, API_SECRET, REST_URL, START_MS, STREAM_URL, Venue

STOP_WITHIN_S = 20.0


class SimClock(Clock):
    """The clock of one process: its wall may be off and may jump, its monotonic time is the world's."""

    def __init__(self, loop: SimLoop, process: Process, wall_off_ms: int) -> None:
        self._loop = loop
        self._process = process
        self.wall_off_ms = wall_off_ms
        super().__init__()

    def now_ms(self) -> int:
        return START_MS + self.wall_off_ms + int(self._loop.time() * 1000)

    def monotonic_s(self) -> float:
        return 1000.0 + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await self._process.point("before sleep")
        await asyncio.sleep(max(seconds, 0))
        await self._process.point("after sleep")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person would have configured; in seconds."""

    sockets: int
    rest_lag_s: float
    silence_s: float
    every_s: float
    keepalive_s: float
    key_ttl_s: float
    max_age_s: float
    weight_per_minute: int
    symbols: tuple[str, ...] = ()


class Mirror:
    """One process of the service, for one account. ``data_dir`` outlives it."""

    def __init__(
        self,
        name: str,
        account: str,
        settings: Settings,
        data_dir: Path,
        loop: SimLoop,
        venue: Venue,
        rng: Random,
        wall_off_ms: int,
    ) -> None:
        self.process = Process(name)
        self.clock = SimClock(loop, self.process, wall_off_ms)
        self.failure: BaseException | None = None
        self._settings = _configured(account, settings, data_dir)
        self._loop = loop
        self._venue = venue
        self._rng = rng
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, as a process of its own."""
        self._main = self._loop.spawn(self.process, self._run())

    def is_running(self) -> bool:
        """Alive and not ended by itself or by a stop."""
        return self.process.alive and self._main is not None and not self._main.done()

    async def stop(self) -> bool:
        """As SIGTERM does; killed when that takes too long. True: it ended by itself."""
        assert self._main is not None
        self._main.cancel()
        done, _ = await asyncio.wait((self._main,), timeout=STOP_WITHIN_S)
        self.process.kill()
        return bool(done)

    async def _run(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = error

    async def _live(self) -> None:
        http = VenueHttp(
            REST_URL,
            API_KEY,
            API_SECRET,
            self.clock,
            budget=Budget(self._settings.weight_per_minute),
            rng=Random(self._rng.random()),
            transport=self._venue.transport_of(self.process),
        )
        (account,) = self._settings.all_accounts()
        mirror = app.Mirror(self._settings, account, app.Database("", "", "", embedded=False), http, self.clock)
        await mirror.register()
        await mirror.first_contact()
        await mirror.run()


def _configured(account: str, settings: Settings, data_dir: Path) -> config.Settings:
    """The program's settings, whatever this machine's environment says."""
    return config.Settings.model_construct(
        account=account,
        api_key=SecretStr(API_KEY),
        api_secret=SecretStr(API_SECRET),
        rest_url=REST_URL,
        stream_url=STREAM_URL,
        data_dir=data_dir,
        keepalive_s=settings.keepalive_s,
        listen_key_ttl_s=settings.key_ttl_s,
        connection_max_age_s=settings.max_age_s,
        sockets=settings.sockets,
        silence_s=settings.silence_s,
        rest_lag_s=settings.rest_lag_s,
        reconcile_every_s=settings.every_s,
        weight_per_minute=settings.weight_per_minute,
        symbols=settings.symbols,
    )


@contextlib.contextmanager
def wired(database: Database, venue: Venue, rng: Random) -> Iterator[None]:
    """What the program builds meanwhile reaches database and venue as the process that builds it."""

    def here() -> Process:
        process = PROCESS.get()
        assert process is not None, "only processes reach the outside world"
        return process

    def connect(*args: Any, **options: Any) -> Any:
        return database.connect_as(here())(*args, **options)

    def open_connection(*args: Any, **options: Any) -> Any:
        return venue.connect_as(here())(*args, **options)

    def consumer(account: str, rules: Any, lease: Any, writer: Writer, clock: Clock, **options: Any) -> Consumer:
        chance = Random(rng.random())
        return Consumer(account, rules, lease, writer, clock, chance, connect=open_connection, **options)

    with (
        mock.patch.object(app, "Writer", partial(Writer, connect=connect)),
        mock.patch.object(app, "Consumer", consumer),
        mock.patch.object(app, "os", SimpleNamespace(getpid=lambda: 1)),
        mock.patch.object(app, "platform", SimpleNamespace(node=lambda: "simulated")),
    ):
        yield


def rendered(error: BaseException) -> str:
    """An error, or each of a group, on one line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(rendered(one) for one in error.exceptions)
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


async def asked_for_walk(conn: Any, account: str, venue: Venue, since_ms: int) -> None:
    """What ``sdx-ledger reconcile --since`` begins with: a gap over everything since then."""
    await coverage.open_gap(
        conn, account, cause=coverage.ASKED_FOR, until_ms=venue.now_ms(), not_after_ms=since_ms, live=False
    )
