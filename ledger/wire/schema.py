"""The schema of the database, made and upgraded: SQLAlchemy and Alembic are loaded here alone, since few commands need
them.

Always holds: two that upgrade at once do it one after the other; functions, views and grants are this program's after
any upgrade; one that is kept waiting ends within seconds and says who keeps it.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from ledger import files
from ledger.db import code
from ledger.errors import DatabaseError
from ledger.wire import postgres

log = structlog.get_logger(__name__)

UPGRADE_LOCK = 7236472
"""Two services that start at once must not migrate at once. Whoever may connect can hold it, and some do by accident:
the wait for it is as short as that for a table."""
_HOLDERS = f"""
    SELECT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'a program without a name') AS program
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
    JOIN pg_stat_activity mine ON mine.pid = pg_backend_pid()
    WHERE l.granted AND l.pid <> pg_backend_pid() AND (
        l.locktype = 'advisory' AND (l.classid, l.objid, l.objsubid) = (0, {UPGRADE_LOCK}, 1)
        OR l.relation IN (SELECT c.oid FROM pg_class c WHERE c.relnamespace::regnamespace::text LIKE 'ledger%')
           AND (a.xact_start < mine.backend_start - $1 * interval '1 ms') IS NOT false)
    GROUP BY a.pid, a.usename, a.application_name ORDER BY a.pid
"""
"""Sessions that held what an upgrade had to wait for: since before it began to wait, as far as we may see that. Asked
by a session that was opened when the wait was over."""


async def is_current(url: str) -> bool:
    """Whether the schema is of this program's version, with its functions. False too where nobody can tell."""
    try:
        conn = await postgres.connect(url, application="sdx-ledger upgrade")
        try:
            return await _is_current(conn)
        finally:
            await conn.close()
    except (*postgres.AWAY, asyncpg.PostgresError):
        return False


async def _is_current(conn: Any) -> bool:
    if await postgres.installed_revision(conn) != code.NEWEST:
        return False
    return bool(await conn.fetchval(code.INSTALLED_DIGEST) == code.digest())


async def upgrade(url: str, *, anew: bool = False) -> str:
    """Bring the schema, with its functions, views and grants, to this program's version, which is returned.

    Where all that is in place nothing is touched, unless it is to be laid ``anew``.
    Raises DatabaseError when the server is too old, cannot be reached, or holds a newer schema than this program.
    """
    try:
        conn = await postgres.connect(url, application="sdx-ledger upgrade")
        try:
            await postgres.refuse_unfit(conn)
            await postgres.refuse_newer(conn)
            before = await postgres.installed_revision(conn)
            if not anew and await _is_current(conn):
                return code.NEWEST
        finally:
            await conn.close()
        owner = create_async_engine(
            "postgresql+asyncpg://", async_creator=lambda: postgres.connect(url, application="sdx-ledger upgrade")
        )
        try:
            async with owner.begin() as connection:
                await connection.run_sync(_upgrade)
        finally:
            await owner.dispose()
        log.info("schema upgraded", before=before, now=code.NEWEST)
    except (*postgres.AWAY, asyncpg.PostgresError, SQLAlchemyError) as error:
        said = _said(error)
        if isinstance(said, asyncpg.LockNotAvailableError):
            raise DatabaseError(f"cannot upgrade the database: {await _who_is_in_the_way(url)}") from None
        raise DatabaseError(
            f"cannot upgrade the database: {postgres.in_words(said)}; check SDX_DATABASE_URL, or set "
            "SDX_OWNER_DATABASE_URL to the role that owns the schema"
        ) from None
    return code.NEWEST


def _upgrade(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def downgrade(url: str, revision: str) -> None:
    """Take the schema back to ``revision`` ('base': nothing of ours remains but the empty schemas)."""
    owner = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: postgres.connect(url, application="sdx-ledger downgrade")
    )

    def down(connection: Connection) -> None:
        config = _alembic()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    async with owner.begin() as connection:
        await connection.run_sync(down)
    await owner.dispose()


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files.migrations()))
    return config


def _said(error: BaseException) -> BaseException:
    """The error itself; of one that SQLAlchemy wrapped, what the driver raised."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


async def _who_is_in_the_way(url: str) -> str:
    waited = f"it waited {postgres.LOCK_WAIT_MS / 1000:g} s for a lock"
    async with postgres.reading(url, application="sdx-ledger upgrade") as conn:
        rows = await conn.fetch(_HOLDERS, postgres.LOCK_WAIT_MS)
    holders = [f"process {pid} ({program}, as {role})" for pid, role, program in rows]
    if not holders:
        return f"{waited} that somebody held and has let go since; run it again"
    return (
        f"{waited} that is held by {', '.join(holders)}; end that program, or "
        "SELECT pg_terminate_backend(process), then run it again"
    )
