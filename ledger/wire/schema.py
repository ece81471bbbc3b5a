"""The schema of the database, made and upgraded: SQLAlchemy and Alembic are loaded here alone, since few commands need
them.

Always holds: two that upgrade at once do it one after the other; functions, views and grants are this program's after
any upgrade.
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
        async with owner.begin() as connection:
            await connection.run_sync(_upgrade)
        await owner.dispose()
        log.info("schema upgraded", before=before, now=code.NEWEST)
    except (*postgres.AWAY, asyncpg.PostgresError, SQLAlchemyError) as error:
        raise DatabaseError(
            f"cannot upgrade the database: {_in_words(error)}; check SDX_DATABASE_URL, or set SDX_OWNER_DATABASE_URL "
            "to the role that owns the schema"
        ) from None
    return code.NEWEST


def _upgrade(connection: Connection) -> None:
    # Two services that start at once must not migrate at once.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7236472)")
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


def _in_words(error: BaseException) -> str:
    """The error as one line; of one that SQLAlchemy wrapped, what the database said."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return postgres.in_words(error)
