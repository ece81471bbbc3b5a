"""Programs of another user than the one the tests run as; root alone can start them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import config

ROOT = Path(config.__file__).parents[1]
NOBODY = 65534
DAEMON = 1


def as_user(uid: int = NOBODY, **settings: str) -> dict[str, object]:
    """Arguments for ``subprocess``: this user, our packages, these variables and no others."""
    packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    kept = {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    return {"user": uid, "group": uid, "extra_groups": [], "cwd": "/", "text": True, "env": kept | settings}


def python_for_others() -> str:
    """An interpreter of this version that any user may run with our packages; without one the test is skipped."""
    for name in {sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable}:
        try:
            subprocess.run(
                [name, "-c", "import asyncpg, structlog, ledger"], check=True, capture_output=True, **as_user()
            )  # type: ignore[call-overload]
        except (OSError, subprocess.SubprocessError):
            continue
        return name
    pytest.skip("no Python that another user may run with these packages")


@contextmanager
def folder_of(uid: int) -> Iterator[Path]:
    """A folder that this user alone may enter, in a place that everybody reaches."""
    folder = Path(tempfile.mkdtemp(prefix="sdx-test-", dir="/tmp"))
    os.chown(folder, uid, uid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
