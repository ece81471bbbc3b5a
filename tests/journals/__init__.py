"""Journals recorded by releases of this program: every later release must replay each to the rows it made then.

A file is gzipped JSON lines. The first line tells the account, and per table the columns of that release with the
SHA-256 of their canonical dump. The others are rows of ``inbox`` and ``batches``, nothing else: what a journal cannot
tell by itself is not in here. Recorded by ``python -m tests.journals.record``; a file is never recorded anew.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from ledger import replay
from ledger.db.code import SCHEMA
from ledger.db.coverage import register
from ledger.replay import REBUILT

FOLDER = Path(__file__).parent
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = "text:"
"""Begins bytes that are told as text; others, which are not UTF-8, are told in hex."""
INBOX = ["account", "seq", "source", "session_id", "frame_no", "received_at", "kind", "venue_ms"]
INBOX += ["asked_seq", "question", "raw", "problem"]
BATCHES = ["account", "last_seq", "first_seq", "clockless", "lag_ms", "marks", "digest"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file holds. ``dumps``: table -> its columns then, and the SHA-256 of their dump."""

    account: str
    dumps: dict[str, tuple[list[str], str]]
    inbox: list[list[Any]]
    batches: list[list[Any]]


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.jsonl.gz"))


def read(path: Path) -> Recorded:
    """A recorded journal, its values as the database takes them."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        head, *rows = [json.loads(line) for line in lines]
    dumps = {name: (told["columns"], told["sha256"]) for name, told in head["dumps"].items()}
    inbox = [_values(row["inbox"], INBOX) for row in rows if "inbox" in row]
    return Recorded(head["account"], dumps, inbox, [_values(row["batch"], BATCHES) for row in rows if "batch" in row])


async def load(conn: Any, recorded: Recorded) -> None:
    """Put the journal into an empty database: no row but the journal's own."""
    await register(conn, recorded.account, rest_origin="http://127.0.0.1", key_fingerprint="k")
    await conn.copy_records_to_table("inbox", schema_name=SCHEMA, columns=INBOX, records=recorded.inbox)
    await conn.copy_records_to_table("batches", schema_name=SCHEMA, columns=BATCHES, records=recorded.batches)
    await conn.execute(
        "UPDATE ledger.accounts a SET head_seq = b.last_seq, head_digest = b.digest FROM ledger.batches b"
        " WHERE b.account = a.account AND b.last_seq = (SELECT max(last_seq) FROM ledger.batches)"
    )


async def dumps(conn: Any, schema: str, account: str, columns: Mapping[str, list[str]]) -> dict[str, str]:
    """table -> SHA-256 of its canonical dump, these columns only: later ones say nothing about what was."""
    return {
        table.name: await replay.dump_sha256(conn, schema, account, table, columns[table.name])
        for table in REBUILT
        if table.name in columns
    }


async def record(conn: Any, account: str, path: Path) -> int:
    """Write the journal of ``account`` with the dumps of its live rows; returns its number of rows."""
    columns = {table.name: [column.name for column in table.columns] for table in REBUILT}
    digests = await dumps(conn, SCHEMA, account, columns)
    head = {
        "account": account,
        "dumps": {name: {"columns": columns[name], "sha256": digests[name]} for name in columns},
    }
    inbox = await conn.fetch(f"SELECT {', '.join(INBOX)} FROM ledger.inbox WHERE account = $1 ORDER BY seq", account)
    batches = await conn.fetch(
        f"SELECT {', '.join(BATCHES)} FROM ledger.batches WHERE account = $1 ORDER BY last_seq", account
    )
    rows = [head, *({"inbox": _plain(row)} for row in inbox), *({"batch": _plain(row)} for row in batches)]
    # No name and no time in the file's own head: the same journal is the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        packed.writelines(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
    return len(inbox)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    def told(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, datetime):
            return (value - EPOCH) // timedelta(microseconds=1)
        return str(value) if isinstance(value, UUID) else value

    plain = {name: told(value) for name, value in row.items() if value is not None}
    if "raw" in row:
        with suppress(UnicodeDecodeError):
            plain["raw"] = TEXT + row["raw"].decode()
    return plain


def _values(told: Mapping[str, Any], columns: list[str]) -> list[Any]:
    make: dict[str, Any] = {
        "raw": lambda raw: raw.removeprefix(TEXT).encode() if raw.startswith(TEXT) else bytes.fromhex(raw),
        "marks": bytes.fromhex,
        "digest": bytes.fromhex,
        "session_id": UUID,
        "received_at": lambda us: EPOCH + timedelta(microseconds=us),
    }
    return [make.get(name, lambda same: same)(told[name]) if name in told else None for name in columns]
