"""A real PostgreSQL behind the simulated wire: real calls on the real driver, one at a time, when the seed says so.

Always holds: a call happens at one instant of virtual time, after the process sent it and before it hears the answer;
what happens to process and connection in between (killed, paused, cut) changes only whether it hears. A connection
that was lost, closed or belongs to a dead process refuses everything. The connections to the server outlive processes
and seeds, since nothing of ours keeps state in a session; planning anew is skipped for the same reason, it costs only
time.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

import asyncpg

from ledger.db import tables
from ledger.wire import postgres
from tests.simulation.loop import Process, SimLoop

T = TypeVar("T")
Log = Callable[[str], None]

FAULTS = ("lost_before", "answer_lost", "backend_terminated", "lock_timeout")
FENCE_ARGUMENT = 10
"""Where ``ledger.apply`` takes the fence."""
PAST = "sdx_past"
"""Schema of the copies that a database goes back to."""
DIGEST_SAID = re.compile(r"[0-9a-f]{64}")
DELAY_MAX_S = 4.0
LOCK_TIMEOUT_MS = 20
"""How long a call really waits for a lock that is held on purpose."""


TERMINATED_WITHIN_MS = 60_000
"""Only a bound: how long the server may take to end a session does not show in the world."""


WRITER = "sdx_writer"
"""The role under which processes write, as in earnest; the world itself is the superuser."""
ENTRIES = ("apply", "open_gap", "close_gap", "find_order_checks", "explain", "set_mode")
"""What the writer may call; it may only read tables."""
CALLED = ("apply", "row_digest", "lock_account", "move_alone", "doubt")


def _refusal(kind: str, chance: Random) -> tuple[str, str]:
    """How the database comes to refuse, and how that ends: a right or a function is missing, or some content is not
    taken."""
    if kind == "grants":
        right = f"EXECUTE ON FUNCTION ledger.{chance.choice(ENTRIES)}"
        return f"REVOKE {right} FROM {WRITER}", f"GRANT {right} TO {WRITER}"
    if kind == "function":
        name = chance.choice(CALLED)
        return (
            f"ALTER FUNCTION ledger.{name} RENAME TO {name}_gone",
            f"ALTER FUNCTION ledger.{name}_gone RENAME TO {name}",
        )
    rule = "ALTER TABLE ledger.fills DROP CONSTRAINT fills_source_is_known; ALTER TABLE ledger.fills ADD CONSTRAINT"
    taken = f"{rule} fills_source_is_known CHECK (source IN ('stream', 'rest'))"
    return f"{taken[:-1]} AND order_id % 3 <> {chance.randrange(3)}) NOT VALID", f"{taken} NOT VALID"


class Server:
    """The connections of one worker to its database, on a loop of their own that runs only while a call is made."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._free: list[Any] = []
        self._own: Any = None

    def run(self, work: Awaitable[T]) -> T:
        """Do it now; the caller's loop stands still meanwhile. Not from within a task of that loop."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(_awaited(work))
        finally:
            asyncio._set_running_loop(outer)

    def take(self) -> Any:
        """A connection for one call, fresh or used before."""
        while self._free:
            real = self._free.pop()
            if not real.is_closed():
                return real
        real = self.run(self._connect())
        self.run(real.execute(f"SET ROLE {WRITER}"))
        return real

    def give_back(self, real: Any) -> None:
        if not real.is_closed():
            self._free.append(real)

    @property
    def own(self) -> Any:
        """The world's own connection: for checks, and to do harm."""
        if self._own is None or self._own.is_closed():
            self._own = self.run(self._connect())
        return self._own

    def close(self) -> None:
        for real in (*self._free, *([self._own] if self._own is not None else [])):
            if not real.is_closed():
                self.run(real.close())
        self._free = []
        self._loop.close()

    async def _connect(self) -> Any:
        real = await postgres.connect(self._url, application="sdx-ledger simulation")
        # Power is never cut here, so what a commit waits for does not matter.
        await real.execute("SET synchronous_commit = off")
        return real


def _are_digests(arg: object) -> bool:
    return isinstance(arg, list) and any(isinstance(one, bytes) for one in arg)


