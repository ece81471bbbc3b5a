"""The bundled PostgreSQL: found, created, started, watched and stopped by this program.

Always holds: one process owns the server of a data folder (an flock says which); others that want it are guests on
the same socket and take over when the owner is gone, so a URL handed out stays good. The server listens on a Unix
socket in a private folder and, where its owner was given an address for readers (``pg_listen``), on that; it never
outlives its owner, and is never started over a live one.
PostgreSQL refuses to run as root, so root runs it under an account that nothing else runs under. No folder is opened
for that: the server gets its folders as open descriptors, and binaries that it cannot reach are copied to where it
can. A cluster that earlier versions ran as ``nobody`` is given to that account at the next start.

In the data folder: ``pg/`` the cluster (its PG_VERSION is the major-version marker), ``run/s/`` the socket (a data
folder whose path is too long for one has it under a short name elsewhere), ``postgres.log``, ``embedded.lock``,
``embedded.json`` (where the running server is), ``reader.password``. The user who runs this program, and root, may
connect as any role through the socket; the server asks the kernel who connects and lets nobody else in, whatever the
folder's mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg
import structlog

from ledger import private_files, urls
from ledger.errors import ConfigError, DatabaseError, LedgerError
from ledger.wire import pg_listen, server_log
from ledger.wire.pg_binaries import (
    as_user,
    find_binaries,
    major_of,
    maker,
    server_user,
    uids_in_use,
    usable,
    within_reach,
)

log = structlog.get_logger(__name__)

DATABASE = "ledger"
OWNER = "sdx_owner"
"""Superuser: migrations."""
WRITER = "sdx_writer"
"""The service."""
READER = "sdx_reader"
"""Selects, nothing else."""

READER_SETTINGS = {"search_path": "ledger_v1", "idle_in_transaction_session_timeout": "10min"}
"""Of its sessions: the views need no schema's name, and a client left open holds no table for ever."""
READERS_MAX = 50
"""Connections of readers at a time: half of what PostgreSQL takes, so that the service always finds one."""
STOP_WAIT_S = 6.0  # a service has 10 s to stop; after a hard stop PostgreSQL recovers by itself
_SOCKET_MAX_BYTES = 100  # the system's limit is 107, some systems' 103
MAKERS_MAX = 8
"""How many accounts are tried before a machine counts as too busy to set PostgreSQL up."""
_PORT = 5432
"""In the socket's name, whatever port there is besides."""
_POLL_S = 0.02
_TAKEOVER_POLL_S = 0.5
_RETRY_S = 1.0
_TELL_EVERY_S = 10.0
_GUEST_WAIT_S = 5.0
_SETUP_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

_SETTINGS = {
    "unix_socket_permissions": "0700",
    "cluster_name": "sdx-ledger",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The server log must not hold account data.
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

# Becomes the server: gives up root, asks the kernel for SIGINT (a clean stop) should the owner die, then executes it.
# A program of its own, because code between fork and exec is unsafe in a process with threads.
_LAUNCH = """
import ctypes, os, sys
parent, uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 2)
    if os.getppid() != int(parent):
        sys.exit("the program that started this server is gone")
os.umask(0o077)
os.execv(command[0], command)
"""


def running_url(data_dir: Path, *, user: str = READER) -> str | None:
    """URL of the server that runs on this data folder now, whoever owns it; None when none does."""
    place = _running(data_dir)
    return None if place is None else _url(place.runtime, DATABASE, user)


def running_listen(data_dir: Path) -> str | None:
    """Address and port on which the server that runs on this data folder takes readers over TCP; None: none does."""
    place = _running(data_dir)
    return None if place is None else place.listen


def tcp_url(data_dir: Path, listen: str) -> str:
    """URL for a reader over TCP at the address ``running_listen`` gave, with the password in it. Raises ConfigError."""
    return pg_listen.url(listen, DATABASE, READER, data_dir)


def is_of_another(data_dir: Path) -> bool:
    """Whether the data folder is another user's: then we can be a guest of the server that runs on it, no more."""
    try:
        return data_dir.stat().st_uid != os.geteuid()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


async def guest_of(data_dir: Path) -> Callable[[str], str]:
    """The URL by role of the server that another user runs on this data folder; it answers and lets us read.

    Raises DatabaseError: it does not run, and to start it is its owner's business; or we may not look.
    """
    place, conn = None, None
    try:
        place = _place_in((data_dir / "embedded.json").read_text())
        if place is not None:
            conn = await asyncpg.connect(_url(place.runtime, DATABASE, READER), timeout=_GUEST_WAIT_S)
    except (PermissionError, asyncpg.InvalidAuthorizationSpecificationError):
        raise DatabaseError(
            f"the ledger in {data_dir} is closed to this user; look as root (sudo) or as {_owner_of(data_dir)}"
        ) from None
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError) as error:
        log.debug("no server answers", error=str(error))
    if place is None or conn is None:
        raise DatabaseError(
            f"no PostgreSQL answers on {data_dir}, and only {_owner_of(data_dir)} may start it; start the service "
            "(systemctl start sdx-ledger), then look again"
        )
    await conn.close()
    return partial(_url, place.runtime, DATABASE)


