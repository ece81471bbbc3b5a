"""PostgreSQL: connections, retries, the schema that is there. Nothing outside ``wire`` knows the driver.

Always holds: work handed to a ``Writer`` is tried again, unchanged, for as long as the database is away; a lost
connection is never taken for a rollback, so all work must be safe to repeat.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import structlog

from ledger.db import code
from ledger.errors import DatabaseError, Fenced

T = TypeVar("T")
log = structlog.get_logger(__name__)

OLDEST_MAJOR = 15
FENCED = "SDX01"
"""SQLSTATE of ledger.lock_account: another process leads now."""
REFUSED = "refused by the database"
"""How the journal's ``problem`` begins where the database refused what a row says."""
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
RETRY_PAUSE_MAX_S = 5.0
UNSENT_BYTES = 2 * 1024 * 1024
"""What the system may hold of a call for us: all of a large one, so that it leaves while we read the next frames."""

# Away, restarting, failing over, full, or in conflict with another writer: the same work may succeed later.
TRANSIENT = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    # What the driver says, instead of InterfaceError, when a session ends between two statements of a transaction.
    asyncpg.InternalClientError,
)


def _lock_conflict(error: BaseException) -> bool:
    kinds = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
    return isinstance(error, kinds)


def in_words(error: BaseException) -> str:
    """The error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


def is_refusal(error: BaseException) -> bool:
    """Whether the database understood the work and refuses its content (a check, a cast): repeating cannot help."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, TRANSIENT)


def refusal(error: BaseException) -> str:
    """What the database said, for the journal: without the row, which may be the account's."""
    return f"{REFUSED}: {getattr(error, 'message', error)}"


async def connect(url: str, *, application: str, writes: bool = True) -> Any:
    """One asyncpg connection. Raises what the driver raises; use ``Writer`` to wait for a database that is away."""
    settings = {
        "application_name": application,
        "jit": "off",
        "lock_timeout": "5000",
        "idle_in_transaction_session_timeout": "5000",
        "default_transaction_read_only": "off" if writes else "on",
    }
    conn = await asyncpg.connect(
        url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings
    )
    _hold_calls_whole(conn)
    return conn


def _hold_calls_whole(conn: Any) -> None:
    """Ask the system to hold ``UNSENT_BYTES`` for this connection; it grants what its ``net.core.wmem_max`` allows.

    Only where the server is reached by a file, as the embedded one is: what TCP holds the system fits to the line. The
    driver has no word for it and does not show its socket; one that keeps it elsewhere is left as it is.
    """
    transport = getattr(conn, "_transport", None)
    stream = None if transport is None else transport.get_extra_info("socket")
    if stream is not None and stream.family == socket.AF_UNIX:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)


