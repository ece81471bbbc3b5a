"""The end of the journal, kept in a file outside the database: what somebody rewrote as a whole still shows.

Always holds: a file is replaced as a whole or not at all, and only its owner may read it; a head that the journal does
not hold any more is evidence and is never overwritten. Every database has files of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from ledger import private_files
from ledger.db import reads
from ledger.errors import LedgerError

log = structlog.get_logger(__name__)

EVERY_S = 10.0
"""How often the service keeps the newest head."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest journal row of an account and the digest (hex) of the journal up to it; ``at_ms``: our own clock."""

    account: str
    seq: int
    digest: str
    at_ms: int


def file_of(data_dir: Path, database_id: str, account: str) -> Path:
    """Where the head of an account is kept, for the journal of one database."""
    name = hashlib.sha256(database_id.encode()).hexdigest()[:12]
    return data_dir / "heads" / f"{account}.{name}.json"


async def read(conn: Any, data_dir: Path, account: str) -> Head | None:
    """The head last kept of this database; None when none was. Raises LedgerError for a file that is none."""
    return _read(file_of(data_dir, await reads.database_id(conn), account))


class Keeper:
    """Keeps the head of one account's journal; what stands in the way is said once."""

    def __init__(self, data_dir: Path, account: str) -> None:
        self._data_dir = data_dir
        self._account = account
        self._said: str | None = None
        self._looked_seq = 0
        """Up to which row the journal was searched for a word on the head it does not hold."""

    async def follow(self, conn: Any, now_ms: int) -> Head | None:
        """Keep the newest head, and return it if it was new. One that the journal does not hold any more stays as it
        is, and the log says so; unless the journal itself names it as lost, since the database went back."""
        path = file_of(self._data_dir, await reads.database_id(conn), self._account)
        try:
            kept = _read(path)
            seq, newest, there = await reads.head(conn, self._account, 0 if kept is None else kept.seq)
            if kept is not None and there != kept.digest:
                looked_seq, self._looked_seq = self._looked_seq, seq
                if await reads.lost_row(conn, self._account, kept.seq, after_seq=min(looked_seq, seq)) is not None:
                    kept = None
            if kept is not None and there != kept.digest:
                self._say(f"the journal does not hold its row {kept.seq} as it was; run sdx-ledger verify")
            elif newest is not None and (kept is None or kept.seq < seq):
                fresh = Head(self._account, seq, newest, now_ms)
                await asyncio.to_thread(_write, path, fresh)
                return fresh
        except (OSError, LedgerError) as error:
            self._say(str(error))
        return None

    def _say(self, problem: str) -> None:
        if problem != self._said:
            log.error("the head of the journal is not kept outside", account=self._account, problem=problem)
        self._said = problem


def _read(path: Path) -> Head | None:
    try:
        told = json.loads(path.read_bytes())
        return Head(str(told["account"]), int(told["seq"]), str(told["digest"]), int(told["at_ms"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror}); run as the user the service runs as") from None
    except (ValueError, TypeError, KeyError):
        raise LedgerError(
            f"{path}: expected the head of a journal, got something else; if it was never one, delete the file"
        ) from None


def _write(path: Path, head: Head) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (path.parent.parent, path.parent):
        private_files.refuse_others(folder.stat(follow_symlinks=folder != path.parent), folder, "SDX_DATA_DIR")
    private_files.replace_text(path, json.dumps(asdict(head)) + "\n")
