"""Bring an export to a file or a pipe, streamed: memory does not grow with the rows.

Always holds: a file appears under its name complete, on disk and readable by its owner alone, or not at all; what
stood there before stays until then. No symbolic link is followed. Rows, and what is said to be missing of them, are of
one snapshot. Beside a file stands its manifest: what it is, its digest, and what it lacks. Where nobody takes the rows
any more the connection is cut, not closed: the server would go on sending.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ledger.errors import CannotWrite, ConfigError, LedgerError, UsageError
from ledger.export.csv_files import FORMATS, CsvFile
from ledger.export.shortfall import Shortfall, shortfall
from ledger.output import moment, to_stdout

EXPORT_MAX_S = 6 * 3600.0
"""An export that takes longer is given up."""
_PRIVATE = 0o600
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_STDOUT = Path("-")
_HEAD = "SELECT rest_origin, head_seq FROM ledger_read.accounts WHERE account = $1"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows without the header, SHA-256 (hex) and length of all bytes, what it lacks, the account's
    venue (None: none has accepted its key) and how many rows its journal had."""

    rows: int
    sha256: str
    bytes: int
    shortfall: Shortfall
    venue: str | None
    head_seq: int


async def export(
    conn: Any, format: str, account: str, from_ms: int, to_ms: int, path: Path | None, stdout: BinaryIO, *, now_ms: int
) -> Exported:
    """Write the rows of [from_ms, to_ms) (ms UTC) to ``path``, or to ``stdout`` where it is None or ``-``.

    ``conn`` is an asyncpg connection outside a transaction, ``now_ms`` this machine's clock. Raises ConfigError for an
    unknown format or account and a range that ends before it starts; UsageError for a path that cannot be written;
    CannotWrite where there is no room, ReaderGone where nobody reads; what asyncpg raises when the database fails.
    """
    if format not in FORMATS:
        raise ConfigError(f"export: expected a format of {', '.join(FORMATS)}, got {format!r}")
    if from_ms > to_ms:
        raise ConfigError(f"export: expected --from before --to, got {from_ms} ms after {to_ms} ms")
    if not await conn.fetchval("SELECT EXISTS (SELECT FROM ledger_read.accounts WHERE account = $1)", account):
        raise ConfigError(f"export: account {account!r} is not in this database; check SDX_ACCOUNT")
    job = _Job(conn, FORMATS[format], account, from_ms, to_ms, now_ms)
    if path is None or path == _STDOUT:
        return await job.write(stdout, to_stdout)
    with whole_file(path) as file, whole_file(manifest_of(path)) as beside:
        done = await job.write(file, lambda: _to_file(path))
        beside.write(job.manifest(done, path.name))
        return done


def manifest_of(path: Path) -> Path:
    """Where the manifest of an export stands."""
    return path.with_name(f"{path.name}.manifest.json")


@dataclass(frozen=True, slots=True)
class _Job:
    conn: Any
    file: CsvFile
    account: str
    from_ms: int
    to_ms: int
    now_ms: int

    async def write(self, sink: BinaryIO, guarded: Callable[[], AbstractContextManager[None]]) -> Exported:
        """Bring the rows to ``sink``; ``guarded`` says what an error of writing there means."""
        digest = hashlib.sha256()
        length = 0
        refused: LedgerError | None = None

        async def take(chunk: bytes) -> None:
            nonlocal length, refused
            digest.update(chunk)
            length += len(chunk)
            try:
                with guarded():
                    sink.write(chunk)
            except LedgerError as error:
                refused = error
                # The driver would wait for the rest of the rows, which the server still sends.
                self.conn.terminate()
                raise

        bounds = (self.account, self.from_ms, self.to_ms)
        try:
            async with self.conn.transaction(isolation="repeatable_read", readonly=True):
                head = await self.conn.fetchrow(_HEAD, self.account)
                lacks = await shortfall(self.conn, self.file, *bounds, now_ms=self.now_ms)
                # The driver's own limit for a command is made for short ones.
                status: str = await self.conn.copy_from_query(
                    self.file.query,
                    *bounds,
                    output=take,
                    format="csv",
                    header=True,
                    force_quote=self.file.words,
                    encoding="utf-8",
                    timeout=EXPORT_MAX_S,
                )
        except Exception:
            if refused is not None:
                raise refused from None
            raise
        with guarded():
            sink.flush()
        return Exported(int(status.removeprefix("COPY ")), digest.hexdigest(), length, lacks, *head)

    def manifest(self, done: Exported, name: str) -> bytes:
        """What the file is, as JSON; nothing in it tells when it was made."""
        manifest = {
            "schema": "sdx-ledger/export/1",
            "format": self.file.name,
            "holds": self.file.meaning,
            "account": self.account,
            "venue": done.venue,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "from": moment(self.from_ms),
            "to": moment(self.to_ms),
            "zone": "UTC",
            "head_seq": done.head_seq,
            "complete": not done.shortfall.sentences,
            "missing": done.shortfall.as_dict(),
            "files": [{"name": name, "bytes": done.bytes, "rows": done.rows, "sha256": done.sha256}],
        }
        return f"{json.dumps(manifest, indent=2)}\n".encode()


@contextmanager
def _to_file(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> LedgerError:
    words = f"export: cannot write {path}: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return CannotWrite(f"{words}; free some space or name a file elsewhere")
    return UsageError(f"{words}; name a file in a folder you may write to")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well; otherwise nothing remains of it.

    A kill leaves a hidden ``.part`` beside it at most. Raises ConfigError naming ``path`` when it cannot be written.
    """
    part = path.parent / f".sdx-ledger-{secrets.token_hex(8)}.part"
    try:
        _refuse_unfit(path)
        try:
            with os.fdopen(os.open(part, _NEW_FILE, _PRIVATE), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except (ConnectionError, TimeoutError):
        raise  # the database's, and no word about the file
    except OSError as error:
        raise _cannot_write(path, error) from None


def _refuse_unfit(path: Path) -> None:
    """Renaming would put the export in the place of whatever has the name: a device, a folder, a link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise UsageError(f"export: expected the name of a file, got {path}, which is {kind}; use - for stdout")


def _sync_folder(folder: Path) -> None:
    """Only then the name survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
