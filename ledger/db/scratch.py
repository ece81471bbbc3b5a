"""The tables and functions once more, in a schema of their own: what a journal needs to be told again. Pure."""

from __future__ import annotations

import re
from importlib.resources import files

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from ledger.db.code import SCHEMA
from ledger.db.tables import metadata

WRITING = ("chain.sql", "coverage.sql", "quarantine.sql", "observations.sql", "apply.sql", "alone.sql")
"""The files that write facts: what a journal needs to be told again somewhere else."""


def statements(schema: str) -> str:
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
