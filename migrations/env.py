"""Run the migrations on the connection handed over, or on SDX_OWNER_DATABASE_URL / SDX_DATABASE_URL by hand."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from ledger import urls
from ledger.db import code
from ledger.db.code import SCHEMA
from ledger.db.tables import metadata

SETTINGS: dict[str, Any] = {
    "target_metadata": metadata,
    "version_table": "alembic_version",
    "version_table_schema": SCHEMA,
    "include_schemas": True,
    "transactional_ddl": True,
}


def run(connection: Connection) -> None:
    """Migrate in one transaction; at the newest version lay the functions, views and grants anew."""
    for statement in code.CREATE_SCHEMAS.split(";")[:-1]:
        connection.execute(text(statement))
    context.configure(connection=connection, **SETTINGS)
    with context.begin_transaction():
        context.run_migrations()
    if context.get_context().get_current_revision() == context.script.get_current_head():
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.run_async(lambda driver: driver.execute(code.text()))


async def run_by_hand(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


def url_by_hand() -> str:
    url = os.environ.get("SDX_OWNER_DATABASE_URL") or os.environ.get("SDX_DATABASE_URL")
    if not url:
        sys.exit("set SDX_DATABASE_URL, or use: sdx-ledger db upgrade")
    try:
        urls.database_url(url)
    except ValueError as error:
        sys.exit(f"SDX_OWNER_DATABASE_URL or SDX_DATABASE_URL: {error}")
    return "postgresql+asyncpg://" + url.split("://", 1)[1]


if context.is_offline_mode():
    # Named parameters: the default style would print every percent sign of the functions twice.
    named = {"paramstyle": "named"}
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts=named, **SETTINGS)
    with context.begin_transaction():
        context.execute(code.CREATE_SCHEMAS)
        context.run_migrations()
        context.execute(code.text())
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_by_hand(url_by_hand()))