async def stop_running(data_dir: Path) -> bool:
    """Stop a server whose owner is gone; False when there is none. Raises DatabaseError while its owner lives."""
    if not (data_dir / "pg").exists():
        return False
    lock = _open_lock(data_dir)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatabaseError(
            f"the PostgreSQL of {data_dir} belongs to a program that is running; stop that program instead"
        ) from None
    else:
        pid = _server_pid(data_dir / "pg")
        running = pid is not None and _serves(pid, data_dir / "pg")
        await _stop_left_behind(data_dir / "pg")
        return running
    finally:
        os.close(lock)


class Embedded:
    """The server of one data folder. ``async with`` it, or ``start()`` and ``stop()`` on one event loop.

    Start it on a thread that lives as long as the server: the kernel ties the server to that thread.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        listen: str | None = None,
    ) -> None:
        """``listen``: loopback address and port for readers over TCP, while this object owns the server."""
        self.data_dir = data_dir.absolute()
        self.cluster = self.data_dir / "pg"
        self.log_file = self.data_dir / "postgres.log"
        self._given_bin_dir = bin_dir
        self._settings = {**_SETTINGS, **(settings or {})}
        self._listen = listen
        self._place = self.data_dir / "embedded.json"
        self._lock: int | None = None
        self._owns = False
        self._runtime: Path | None = None
        self._copies: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._log_keeper: asyncio.Task[None] | None = None
        self._major = 0

    async def __aenter__(self) -> Embedded:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def major(self) -> int:
        """PostgreSQL's major version, known once started."""
        return self._major

    @property
    def owns(self) -> bool:
        """Whether this object runs the server; False for a guest."""
        return self._owns

    @property
    def bin_dir(self) -> Path:
        """Where psql and pg_dump of the server's version may be found."""
        return self._given_bin_dir or find_binaries()

    def url(self, database: str = DATABASE, user: str = OWNER) -> str:
        """A URL for asyncpg, psql and any libpq program. Good until ``stop``. The service works as WRITER."""
        assert self._runtime is not None, "start the server first"
        return _url(self._runtime, database, user)

    async def start(self) -> None:
        """Return when the server answers; waits as long as it or its owner lives (recovery may be long).

        Raises DatabaseError in one sentence: no binaries, another major version, a folder that cannot be used;
        ConfigError for an address that cannot be listened on.
        """
        try:
            await self._enter()
        except _SETUP_ERRORS as error:
            await self.stop()
            raise DatabaseError(
                f"PostgreSQL cannot be set up under {self.data_dir}: {error}; set SDX_DATA_DIR to a folder that "
                "can be used, or SDX_DATABASE_URL to a running server"
            ) from error
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="embedded postgres")
        keeping = server_log.keep_small(self.log_file, is_ours=lambda: self._owns, every_s=server_log.EVERY_S)
        self._log_keeper = asyncio.create_task(keeping)

    async def stop(self) -> None:
        """Stop the server if it is ours; a guest only leaves. Safe to call twice."""
        for keeper in (self._keeper, self._log_keeper):
            if keeper is not None:
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper
        self._keeper = self._log_keeper = None
        await self._end_process()
        if self._owns:
            if self._runtime is not None:
                self._place.unlink(missing_ok=True)
            for folder in (self._runtime, self._copies):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
            self._owns = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _enter(self) -> None:
        """Become the owner, or the guest of the owner there is."""
        self._lock = _open_lock(self.data_dir)
        patience = _Patience(f"waiting for the owner of {self.data_dir} to start PostgreSQL")
        while True:
            if self._take_lock():
                await self._launch()
                return
            if await self._join():
                return
            await patience.pause()

    async def _keep(self) -> None:
        """While in use: start a server that ended by itself again, take over from an owner that is gone."""
        while True:
            if self._process is not None:
                status = await self._process.wait()
                log.error("PostgreSQL ended by itself, starting it again", status=status, log=str(self.log_file))
                self._process = None
            while not self._owns and not self._take_lock():  # noqa: ASYNC110 - an flock wakes nobody
                await asyncio.sleep(_TAKEOVER_POLL_S)
            try:
                await self._launch()
            except (LedgerError, *_SETUP_ERRORS) as error:
                log.error("PostgreSQL cannot be started, trying again", error=str(error))
                await self._end_process()
                await asyncio.sleep(_RETRY_S)

    def _take_lock(self) -> bool:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._owns = True
        return True

    async def _join(self) -> bool:
        """Use the owner's server; False while it is not ready."""
        place = _read_place(self._place)
        if place is None:
            return False
        self._runtime, self._major = place.runtime, place.major
        conn = await _try_connect(self.url("postgres", OWNER))
        if conn is not None:
            await conn.close()
        return conn is not None

    async def _launch(self) -> None:
        """Start the server as its owner, over whatever an earlier owner left behind."""
        place = _read_place(self._place)
        await _stop_left_behind(self.cluster)
        verifier = None
        if self._listen:
            pg_listen.refuse_taken(self._listen)
            verifier = pg_listen.verifier(pg_listen.kept_password(self.data_dir))
        binaries = self._given_bin_dir or find_binaries()
        version = usable(binaries)
        self._major = major_of(version)
        _refuse_other_major(self.cluster, self._major)
        user = server_user(self.cluster)
        self._runtime = _make_runtime(self.data_dir, self._runtime or (place.runtime if place else None), user)
        self._place.unlink(missing_ok=True)
        binaries = within_reach(binaries, lambda: self._copies_folder() / f"postgres-{version}", user)
        if not self.cluster.exists():
            await _create_cluster(self.cluster, binaries, self._major, user)
        elif user and self.cluster.lstat().st_uid != user[0]:
            log.info("PostgreSQL gets an account of its own", uid=user[0], before=self.cluster.lstat().st_uid)
            await asyncio.to_thread(_give, self.cluster, user)
        self._process = await self._spawn(binaries, user)
        await self._prepare(verifier)
        _write_place(self._place, Place(self._runtime, self._major, self._listen))
        where = {"listen": self._listen} if self._listen else {}
        log.info("PostgreSQL is up", version=version, data=str(self.cluster), **where)

    def _copies_folder(self) -> Path:
        """Where binaries that the server's user cannot reach are copied to."""
        self._copies = _elsewhere(self.data_dir)
        self._copies.chmod(0o711)
        return self._copies

    async def _spawn(self, binaries: Path, user: tuple[int, int] | None) -> asyncio.subprocess.Process:
        assert self._runtime is not None
        _write_doors(self._runtime, self._listen)
        host, port = urls.loopback(self._listen) if self._listen else ("", _PORT)
        _link_socket(self._runtime / "s", port)
        uid, gid = user or (0, 0)
        with (
            _held(self.cluster, user) as (cluster, cluster_kept),
            _held(self._runtime, user) as (runtime, runtime_kept),
            _log_file(self.log_file) as output,
        ):
            settings = {
                **self._settings,
                "listen_addresses": host,
                "unix_socket_directories": f"{runtime}/s",
                "hba_file": f"{runtime}/hba.conf",
                "ident_file": f"{runtime}/ident.conf",
            }
            given = [_mark(self.cluster), *(f"{name}={value}" for name, value in settings.items())]
            options = [part for one in given for part in ("-c", one)]
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(uid), str(gid)),
                *(str(binaries / "postgres"), "-D", cluster, "-p", str(port), *options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_environment(),
                pass_fds=(*cluster_kept, *runtime_kept),
                start_new_session=True,  # Ctrl-C in a terminal is for us: we stop the server last
            )

    async def _end_process(self) -> None:
        if self._process is not None:
            await _end(self._process)
            self._process = None

    async def _prepare(self, verifier: str | None) -> None:
        """Wait until the server answers, then see to it that our database and roles exist, the reader with the password
        of this ``verifier``."""
        assert self._process is not None
        patience = _Patience("waiting for PostgreSQL to be ready")
        while (conn := await _try_connect(self.url("postgres", OWNER))) is None:
            if self._process.returncode is not None:
                raise DatabaseError(
                    f"PostgreSQL ended while it started (status {self._process.returncode}); {self.log_file} ends "
                    f"with: {_last_lines(self.log_file)}"
                )
            await patience.pause()
        try:
            for role in (WRITER, READER):
                if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                    await conn.execute(f"CREATE ROLE {role} LOGIN")
            await _set_up_reader(conn)
            if verifier:
                await conn.execute(f"ALTER ROLE {READER} PASSWORD '{verifier}'")
            if not await conn.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await conn.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await conn.close()


