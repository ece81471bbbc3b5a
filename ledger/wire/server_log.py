"""The embedded server's log is kept small while the server writes it.

Always holds: what is set aside is readable by its owner alone; the server, which appends through a descriptor of its
own, goes on in the same file; no symbolic link is followed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

MAX_BYTES = 10_000_000
EVERY_S = 3600.0
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


async def keep_small(path: Path, *, is_ours: Callable[[], bool], every_s: float) -> None:
    """Set a large log aside from time to time, for as long as the server is ours."""
    while True:
        await asyncio.sleep(every_s)
        if is_ours():
            try:
                set_aside(path)
            except OSError as error:
                log.warning("the log of PostgreSQL cannot be set aside", log=str(path), error=str(error))


def set_aside(path: Path) -> bool:
    """Move what a large log holds to ``….1``, in place of what was there; False where it is small. Raises OSError.

    Renaming would not do: the server would go on writing into the old file. What it writes between copy and cut, a
    moment, is lost.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with os.fdopen(descriptor, "r+b") as current:
        if os.fstat(current.fileno()).st_size <= MAX_BYTES:
            return False
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, _NEW, 0o600), "wb") as kept:
            shutil.copyfileobj(current, kept)
        draft.replace(path.with_name(path.name + ".1"))
        current.truncate(0)
    return True