class Writer:
    """One connection, made when needed and made again when lost. Not for concurrent use.

    ``connect`` is how it is made, as ``connect`` of this module makes it; a simulation hands in its own.
    """

    def __init__(self, url: str, *, application: str, connect: Callable[..., Awaitable[Any]] = connect) -> None:
        self._connect = connect
        self._url = url
        self._application = application
        self._conn: Any = None
        self._away = False
        self._rows = 0
        self._plan_at_rows = 2

    async def run(self, work: Callable[[Any], Awaitable[T]], *, rows: int = 1) -> T:
        """Do ``work(conn)``; on a lost connection or a lock conflict do it again, with growing pauses, without end.

        ``rows``: about how many it may write (see ``_plan_anew``).
        Raises only what repeating cannot mend: Fenced, ``is_refusal`` errors, programming errors, cancellation.
        """
        pause_s = 0.05
        while True:
            try:
                if self._conn is None or self._conn.is_closed():
                    self._conn = await self._connect(self._url, application=self._application)
                await self._plan_anew(rows)
                result = await work(self._conn)
            except TRANSIENT as error:
                if not _lock_conflict(error):
                    await self._drop()
                    if not self._away:
                        log.warning("database is away, waiting for it", error=in_words(error))
                    self._away = True
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
            except asyncpg.PostgresError as error:
                if error.sqlstate == FENCED:
                    raise Fenced(str(error)) from None
                raise
            else:
                if self._away:
                    log.info("database is back")
                self._away = False
                return result

    @property
    def away(self) -> bool:
        """Whether the last attempt found no database."""
        return self._away

    async def close(self) -> None:
        if self._conn is not None and not self._conn.is_closed():
            try:
                await self._conn.close(timeout=2)
            except TRANSIENT:
                self._conn.terminate()
        self._conn = None

    async def _plan_anew(self, rows: int) -> None:
        """Forget plans made while the tables were smaller: whenever as much again was written.

        Statements are planned once and kept. On a table still empty, without statistics, any index looks as good as
        the right one (seen: the whole account read per fill, 20 times slower, until autovacuum came by).
        """
        self._rows += rows
        if self._rows >= self._plan_at_rows:
            self._plan_at_rows = 2 * self._rows
            await self._conn.execute("DISCARD PLANS")

    async def _drop(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


@asynccontextmanager
async def reading(url: str, *, application: str = "sdx-ledger read", writes: bool = False) -> AsyncIterator[Any]:
    """One asyncpg connection for a command, read-only unless it ``writes``. Raises DatabaseError in words when it
    cannot be had."""
    try:
        conn = await connect(url, application=application, writes=writes)
    except (*TRANSIENT, asyncpg.PostgresError) as error:
        raise DatabaseError(
            f"cannot connect to the database: {in_words(error)}; check SDX_DATABASE_URL, or that the service runs"
        ) from None
    try:
        yield conn
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseError(f"the database failed while it was read: {in_words(error)}") from None
    finally:
        await conn.close()


async def installed_revision(conn: Any) -> str | None:
    """The schema version of the database; None when it holds no ledger."""
    if await conn.fetchval("SELECT to_regclass('ledger.alembic_version')") is None:
        return None
    found: str | None = await conn.fetchval("SELECT version_num FROM ledger.alembic_version")
    return found


async def check_schema(conn: Any) -> None:
    """Refuse a schema this program was not made for. Raises DatabaseError naming ``db upgrade``."""
    await refuse_unfit(conn)
    found = await installed_revision(conn)
    wanted = code.NEWEST
    if found is None:
        raise DatabaseError("the database holds no ledger yet; run: sdx-ledger db upgrade")
    await refuse_newer(conn)
    if found != wanted or await conn.fetchval(code.INSTALLED_DIGEST) != code.digest():
        raise DatabaseError(
            f"the database has schema {found}, this program wants {wanted} with its own functions; "
            "run: sdx-ledger db upgrade"
        )


async def refuse_newer(conn: Any) -> None:
    """Refuse a schema of a newer program. Raises DatabaseError."""
    found = await installed_revision(conn)
    if found is not None and found not in code.REVISIONS:
        raise DatabaseError(
            f"the database has schema {found}, which is newer than this program (it knows up to "
            f"{code.NEWEST}); install a newer sdx-ledger"
        )


async def refuse_unfit(conn: Any) -> None:
    """Refuse a server that is too old, loses commits, or cannot hold every text. Raises DatabaseError."""
    version = int(await conn.fetchval("SELECT current_setting('server_version_num')")) // 10000
    if version < OLDEST_MAJOR:
        raise DatabaseError(f"PostgreSQL {version} is too old: {OLDEST_MAJOR} or newer is needed")
    encoding = await conn.fetchval("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise DatabaseError(f"the database is encoded in {encoding}; make one with ENCODING 'UTF8'")
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        value = await conn.fetchval("SELECT current_setting($1)", name)
        if value == "off":
            raise DatabaseError(f"PostgreSQL runs with {name} = off, so a commit may be lost; set it to on")
