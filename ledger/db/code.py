"""The functions, views and grants of the database: code, not data, so every upgrade lays them anew.

Pure: reads the SQL files beside this module. The digest tells whether a database carries this program's code.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from ledger.db.tables import CONTRACT, SCHEMA, metadata

FILES = ("chain.sql", "coverage.sql", "leader.sql", "apply.sql", "explain.sql", "views.sql", "grants.sql")


WRITING = ("chain.sql", "coverage.sql", "apply.sql")
"""The files that write facts: what a journal needs to be told again somewhere else."""


def scratch(schema: str) -> str:
    """The tables and the functions that write them once more, in a schema of their own that nobody listens to.

    Not logged: a crash of the server empties them, which costs nothing but the work.
    """
    body = "\n".join((files("ledger.db") / name).read_text("utf-8") for name in WRITING)
    functions = re.sub(rf"\b{SCHEMA}\.", f"{schema}.", body).replace("pg_notify('", f"pg_notify('{schema}_")
    dialect, copy = postgresql.dialect(), MetaData()  # type: ignore[no-untyped-call]
    tables = [table.to_metadata(copy, schema=schema) for table in metadata.sorted_tables]
    made = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
    made += [str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes]
    unlogged = ";\n".join(made).replace("CREATE TABLE", "CREATE UNLOGGED TABLE")
    return f"CREATE SCHEMA {schema};\n{unlogged};\n{functions}"


@cache
def text() -> str:
    """All statements in order, ending in the digest left as comment of the contract's schema."""
    body = "\n".join((files("ledger.db") / name).read_text("utf-8") for name in FILES)
    return f"{body}\nCOMMENT ON SCHEMA {SCHEMA} IS 'sdx-ledger code {_digest(body)}';\n"


@cache
def digest() -> str:
    """Hex digest of the statements, as ``installed_digest_query`` reads it back."""
    body = "\n".join((files("ledger.db") / name).read_text("utf-8") for name in FILES)
    return _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


INSTALLED_DIGEST = f"SELECT split_part(obj_description(to_regnamespace('{SCHEMA}'), 'pg_namespace'), ' ', 3) AS digest"
CREATE_SCHEMAS = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}; CREATE SCHEMA IF NOT EXISTS {CONTRACT};"
