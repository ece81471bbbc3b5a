"""Bring an export to a file or a pipe, streamed: memory does not grow with the rows.

Always holds: a file appears under its name complete, on disk and readable by its owner alone, or not at all; what
stood there before stays until then. No symbolic link is followed. Rows are of one snapshot: one COPY.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ledger.errors import ConfigError, UsageError
from ledger.export.csv_files import FORMATS

EXPORT_MAX_S = 6 * 3600.0
"""An export that takes longer is given up."""
_PRIVATE = 0o600
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows without the header, SHA-256 (hex) and length of all bytes."""

    rows: int
    sha256: str
    bytes: int


async def export(
    conn: Any, format: str, account: str, from_ms: int, to_ms: int, path: Path | None, stdout: BinaryIO
) -> Exported:
    """Write the rows of [from_ms, to_ms) (ms UTC) to ``path``, or to ``stdout`` where it is None or ``-``.

    ``conn`` is an asyncpg connection. Raises ConfigError for an unknown format or account, a range that ends before
    it starts, and a path that cannot be written; what asyncpg raises when the database fails.
    """
    if format not in FORMATS:
        raise ConfigError(f"export: expected a format of {', '.join(FORMATS)}, got {format!r}")
    if from_ms > to_ms:
        raise ConfigError(f"export: expected --from before --to, got {from_ms} ms after {to_ms} ms")
    if not await conn.fetchval("SELECT EXISTS (SELECT FROM ledger.accounts WHERE account = $1)", account):
        raise ConfigError(f"export: account {account!r} is not in this database; check SDX_ACCOUNT")
    bounds = (account, from_ms, to_ms)
    if path is None or path == _STDOUT:
        exported = await _copy(conn, FORMATS[format].query, bounds, stdout)
        stdout.flush()
        return exported
    with whole_file(path) as file:
        return await _copy(conn, FORMATS[format].query, bounds, file)


async def _copy(conn: Any, query: str, bounds: tuple[str, int, int], file: BinaryIO) -> Exported:
    digest = hashlib.sha256()
    length = 0

    async def take(chunk: bytes) -> None:
        nonlocal length
        digest.update(chunk)
        length += len(chunk)
        file.write(chunk)

    # The driver's own limit for a command is made for short ones.
    status: str = await conn.copy_from_query(
        query, *bounds, output=take, format="csv", header=True, encoding="utf-8", timeout=EXPORT_MAX_S
    )
    return Exported(int(status.removeprefix("COPY ")), digest.hexdigest(), length)


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
        raise UsageError(
            f"export: cannot write {path}: {error.strerror or error}; name a file in a folder you may write to"
        ) from None


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
