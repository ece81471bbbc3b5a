"""PostgreSQL: connections, retries, the schema that is there. Nothing outside ``wire`` knows the driver.

Always holds: work handed to a ``Writer`` is tried again, unchanged, for as long as the database is away or refuses to
work; only what the rows say can be refused for good. A lost connection is never taken for a rollback, so all work must
be safe to repeat.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import structlog

from ledger.db import code, coverage, refusals
from ledger.db.apply import Applied
from ledger.db.coverage import Gap
from ledger.errors import ConfigError, DatabaseError, Fenced, NoLedger, WentBack
from ledger.log import redact
from ledger.wire.reach import place, why
from ledger.wire.tip import Tip

T = TypeVar("T")
log = structlog.get_logger(__name__)

OLDEST_MAJOR = 15
FENCED = "SDX01"
"""SQLSTATE of ledger.lock_account: another process leads now."""
REFUSED = "refused by the database"
"""How the journal's ``problem`` begins where the database refused what a row says."""
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
LOCK_WAIT_MS = 5000
RETRY_PAUSE_MAX_S = 5.0
TELL_WITHIN_S = 2.0
"""How long a writer that is refused tries to say so in the database's own status."""
REMIND_EVERY_S = 60.0
"""How often the log says again that the database refuses to work."""
UNSENT_BYTES = 2 * 1024 * 1024
"""What the system may hold of a call for us: all of a large one, so that it leaves while we read the next frames."""

# Away, restarting or failing over: the same work may succeed later.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    # What the driver says, instead of InterfaceError, when a session ends between two statements of a transaction.
    asyncpg.InternalClientError,
)
# In conflict with another writer: the same work succeeds in a moment, on the same connection.
CONFLICT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)


def in_words(error: BaseException) -> str:
    """The error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


def is_refusal(error: BaseException) -> bool:
    """Whether the work was understood and what its rows say is refused, here or at the server: repeating cannot help.

    Nothing but content counts (db/refusals.py); every other error is waited out. What the driver cannot put into the
    form that the server wants is content too: it raises that as an error of class 22.
    """
    if not isinstance(error, asyncpg.PostgresError):
        return False
    names = [getattr(error, f"{name}_name", None) for name in ("schema", "table", "column", "constraint")]
    return refusals.is_content(error.sqlstate, *names)


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of the server's word; None: it is none, or has none."""
    return getattr(error, "sqlstate", None)


def refusal(error: BaseException) -> str:
    """What the database said, for the journal: without the row, which may be the account's."""
    message = getattr(error, "message", None)
    if message is None:  # the driver's own words quote the value
        message = f"a value cannot be sent to it ({type(error.__cause__ or error).__name__})"
    sqlstate = sqlstate_of(error)
    return f"{REFUSED}{f' ({sqlstate})' if sqlstate else ''}: {message}"


async def connect(url: str, *, application: str, writes: bool = True) -> Any:
    """One asyncpg connection. Raises what the driver raises of the server, ConfigError for a URL that the driver does
    not take; use ``Writer`` to wait for a database that is away."""
    settings = {
        "application_name": application,
        # Nothing that others can create is looked at: every name of ours is written with its schema.
        "search_path": "pg_catalog, pg_temp",
        "jit": "off",
        "lock_timeout": str(LOCK_WAIT_MS),
        "idle_in_transaction_session_timeout": "5000",
    }
    try:
        conn = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings
        )
    except ValueError as error:  # the driver's ClientConfigurationError is one too
        if isinstance(error, OSError):  # and so is a certificate that does not hold
            raise
        raise ConfigError(f"SDX_DATABASE_URL: the driver does not take it: {_why(error)}") from None
    # Not among the settings above: the driver would take the server for one that cannot be written, which a URL with
    # several hosts and target_session_attrs looks for.
    await conn.execute(f"SET default_transaction_read_only = {'off' if writes else 'on'}")
    _hold_calls_whole(conn)
    return conn


