"""Files: which are believed, and how one is written where others may have put something in the way.

Always holds: what another user could have written is refused, not used; what is written is a new file of our own, for
its owner alone, and no link is followed to it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ledger.errors import ConfigError

SECRET_FILE_MAX_BYTES = 64 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def refuse_others(found: os.stat_result, path: Path, spoken: str) -> None:
    """Raise ConfigError where another user than we or root owns it or may write it."""
    # Where a user has a group of their own, of the same number, its right to write is theirs.
    shared = stat.S_IWOTH | (0 if found.st_gid == found.st_uid else stat.S_IWGRP)
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{spoken}: {path} belongs to user id {found.st_uid}, expected {os.geteuid()} (this program's) or root; "
            f"look at what it holds, then run: chown {os.geteuid()} {path}"
        )
    if found.st_mode & shared:
        who = "every user" if found.st_mode & stat.S_IWOTH else f"group {found.st_gid}"
        private = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise ConfigError(f"{spoken}: {path} may be written by {who}; run: chmod {private} {path}")


def read_own(path: Path, spoken: str, *, at_most: int) -> tuple[str, bool]:
    """The text of a regular file that none but we or root may write, and whether every user may read it.

    Raises ConfigError for a file that is not so, OSError and UnicodeDecodeError for one that cannot be read.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{spoken}: {path} is a link made by user id {link.st_uid}; name the file itself")
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{spoken}: expected a regular file, got {path}, which is none")
        refuse_others(found, path, spoken)
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise ConfigError(f"{spoken}: expected a file of at most {at_most} bytes, got {path}, which is larger")
    return content.decode("utf-8").replace("\r\n", "\n"), bool(found.st_mode & stat.S_IROTH)


def replace_text(path: Path, text: str) -> None:
    """Make this the file's whole content: on disk under another name first, then renamed, so that it is never half."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # what a killed process, or somebody else, left there
    with open(os.open(fresh, _NEW_FILE, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # or the new name may be lost with the power
    finally:
        os.close(folder)
