"""What an error of the database is about: the content of the rows, or anything else. Pure.

Content is refused for good, so the frame that carried it is kept without its facts and the others go on. Anything else
(a missing right, a missing function, a full disk, a fault of the server or of this program) is waited out: what the
frames say is not at fault, and once the cause is gone the very same work succeeds.
"""

from __future__ import annotations

from ledger.db.code import SCHEMA

FRAMES_OVERLAP = "SDX02"
"""SQLSTATE of ledger.apply: a call begins inside frames of its session that are kept already, or is longer than the one
that wrote them. A mistake of the caller, which repeating cannot mend; a new session begins in order again."""

CONTENT_TABLES = ("orders", "fills", "balances", "balance_history", "observations", "transfers", "discrepancies")
"""The tables whose rows are what frames and answers say."""

CONTENT_CONSTRAINTS = frozenset(
    {
        "orders_pkey",
        "orders_amounts_are_real",
        "fills_pkey",
        "fills_amounts_are_real",
        "fills_identity_is_whole",
        "fills_source_is_known",
        "fills_state_is_known",
        "fills_trade_key",
        "fills_stream_key",
        "balances_pkey",
        "balances_amounts_are_real",
        "balances_source_is_known",
        "balance_history_pkey",
        "balance_history_amounts_are_real",
        "balance_history_source_is_known",
        "observations_pkey",
        "transfers_pkey",
        "transfers_amounts_are_real",
        "transfers_kind_is_known",
        "transfers_source_is_known",
        "discrepancies_pkey",
        "discrepancies_amounts_are_real",
        "discrepancies_digest_key",
    }
)
"""Checks and keys of those tables, as tables.py names them. One that somebody else added is none of them."""

_NOT_NULL = "23502"

_ADVICE = (
    ("28", "check user and password in SDX_DATABASE_URL"),
    ("3D", "check the database's name in SDX_DATABASE_URL"),
    ("42501", "give the writer its rights back: sdx-ledger db upgrade with the URL of the schema's owner"),
    ("42", "the schema is not this program's: sdx-ledger db upgrade with the URL of the schema's owner"),
    ("23", "a rule that is not the program's own refuses the rows: look at the constraint and drop it"),
    ("53", "the server lacks room, memory or connections: look at its disk and its limits"),
    ("55", "an object is in use or not ready: look at what else works on the database"),
    ("57", "somebody or a time limit ended the statement: look at statement_timeout and the server's log"),
    ("P0", "a rule of the program's own functions failed: please report it with this line and the server's log"),
    ("XX", "PostgreSQL itself failed: look at the server's log and its disk"),
)


def is_content(
    sqlstate: str | None, schema: str | None, table: str | None, column: str | None, constraint: str | None
) -> bool:
    """Whether the error refuses what the rows say: a value of a wrong form (class 22), or a rule of our own tables.

    ``schema`` … ``constraint`` are what the server names beside the error, None where it does not.
    """
    if sqlstate is None:
        return False
    if sqlstate.startswith("22"):
        return True
    if not sqlstate.startswith("23") or schema != SCHEMA or table not in CONTENT_TABLES:
        return False
    return column is not None if sqlstate == _NOT_NULL else constraint in CONTENT_CONSTRAINTS


def advice(sqlstate: str | None) -> str:
    """What a person can do about an error that is waited out."""
    told = sqlstate or ""
    found = next((text for start, text in _ADVICE if told.startswith(start)), "look at the server's log")
    return f"{found}; nothing is dropped, and the account goes on by itself once the cause is gone"