async def _set_up_reader(conn: Any) -> None:
    """What its sessions begin with; what a person has set for the role stays."""
    role = await conn.fetchrow("SELECT rolconfig, rolconnlimit FROM pg_roles WHERE rolname = $1", READER)
    for name in READER_SETTINGS.keys() - {one.partition("=")[0] for one in role["rolconfig"] or ()}:
        await conn.execute(f"ALTER ROLE {READER} SET {name} = '{READER_SETTINGS[name]}'")
    if role["rolconnlimit"] < 0:
        await conn.execute(f"ALTER ROLE {READER} CONNECTION LIMIT {READERS_MAX}")


class _Patience:
    """Pauses of a poll that says every ten seconds what it waits for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._clock = asyncio.get_running_loop().time
        self._since = self._told = self._clock()

    async def pause(self) -> None:
        await asyncio.sleep(_POLL_S)
        now = self._clock()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            log.info(self._what, waited_s=round(now - self._since))


async def _try_connect(url: str) -> Any:
    """A connection, or None while the server is not (yet) there."""
    try:
        return await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Clean stop, within STOP_WAIT_S; then the hard ones."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), STOP_WAIT_S)
            return
        except TimeoutError:
            log.warning("PostgreSQL did not stop in time", signal=number.name, waited_s=STOP_WAIT_S)


async def _stop_left_behind(cluster: Path) -> None:
    """End a server whose owner was killed, cleanly; after a restart of the machine its pid may be anyone's."""
    pid_file = cluster / "postmaster.pid"
    pid = _server_pid(cluster)
    if pid is None:
        return
    if not _serves(pid, cluster):
        if (command := _command_of(pid)) and "postgres" not in command:
            pid_file.unlink(missing_ok=True)  # PostgreSQL would take that program for a server and refuse to start
        return
    log.info("stopping the PostgreSQL an earlier owner left behind", pid=pid)
    patience = _Patience("waiting for the PostgreSQL of an earlier owner to stop")
    hard_at = asyncio.get_running_loop().time() + 5 * STOP_WAIT_S
    numbers = [signal.SIGQUIT, signal.SIGINT]
    while _serves(pid, cluster):
        if len(numbers) == 2 or (numbers and asyncio.get_running_loop().time() > hard_at):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, numbers.pop())
        await patience.pause()


