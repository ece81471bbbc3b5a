"""The functions, views and grants of the database: code, not data, so every upgrade lays them anew.

Pure: reads the SQL files beside this module. The digest tells whether a database carries this program's code.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

SCHEMA = "ledger"
CONTRACT = "ledger_v1"
READ = "ledger_read"
"""What the program's own commands read besides the contract, with the reader's rights."""
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013")
"""Every version of the tables that this program knows, oldest first; it wants the newest."""
NEWEST = REVISIONS[-1]

FILES = (
    "read.sql",
    "chain.sql",
    "coverage.sql",
    "leader.sql",
    "venue_state.sql",
    "quarantine.sql",
    "observations.sql",
    "apply.sql",
    "alone.sql",
    "order_checks.sql",
    "refused_markets.sql",
    "explain.sql",
    "views.sql",
    "grants.sql",
)


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
CREATE_SCHEMAS = "".join(f"CREATE SCHEMA IF NOT EXISTS {name};" for name in (SCHEMA, CONTRACT, READ))