async def _terminated(own: Any, real: Any) -> None:
    """End that session at the server, and see to it that the driver knows."""
    gone = await own.fetchval("SELECT pg_terminate_backend($1, $2)", real.get_server_pid(), TERMINATED_WITHIN_MS)
    assert gone, f"not within {TERMINATED_WITHIN_MS} ms: the end of a session of the server"
    real.terminate()


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class Database:
    """One seed's database as its processes see it, and the harm that is due."""

    def __init__(self, server: Server, loop: SimLoop, rng: Random, log: Log, account: str) -> None:
        self._server = server
        self._loop = loop
        self._rng = rng
        self._log = log
        self._account = account
        self.done: Counter[str] = Counter()
        """Harm done so far, by kind."""
        self._links: list[Link] = []
        self._has_past = False
        self._due: list[str] = []
        self._ends: dict[str, str] = {}
        """What ends a refusal that lasts, by kind."""
        self._away_until_s = 0.0
        self.slowness = 1.0
        self.fence = 0
        """The newest number anybody was given to lead under."""
        self.returned_to: tuple[int, int] | None = None
        """Where the database last went back to, if rows were lost: the instant up to which it had been live (venue
        clock, ms; 0: never) and its newest gap then."""
        self.trespasses: list[str] = []
        """Writes under an older one that the database took."""
        self.silent_until_ms = 0
        """Until when the venue wants silence, as a process wrote it down (its own clock)."""

    def harm(self, kind: str, times: int = 1) -> None:
        """One of ``FAULTS``, to the next so many calls that come."""
        self._due += [kind] * times

    def go_away(self, for_s: float) -> None:
        """Refuse connections and cut those there are, for so long."""
        self._away_until_s = self._loop.time() + for_s
        self.done["database_away"] += 1

    def refuse(self, kind: str, chance: Random, for_s: float) -> None:
        """A right or a function is missing, or some content is not taken, for so long; one of a kind at a time."""
        do, undo = _refusal(kind, chance)

        def begin() -> None:
            if kind not in self._ends:
                self._ends[kind] = undo
                self._server.run(self._server.own.execute(do))
                self.done[f"database_{kind}"] += 1
                self._loop.outside(for_s, self._permit, kind)

        self._loop.outside(0, begin)

    def _permit(self, kind: str) -> None:
        undo = self._ends.pop(kind, None)
        if undo is not None:
            self._server.run(self._server.own.execute(undo))

    def restore(self) -> None:
        """Whatever the story left refused is as before. Not from within a task of the world."""
        for kind in list(self._ends):
            self._permit(kind)

    @property
    def is_harmed(self) -> bool:
        """Whether calls are lost, slow or refused now."""
        return bool(self._due or self._ends) or self._is_away() or self.slowness > 1.0

    def heal(self) -> None:
        """No more harm from now on."""
        self._due, self._away_until_s, self.slowness, self._has_past = [], 0.0, 1.0, False
        self._loop.outside(0, self.restore)

    def remember(self) -> None:
        """Where a standby is that falls behind from now on: everything the account has, in one moment.

        One does already: it stays where it is, or the database would go back to what it never had.
        """
        if self._has_past:
            return
        self._has_past = True
        self._server.run(self._copy("ledger", PAST))

    def go_back(self) -> bool:
        """The standby takes over: what was written since ``remember`` is lost, every connection is cut."""
        if not self._has_past:
            return False
        self.done["database_went_back"] += 1
        before = self._server.run(self._heads())
        self._has_past = False
        self._server.run(self._copy(PAST, "ledger"))
        now = self._server.run(self._heads())
        if now[:2] != before[:2]:
            self.returned_to = (now[2], now[1])
        for link in self._links:
            link.terminate()
        row = self._server.run(
            self._server.own.fetchrow(
                "SELECT a.fence, v.blocked_until_ms FROM ledger.accounts a LEFT JOIN ledger.venue_state v"
                " ON v.account = a.account WHERE a.account = $1",
                self._account,
            )
        )
        self.fence = row["fence"] if row is not None else 0
        self.silent_until_ms = (row["blocked_until_ms"] or 0) if row is not None else 0
        return True

    async def _heads(self) -> tuple[int, int, int]:
        """The newest journal row, the newest gap, and the instant up to which the stream was live (0: none)."""
        row = await self._server.own.fetchrow(
            "SELECT coalesce((SELECT head_seq FROM ledger.accounts WHERE account = $1), 0),"
            " coalesce((SELECT max(gap_id) FROM ledger.gaps WHERE account = $1), 0),"
            " coalesce((SELECT max(live_through_ms) FROM ledger.coverage WHERE account = $1 AND symbol = '*'), 0)",
            self._account,
        )
        return row[0], row[1], row[2]

    async def _copy(self, source: str, target: str) -> None:
        own = self._server.own
        names = sorted({*tables.DISTRIBUTED, *tables.REFERENCE})
        async with own.transaction():
            # As a standby does: without triggers, and nobody sees half of it.
            await own.execute("SET LOCAL session_replication_role = replica")
            await own.execute(f"CREATE SCHEMA IF NOT EXISTS {PAST}")
            for name in names:
                await own.execute(f"CREATE TABLE IF NOT EXISTS {PAST}.{name} (LIKE ledger.{name})")
                await own.execute(f"DELETE FROM {target}.{name} WHERE account = $1", self._account)
                await own.execute(
                    f"INSERT INTO {target}.{name} SELECT * FROM {source}.{name} WHERE account = $1", self._account
                )

    async def ask(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """The world itself asks: ``work`` gets a real connection."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def do() -> None:
            try:
                self._server.run(self._set_clock(self._server.own))
                answer.set_result(self._server.run(work(self._server.own)))
            except Exception as error:
                answer.set_exception(error)

        self._loop.outside(0, do)
        return await answer

    def connect_as(self, process: Process) -> Callable[..., Awaitable[Any]]:
        """What stands for ``wire.postgres.connect`` in that process."""

        async def connect(_url: str, *, application: str, writes: bool = True) -> Link:
            await process.point("connect to database")
            await asyncio.sleep(self._delay_s())
            if self._is_away():
                raise asyncpg.CannotConnectNowError("the database system is starting up")
            link = Link(self, process, application)
            self._links = [one for one in self._links if not one.is_closed()]
            self._links.append(link)
            process.on_killed.append(link.terminate)
            return link

        return connect

    def send(self, link: Link, method: str, sql: str, args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        """The call is on its way; it happens in a moment."""
        self._loop.outside(self._delay_s(), self._do, link, method, sql, args, answer)

    # --- at the server

    def _is_away(self) -> bool:
        return self._loop.time() < self._away_until_s

    def _delay_s(self) -> float:
        """Half a round trip, now and then with a hiccup."""
        hiccup = 200 if self._rng.random() < 0.01 else 1
        return min(self._rng.uniform(0.0001, 0.002) * self.slowness * hiccup, DELAY_MAX_S)

    def _do(self, link: Link, method: str, sql: str, args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        if link.is_closed() and not link.process.alive and self._rng.random() < 0.5:
            return  # killed before the bytes had left the machine
        if link.is_closed() and link.process.alive:
            self._reply(link, answer, error=self._cut(link, "connection was closed in the middle of operation"))
            return
        kind = self._due.pop(0) if self._due and method != "listen" else ""
        if self._is_away():
            kind = "away"
        if kind:
            self.done[f"database_{kind}"] += 1
            self._log(f"db fault {kind}")
        if kind in ("lost_before", "away"):
            self._reply(link, answer, error=self._cut(link, "connection was closed in the middle of operation"))
            return
        result, error = self._really(link, method, sql, args, kind)
        told = f"{type(error).__name__}" if error is not None else "ok"
        self._log(f"db {link.process.name} {_brief(sql)} {self._digest(args)} {told}")
        if error is None:
            self._note_fence(sql, args, result)
        if error is None and "SET blocked_until_ms" in sql:
            self.silent_until_ms = max(self.silent_until_ms, args[1])
        link.process.touch(f"done, not answered: {_brief(sql)}")
        if kind == "answer_lost":
            error = self._cut(link, "connection was closed in the middle of operation")
        self._reply(link, answer, result, error)

    def _really(
        self, link: Link, method: str, sql: str, args: tuple[Any, ...], kind: str
    ) -> tuple[Any, Exception | None]:
        real, own = self._server.take(), self._server.own
        try:
            if kind == "lock_timeout":
                return self._server.run(self._under_lock(own, real, method, sql, args)), None
            if kind == "backend_terminated":
                self._server.run(_terminated(own, real))
                raise self._told_of_end()
            return self._server.run(self._timed(real, method, sql, args)), None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return None, error
        finally:
            if real.is_closed():
                link.terminate()
            self._server.give_back(real)

    def _told_of_end(self) -> Exception:
        """What the driver raises when the server ended the session: which of them depends on how much of the server's
        last words had arrived by the time of the call, so that here the seed says it."""
        words: tuple[Exception, ...] = (
            asyncpg.AdminShutdownError("terminating connection due to administrator command"),
            asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
            asyncpg.InterfaceError("connection is closed"),
        )
        return self._rng.choice(words)

    def _digest(self, args: tuple[Any, ...]) -> str:
        """What was asked, in short; left out is the account's name, which differs from run to run, and digests of the
        journal, which depend on it."""
        asked = [len(arg) if _are_digests(arg) else arg for arg in args if arg != self._account]
        return hashlib.blake2b(DIGEST_SAID.sub("", repr(asked)).encode(), digest_size=5).hexdigest()

    async def _timed(self, real: Any, method: str, sql: str, args: tuple[Any, ...]) -> Any:
        await self._set_clock(real)
        return await getattr(real, method)(sql, *args)

    async def _set_clock(self, real: Any) -> None:
        """The database's clock is the world's (see ``crew``)."""
        await real.execute(f"SET sdx.now_ms = {int(self._loop.time() * 1000)}")

    def _note_fence(self, sql: str, args: tuple[Any, ...], result: Any) -> None:
        if "take_lead(" in sql and result is not None:
            self.fence = max(self.fence, result)
        if "ledger.apply(" in sql and args[FENCE_ARGUMENT] is not None and args[FENCE_ARGUMENT] < self.fence:
            self.trespasses.append(f"under {args[FENCE_ARGUMENT]}, while {self.fence} leads")

    async def _under_lock(self, own: Any, real: Any, method: str, sql: str, args: tuple[Any, ...]) -> Any:
        """The call meets a lock on the account's row that somebody else holds for longer than it waits."""
        await self._set_clock(real)
        await real.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        try:
            async with own.transaction():
                await own.execute("SELECT FROM ledger.accounts WHERE account = $1 FOR UPDATE", self._account)
                return await getattr(real, method)(sql, *args)
        finally:
            if not real.is_closed():
                await real.execute("SET lock_timeout = 5000")

    def _cut(self, link: Link, text: str) -> Exception:
        link.terminate()
        error: Exception = asyncpg.ConnectionDoesNotExistError(text)
        return error

    def _reply(
        self, link: Link, answer: asyncio.Future[Any], result: Any = None, error: Exception | None = None
    ) -> None:
        def arrive() -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._loop.outside(self._delay_s(), arrive)


class Link:
    """A process's connection: as much of the driver's as the program uses."""

    def __init__(self, database: Database, process: Process, application: str) -> None:
        self.process = process
        self._database = database
        self._application = application
        self._closed = False

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        if sql == "DISCARD PLANS":
            return sql
        return await self._call("execute", sql, args, timeout)

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._call("fetch", sql, args, timeout)

    async def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._call("fetchrow", sql, args, timeout)

    async def fetchval(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._call("fetchval", sql, args, timeout)

    def is_closed(self) -> bool:
        return self._closed

    async def close(self, timeout: float | None = None) -> None:
        self.terminate()

    def terminate(self) -> None:
        self._closed = True

    async def _call(self, method: str, sql: str, args: tuple[Any, ...], timeout_s: float | None) -> Any:
        if not self.process.alive:
            raise asyncio.CancelledError
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")
        brief = _brief(sql)
        await self.process.point(f"before {brief}")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._database.send(self, method, sql, args, answer)
        async with asyncio.timeout(timeout_s):
            result = await answer
        await self.process.point(f"after {brief}")
        return result


def _brief(sql: str) -> str:
    return " ".join(sql.split())[:60]