def _server_pid(cluster: Path) -> int | None:
    """The pid a server of this cluster wrote down; it may be gone by now."""
    try:
        return int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _url(runtime: Path, database: str, user: str) -> str:
    socket_dir = quote(str(runtime / "s"), safe="")
    return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?host={socket_dir}&port={_PORT}"


def _mark(cluster: Path) -> str:
    """An argument that tells our servers from all other programs, and tells people which folder one serves."""
    return f"sdx_ledger.cluster={cluster.resolve()}"


def _serves(pid: int, cluster: Path) -> bool:
    """Whether that process lives and is our server of this cluster."""
    return _mark(cluster) in _command_of(pid)


def _command_of(pid: int) -> str:
    """The process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout


def _environment() -> dict[str, str]:
    """Nothing of ours: no secret belongs into the server's environment, and PG* variables would change it."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _refuse_other_major(cluster: Path, major: int) -> None:
    marker = cluster / "PG_VERSION"
    made_by = marker.read_text().strip() if marker.exists() else str(major)
    if made_by != str(major):
        raise DatabaseError(
            f"{cluster} was made by PostgreSQL {made_by}, here is PostgreSQL {major}; set SDX_PG_BIN to the folder "
            f"of PostgreSQL {made_by}'s binaries, or dump with it and restore into an empty SDX_DATA_DIR: "
            "docs/operating.md says how"
        )