def _why(error: ValueError) -> str:
    """The driver's words where they speak of a certificate's file; others may quote the password."""
    text = str(error)
    if isinstance(error, asyncpg.ClientConfigurationError) and "certificate" in text:
        return redact(text)
    return f"{type(error).__name__} (its words are not shown, they may hold the password); check every part of the URL"


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

    ``account``: whose status says it while the database refuses to work (None: nobody's). ``tip``: the end of the
    journal, looked for over every new connection and noted with every answer (None: it does not matter). ``connect`` is
    how the connection is made, as ``connect`` of this module makes it; a simulation hands in its own.
    """

    def __init__(
        self,
        url: str,
        *,
        application: str,
        account: str | None = None,
        tip: Tip | None = None,
        connect: Callable[..., Awaitable[Any]] = connect,
    ) -> None:
        self._connect = connect
        self._tip = tip
        self._generation = 0
        self._url = url
        self._application = application
        self._account = account
        self._conn: Any = None
        self._away = False
        self._refused: str | None = None
        """SQLSTATE, or name, of the error that is waited out; None: none."""
        self._reminded_s = 0.0
        self._status_due = False
        """Whether status may still say that the database refuses to work although it does not."""
        self._rows = 0
        self._plan_at_rows = 2

    async def run(self, work: Callable[[Any], Awaitable[T]], *, rows: int = 1) -> T:
        """Do ``work(conn)``; whatever the database has against it but its content, do it again, with growing pauses of
        at most ``RETRY_PAUSE_MAX_S``, without end.

        ``rows``: about how many it may write (see ``_plan_anew``).
        Raises only what repeating cannot mend: Fenced, ``is_refusal`` errors, programming errors, cancellation; and
        WentBack, until ``go_on``, once the database lost what it had confirmed, with the gap open already.
        """
        pause_s = 0.05
        while True:
            try:
                if self._conn is None or self._conn.is_closed():
                    self._conn = await self._connect(self._url, application=self._application)
                    await self._check_tip(self._conn)
                await self._plan_anew(rows)
                result = await self._meant(work, self._conn)
            except (*AWAY, asyncpg.PostgresError) as error:
                await self._judge(error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)
            else:
                await self._works()
                return result

    def go_on(self) -> None:
        """Take the database as it is now, also where it went back."""
        if self._tip is not None:
            self._generation = self._tip.generation

    async def _check_tip(self, conn: Any) -> None:
        if self._tip is None:
            return
        try:
            await self._tip.check(conn)
        except BaseException:
            await self._drop()  # so that it is looked for again
            raise

    async def _meant(self, work: Callable[[Any], Awaitable[T]], conn: Any) -> T:
        """Do the work if the database is still the one it was meant for. Raises WentBack."""
        tip = self._tip
        if tip is None:
            return await work(conn)
        if self._generation != tip.generation:
            raise WentBack("the database lost rows that it had confirmed")
        before_seq = tip.seq
        result = await work(conn)
        if isinstance(result, Gap):
            tip.note_gap(result)
        if isinstance(result, Applied) and self._generation == tip.generation and tip.lost_by(result, before_seq):
            await tip.replaced(conn, result, self._generation)
        return result

    async def _judge(self, error: Exception) -> None:
        """Say why the work must wait. Raises what repeating cannot mend."""
        if is_refusal(error):
            raise error
        sqlstate = sqlstate_of(error)
        if sqlstate == FENCED:
            raise Fenced(str(error)) from None
        if sqlstate == refusals.FRAMES_OVERLAP:
            raise error
        if isinstance(error, CONFLICT):
            return
        if isinstance(error, AWAY) and not isinstance(error, asyncpg.ClientConfigurationError):
            if not self._away:
                log.warning("database is away, waiting for it", error=in_words(error))
            self._away = True
        else:
            await self._say_refused(error, sqlstate)
        # What a session had planned or looked up may be part of the trouble: the next try gets a fresh one.
        await self._drop()

    async def _say_refused(self, error: Exception, sqlstate: str | None) -> None:
        """In the log at once and now and then; in ``status`` at every try, since another writer may say it is over."""
        name, now_s = sqlstate or type(error).__name__, asyncio.get_running_loop().time()
        todo = refusals.advice(sqlstate)
        if self._refused != name or now_s - self._reminded_s >= REMIND_EVERY_S:
            self._reminded_s = now_s
            log.error(
                "database refuses to work, this account is paused",
                account=self._account,
                writer=self._application,
                sqlstate=sqlstate,
                error=getattr(error, "message", None) or in_words(error),
                todo=todo,
            )
        self._refused = name
        self._status_due = True
        await self._set_status(
            f"the database refuses to work ({name}): {getattr(error, 'message', None) or error}; {todo}"
        )

    async def _works(self) -> None:
        """The work is done: what was said of the database before is over."""
        if self._away:
            log.info("database is back")
        if self._refused is not None:
            log.info("database works again", account=self._account, writer=self._application)
        self._away, self._refused = False, None
        if self._status_due and await self._set_status(None):
            self._status_due = False

    async def _set_status(self, problem: str | None) -> bool:
        """Say it where ``status`` reads. False: the database refuses that too, or there is no connection."""
        if self._account is None:
            return True
        if self._conn is None or self._conn.is_closed():
            return False
        try:
            async with asyncio.timeout(TELL_WITHIN_S):
                await coverage.set_paused(self._conn, self._account, problem)
        except (*AWAY, asyncpg.PostgresError):
            await self._drop()
            return False
        return True

    @property
    def away(self) -> bool:
        """Whether the last attempt found no database."""
        return self._away

    @property
    def waits(self) -> bool:
        """Whether the last attempt found no database, or one that refuses to work."""
        return self._away or self._refused is not None

    async def close(self) -> None:
        if self._conn is not None and not self._conn.is_closed():
            try:
                await self._conn.close(timeout=2)
            except AWAY:
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
    except (*AWAY, asyncpg.PostgresError) as error:
        raise DatabaseError(
            f"cannot connect to the database at {place(url)}: {_no_connection(error)}; check SDX_DATABASE_URL, or that "
            "the server runs"
        ) from None
    try:
        yield conn
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseError(f"the database failed while it was read: {in_words(error)}") from None
    finally:
        await conn.close()


def _no_connection(error: BaseException) -> str:
    if isinstance(error, OSError):
        return "no answer in time" if isinstance(error, TimeoutError) else why(error)
    return in_words(error)


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
        raise NoLedger("the database holds no ledger yet; run: sdx-ledger db upgrade")
    await refuse_newer(conn)
    if found != wanted:
        raise DatabaseError(f"schema {found} is older than this program ({wanted}); run: sdx-ledger db upgrade")
    if await conn.fetchval(code.INSTALLED_DIGEST) != code.digest():
        raise DatabaseError(
            f"schema {found} is this program's, but its functions are of another build; run: sdx-ledger db upgrade"
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
