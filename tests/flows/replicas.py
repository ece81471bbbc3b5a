"""A PostgreSQL and its streaming standby on loopback, for as long as a test: cut off, stopped hard, promoted.

Real servers of the binaries the other tests run on, with their usual durable settings.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from ledger.wire import postgres
from ledger.wire.pg_binaries import as_user, find_binaries, within_reach
from tests.flows.processes import PATIENCE_S, until
from tests.patience import stretched

HOST = "127.0.0.1"
OWNER, WRITER = "sdx_owner", "sdx_writer"
DATABASE = "ledger"
SETTINGS = {"listen_addresses": HOST, "unix_socket_directories": "", "shared_buffers": "16MB", "max_connections": "40"}
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _user() -> tuple[int, int] | None:
    """(uid, gid) that PostgreSQL, which refuses to be root, runs as; None: as ourselves."""
    if os.geteuid():
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


USER = _user()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """One server on a port of its own. ``data`` is its cluster, made by ``initdb`` or ``pg_basebackup``."""

    def __init__(self, data: Path, binaries: Path) -> None:
        self.data = data
        self.port = _free_port()
        self._binaries = binaries
        self._process: asyncio.subprocess.Process | None = None

    def url(self, *, user: str = OWNER, database: str = DATABASE) -> str:
        return f"postgresql://{user}@{HOST}:{self.port}/{database}"

    async def run(self, program: str, *words: str) -> None:
        """One of PostgreSQL's programs, to its end, on this cluster."""
        done = await asyncio.create_subprocess_exec(
            *(str(self._binaries / program), "-D", str(self.data), *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            **as_user(USER),
        )
        said, _ = await done.communicate()
        assert done.returncode == 0, f"{program} ended with {done.returncode}: {said.decode()[-1000:]}"

    async def start(self) -> None:
        """Until it answers."""
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with self.data.with_suffix(".log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
                **as_user(USER),
            )
        await until(self._answers, f"PostgreSQL of {self.data.name} answers")

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.data.with_suffix(".log").read_text()[-1000:]
        try:
            await (await asyncpg.connect(self.url(database="postgres"), timeout=5)).close()
        except postgres.AWAY:
            return False
        return True

    async def stop_hard(self) -> None:
        """As PostgreSQL's immediate shutdown: clients get no word, nothing is flushed. No word if it does not run."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGQUIT)
        await asyncio.wait_for(self._process.wait(), stretched(PATIENCE_S))
        self._process = None


class Pair:
    """``primary`` with an empty database and the writer's role, ``standby`` that streams from it."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary, self.standby = primary, standby

    def url(self, attributes: str, *, user: str = OWNER) -> str:
        """Both hosts, the standby first, so that it matters what is asked of the one that is taken."""
        hosts = f"{HOST}:{self.standby.port},{HOST}:{self.primary.port}"
        return f"postgresql://{user}@{hosts}/{DATABASE}?target_session_attrs={attributes}"

    async def synchronous(self) -> None:
        """From now on a commit is confirmed once the standby has it."""
        async with session(self.primary) as conn:
            await conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await conn.execute("SELECT pg_reload_conf()")

            async def is_so() -> bool:
                return await conn.fetchval("SELECT sync_state FROM pg_stat_replication") == "sync"

            await until(is_so, "the standby is synchronous")

    async def cut_off(self) -> None:
        """The standby hears nothing more from now on, and has replayed what it heard."""
        async with session(self.standby) as conn:
            await conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await conn.execute("SELECT pg_reload_conf()")

            async def is_alone() -> bool:
                heard: bool = await conn.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"
                    " AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"
                )
                return heard

            await until(is_alone, "the standby is cut off")

    async def fail_over(self) -> None:
        """The primary is gone from one moment to the next, and the standby takes its place."""
        await self.primary.stop_hard()
        async with session(self.standby) as conn:
            assert await conn.fetchval("SELECT pg_promote(true, 60)")


@asynccontextmanager
async def session(server: Server) -> AsyncIterator[Any]:
    """A connection as the owner."""
    conn = await postgres.connect(server.url(), application="tests replicas")
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def replicated() -> AsyncIterator[Pair]:
    """Both servers, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sdx-replicas-", dir="/tmp"))  # 0700
    given = os.environ.get("SDX_TEST_PG_BIN")
    if USER is not None:
        os.chown(folder, *USER)
    binaries = within_reach(Path(given) if given else find_binaries(), lambda: folder / "postgres", USER)
    pair = Pair(Server(folder / "primary", binaries), Server(folder / "standby", binaries))
    try:
        await pair.primary.run("initdb", "-U", OWNER, "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        await pair.primary.start()
        maintenance = await asyncpg.connect(pair.primary.url(database="postgres"))
        await maintenance.execute(f"CREATE ROLE {WRITER} LOGIN")
        await maintenance.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
        await maintenance.close()
        await pair.standby.run(
            *("pg_basebackup", "-d", pair.primary.url(database="postgres"), "-R", "-X", "stream"),
            *("--checkpoint=fast", "--no-sync"),
        )
        await pair.standby.start()
        yield pair
    finally:
        for server in (pair.primary, pair.standby):
            await server.stop_hard()
        shutil.rmtree(folder, ignore_errors=True)