def _open_lock(data_dir: Path) -> int:
    """The lock file's descriptor. Makes the data folder, for its owner alone; one that exists is left as it is."""
    if not data_dir.exists():
        data_dir.mkdir(parents=True, mode=0o700)
    owner = data_dir.stat().st_uid
    if owner != os.geteuid():
        raise ConfigError(
            f"SDX_DATA_DIR: {data_dir} belongs to {_owner_of(data_dir)}, this program runs as user id {os.geteuid()}; "
            "run it as that user, or name another folder"
        )
    private_files.refuse_others(data_dir.stat(), data_dir, "SDX_DATA_DIR")
    return os.open(data_dir / "embedded.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _owner_of(data_dir: Path) -> str:
    """Whose data folder it is, in words."""
    try:
        uid = data_dir.stat().st_uid
        return pwd.getpwuid(uid).pw_name if _has_name(uid) else f"user id {uid}"
    except OSError:
        return "its owner"


class Place(NamedTuple):
    """Where a server is. ``listen``: its address for readers over TCP, None where it has none."""

    runtime: Path
    major: int
    listen: str | None


def _read_place(file: Path) -> Place | None:
    try:
        return _place_in(file.read_text())
    except OSError:
        return None


def _place_in(text: str) -> Place | None:
    """Where the server is that ``embedded.json`` tells of; None: what it says is nothing of ours."""
    try:
        place = json.loads(text)
        return Place(Path(place["runtime"]), int(place["major"]), place.get("listen"))
    except (ValueError, KeyError, TypeError):
        return None


def _write_place(file: Path, place: Place) -> None:
    content = {**place._asdict(), "runtime": str(place.runtime), "pid": os.getpid()}
    private_files.replace_text(file, json.dumps(content))


def _running(data_dir: Path) -> Place | None:
    """Where the server of this data folder is, if one runs now and we may see that."""
    try:
        pid = _server_pid(data_dir / "pg")
    except PermissionError:
        return None
    return _read_place(data_dir / "embedded.json") if pid is not None and _serves(pid, data_dir / "pg") else None


def _make_runtime(data_dir: Path, earlier: Path | None, user: tuple[int, int] | None) -> Path:
    """The folder of ``s``, where the socket is, and of what the server reads at its start."""
    runtime = _place_of_socket(data_dir, earlier)
    # Root's server must pass through to its socket; it cannot list, and what is in it has modes of its own.
    runtime.chmod(0o711 if user else 0o700)
    sockets = runtime / "s"
    if user and sockets.exists() and sockets.lstat().st_uid != user[0]:
        shutil.rmtree(sockets)  # of another account, with what its server may have left behind
    sockets.mkdir(mode=0o700, exist_ok=True)
    if user:
        os.chown(sockets, *user, follow_symlinks=False)
    return runtime


def _link_socket(sockets: Path, port: int) -> None:
    """PostgreSQL names its socket by its TCP port: let it be found under the usual name too, so that a URL of the
    socket stays good whether there is a port or not, and which."""
    if port != _PORT:
        usual = sockets / f".s.PGSQL.{_PORT}"
        usual.unlink(missing_ok=True)
        usual.symlink_to(f".s.PGSQL.{port}")


def _place_of_socket(data_dir: Path, earlier: Path | None) -> Path:
    """In the data folder, so that a URL outlives the server and the machine's restart. Where no socket can be there,
    the earlier place, which others hold URLs of, or a short name."""
    own = data_dir / "run"
    if _is_short(own) and _is_ours(own):
        if _takes_sockets(own):
            return own
        with contextlib.suppress(OSError):
            own.rmdir()
    if earlier is not None and earlier != own and _is_ours(earlier):
        return earlier
    return _elsewhere(data_dir)


def _elsewhere(data_dir: Path) -> Path:
    """A folder in the system's place for such, under a short name that only this data folder has."""
    base = _runtime_base()
    named = base / f"sdx-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]}"
    return named if _is_ours(named) else Path(tempfile.mkdtemp(prefix="sdx-", dir=base))


def _is_short(runtime: Path) -> bool:
    return len(os.fsencode(runtime / "s" / f".s.PGSQL.{_PORT}")) <= _SOCKET_MAX_BYTES


def _takes_sockets(folder: Path) -> bool:
    """Whether the file system can hold one: shared folders of virtual machines cannot."""
    trial = folder / "trial"
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.bind(str(trial))
        except OSError:
            return False
    trial.unlink()
    return True


def _write_doors(runtime: Path, listen: str | None) -> None:
    """Who may connect: this program's user and root, as whatever role they name; over TCP the reader with its password;
    nobody else. As files outside the cluster, so that clusters of any age have them."""
    names = dict.fromkeys(pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), 0) if _has_name(uid))
    # PostgreSQL 15 does not know "all", so there it is our three roles alone.
    pairs = [(name, role) for name in names for role in (OWNER, WRITER, READER, "all")]
    given = {
        "hba": "local all all peer map=sdx\nlocal replication all peer map=sdx\n"
        + (pg_listen.rule(listen, DATABASE, READER) if listen else ""),
        "ident": "".join(f'sdx "{name}" {role}\n' for name, role in pairs),
    }
    for name, text in given.items():
        private_files.replace_text(runtime / f"{name}.conf", text)
        (runtime / f"{name}.conf").chmod(0o644)  # root's server is another user; there is no secret in them


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_ours(folder: Path) -> bool:
    """Made anew at that path, or there already and really ours: /tmp is everybody's."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    except OSError:
        return False
    return True


def _runtime_base() -> Path:
    wanted = (os.environ.get(name) for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"))
    for text in (*wanted, tempfile.gettempdir(), "/tmp"):  # noqa: S108 # nosec B108
        base = Path(text or "")
        if not text or not _is_short(base / "sdx-12345678"):
            continue
        if base.is_dir() and os.access(base, os.W_OK) and (os.geteuid() != 0 or _open_to_all(base)):
            return base
    raise DatabaseError("no folder for PostgreSQL's socket was found; set TMPDIR to a short path all users may enter")


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.resolve().parents))


@contextlib.contextmanager
def _held(folder: Path, user: tuple[int, int] | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A path to the folder that works for the server's user, and the descriptors its process must inherit.

    An open descriptor needs no right to pass through the folders above.
    """
    if user is None:
        yield str(folder), ()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def _give(folder: Path, user: tuple[int, int]) -> None:
    """Make a cluster this user's, the folder itself last, so that half of it is done again. What the user before may
    have put there is not followed. Raises DatabaseError for a file that is linked from elsewhere."""
    for place, _, names, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in names:
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_nlink > 1:
                raise DatabaseError(f"{place}/{name} is linked from elsewhere, where it does not belong; remove it")
            os.chown(name, *user, dir_fd=descriptor, follow_symlinks=False)
        os.chown(descriptor, *user)


