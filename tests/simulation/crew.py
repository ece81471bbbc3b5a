"""Many seeds on several workers, each with a database of its own on one PostgreSQL server.

Always holds: a worker's database has the schema of this program and nothing else; it is dropped in the end, and a
server that was started for the run is stopped.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ledger.wire import postgres, schema
from ledger.wire.embedded import Embedded
from tests.simulation.database import WRITER, Server
from tests.simulation.plants import PLANTS, planted
from tests.simulation.scenario import choose, crash_story
from tests.simulation.world import Outcome, World, silence

SERVER_URL = "SDX_TEST_SERVER_URL"
"""The environment's name for the URL of a running server's superuser; without it one is started for the run."""

VIRTUAL_CLOCK = """
CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT to_timestamp(1717372800 + current_setting('sdx.now_ms')::numeric / 1000)
$$
"""
"""The clock of the database, as each call sets it; one that did not would fail here."""

ROLE = f"""
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{WRITER}') THEN
        CREATE ROLE {WRITER};
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN   -- another worker made it meanwhile
END
$$
"""

_runs = count(1)


@dataclass(frozen=True, slots=True)
class Job:
    """One run. ``story``: a number is a seed; a name is that of a dialect's crash story. ``kill_at``: see ``World``."""

    story: int | str
    plant: str | None = None
    kill_at: int | None = None
    keep_lines: bool = False
    needs: str | None = None
    """A kind of harm that the story is made to have, whatever its seed draws."""


class Bench:
    """One database, and stories run on it one after the other."""

    def __init__(self, url: str) -> None:
        self.server = Server(url)

    def run(self, job: Job) -> Outcome:
        """Run one story, under an account name that nobody used before."""
        scenario = choose(job.story, job.needs) if isinstance(job.story, int) else crash_story(job.story)
        account = f"s{job.story}-{next(_runs)}"
        with planted(PLANTS[job.plant] if job.plant else None, self.server):
            return World(scenario, self.server, account, keep_lines=job.keep_lines, kill_at=job.kill_at).run()

    def close(self) -> None:
        self.server.close()


class Crew:
    """Workers with a bench each. A single worker is this very process, with its ``bench``."""

    def __init__(self, url: str, name: str, workers: int) -> None:
        self._url = url
        self._names = [f"{name}_{number}" for number in range(workers)]
        self._pool: ProcessPoolExecutor | None = None
        self.bench: Bench | None = None

    def __enter__(self) -> Crew:
        if len(self._names) == 1:
            self.bench = _new_bench(self._url, self._names[0])
        else:
            spawn = multiprocessing.get_context("spawn")
            names = spawn.SimpleQueue()
            for name in self._names:
                names.put(name)
            self._pool = ProcessPoolExecutor(
                len(self._names), mp_context=spawn, initializer=_enter, initargs=(self._url, names)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self.bench is not None:
            self.bench.close()
        for name in self._names:
            asyncio.run(_execute(self._url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    def outcomes(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """What became of each job, in their order; stop listening and no more are begun."""
        if self._pool is None:
            assert self.bench is not None
            yield from map(self.bench.run, jobs)
            return
        begun: deque[Future[Outcome]] = deque()
        try:
            for job in jobs:
                begun.append(self._pool.submit(_run, job))
                if len(begun) > 2 * len(self._names):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for one in begun:
                one.cancel()


@contextmanager
def working(workers: int) -> Iterator[Crew]:
    """A crew on a server: the one the environment names, else one started for this."""
    with a_server() as url, Crew(url, f"sdx_simulation_{os.getpid()}", workers) as crew:
        yield crew


@contextmanager
def a_server() -> Iterator[str]:
    """URL of a PostgreSQL's maintenance database, as superuser."""
    if given := os.environ.get(SERVER_URL):
        yield given
        return
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(prefix="sdx-simulate-") as folder:
        server = Embedded(Path(folder))
        loop.run_until_complete(server.start())
        try:
            yield server.url("postgres")
        finally:
            loop.run_until_complete(server.stop())
            loop.close()


_here: Bench | None = None


def _enter(url: str, names: SimpleQueue[str]) -> None:
    """A worker begins."""
    global _here
    _here = _new_bench(url, names.get())


def _run(job: Job) -> Outcome:
    assert _here is not None
    return _here.run(job)


def _new_bench(url: str, name: str) -> Bench:
    own_url = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    with silence():
        asyncio.run(_execute(url, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
        asyncio.run(_execute(url, ROLE))
        asyncio.run(schema.upgrade(own_url))
    asyncio.run(_execute(own_url, VIRTUAL_CLOCK))
    return Bench(own_url)


async def _execute(url: str, sql: str) -> None:
    conn = await postgres.connect(url, application="sdx-ledger simulation")
    try:
        await conn.execute(sql)
    finally:
        await conn.close()