async def _create_cluster(cluster: Path, binaries: Path, major: int, user: tuple[int, int] | None) -> None:
    """initdb beside the final place, then rename: a cluster that exists is complete."""
    draft = cluster.with_name("pg.new")
    for _ in range(MAKERS_MAX):
        made_by = maker(user) if user else None
        await _initdb(draft, binaries, major, made_by)
        if user is None or made_by is None or made_by == user:
            break
        if made_by[0] not in uids_in_use():
            _give(draft, user)
            break
        # A program that began to run under the same account meanwhile could have written to it.
    else:
        raise DatabaseError("programs run under every account that PostgreSQL could be set up with; try again")
    draft.rename(cluster)


def _make_empty(draft: Path, user: tuple[int, int] | None) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if user:
        os.chown(draft, *user)


async def _initdb(draft: Path, binaries: Path, major: int, made_by: tuple[int, int] | None) -> None:
    _make_empty(draft, made_by)
    options = ["-U", OWNER, "--auth-local=peer", "--auth-host=reject"]
    options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
    if major >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # sorts alike on every machine
    if major < 18:
        options += ["--data-checksums"]
    with _held(draft, made_by) as (path, descriptors):
        process = await asyncio.create_subprocess_exec(
            *(str(binaries / "initdb"), "-D", path, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            pass_fds=descriptors,
            **as_user(made_by),
        )
        _, errors = await process.communicate()
    if process.returncode:
        why = " ".join(errors.decode("utf-8", "replace").split())
        place = draft.with_name("pg")
        raise DatabaseError(f"initdb could not create {place} (status {process.returncode}): {why[-500:]}")


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[int]:
    """The server's log, for appending; a large one is set aside first."""
    server_log.set_aside(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _last_lines(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        return " | ".join(file.read().decode("utf-8", "replace").splitlines()[-4:])
    return "(it cannot be read)"
