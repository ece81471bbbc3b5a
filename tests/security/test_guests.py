"""Who looks at an embedded server that another user runs: a guest, who owns nothing of the data folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.another_user import DAEMON, NOBODY, as_user, folder_of, python_for_others
from tests.flows.processes import bench
from tests.free_port import free_address

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

SERVE = """
import asyncio, sys
from ledger import app, config
from ledger.wire import postgres

async def main():
    async with app.database(config.load(), listen=True) as db:
        await app.upgrade(db)
        conn = await postgres.connect(db.owner_url, application="test")
        await conn.execute("SELECT ledger.register('main', 'https://api.example.com', NULL)")
        await conn.close()
        print("it is up", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
LOOKING = [
    ("status",),
    ("verify",),
    ("discrepancy", "list"),
    ("quarantine", "list"),
    ("account", "list"),
    ("export", "fills-csv", "--from", "2026-01-01", "--to", "2026-01-02"),
    ("db", "psql", "-c", "SELECT count(*) FROM ledger_v1.fills"),
]


@pytest.fixture(scope="module")
def service() -> Iterator[Path]:
    """The data folder of a service that runs as ``daemon``, with an account of which nothing was heard yet."""
    with folder_of(DAEMON) as folder:
        command = [python_for_others(), "-c", SERVE]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            **as_user(DAEMON, SDX_DATA_DIR=f"{folder}/data", SDX_PG_LISTEN=free_address()),
        ) as process:  # fmt: skip  # type: ignore[call-overload]
            lines = iter(process.stdout.readline, "")
            assert "it is up\n" in lines
            yield folder / "data"
            process.communicate("")
            assert process.returncode == 0


def shown_to(uid: int, data: Path, *words: str) -> tuple[int, str]:
    """What ``sdx-ledger WORDS`` says to this user: exit code and all of its output."""
    done = subprocess.run(
        [python_for_others(), "-m", "ledger", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        **as_user(uid, SDX_DATA_DIR=str(data)),
    )  # fmt: skip  # type: ignore[call-overload]
    return done.returncode, done.stdout


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("words", LOOKING, ids=lambda words: " ".join(words[:2]))
async def test_root_looks_at_a_running_server_of_another_user(service: Path, tmp_path: Path, words: list[str]) -> None:
    with bench(tmp_path, {"SDX_DATA_DIR": str(service)}) as programs:
        code, out, err = await programs.done(*words)

    assert (code, err if words[0] != "export" else "") == (0, ""), out + err
    assert owners(service) == {DAEMON}, "root left something there"


async def test_root_finds_the_database_in_doctors_table_and_may_decide(service: Path, tmp_path: Path) -> None:
    with bench(tmp_path, {"SDX_DATA_DIR": str(service)}) as programs:
        _, doctor, _ = await programs.done("doctor")
        code, out, err = await programs.done("replay")

    assert "PostgreSQL" in doctor
    assert "durable settings" in doctor
    assert (code, "identical, at journal row 0" in out) == (0, True), out + err


async def test_root_finds_the_way_in_over_tcp_with_the_password_of_the_other_user(
    service: Path, tmp_path: Path
) -> None:
    with bench(tmp_path, {"SDX_DATA_DIR": str(service)}) as programs:
        code, url, _ = await programs.done("db", "url", "--tcp")
        asked = await programs.done("db", "psql", "--tcp", "-Atc", "SELECT current_user, count(*) FROM fills")

    assert (code, url.startswith("postgresql://sdx_reader:")) == (0, True)
    assert asked == (0, "sdx_reader|0\n", "")


def test_the_service_s_own_user_looks_as_before(service: Path) -> None:
    code, said = shown_to(DAEMON, service, "status")

    assert (code, "account main" in said) == (0, True), said


@pytest.mark.parametrize("words", [("status",), ("verify",), ("db", "url"), ("db", "url", "--tcp")], ids=" ".join)
def test_a_user_who_may_not_enter_gets_one_sentence(service: Path, words: list[str]) -> None:
    closed = f"sdx-ledger: the ledger in {service} is closed to this user; look as root (sudo) or as its owner\n"

    assert shown_to(NOBODY, service, *words) == (5, closed)


async def test_what_does_not_run_is_not_started_by_a_guest_and_the_service_is_named(tmp_path: Path) -> None:
    with folder_of(DAEMON) as folder, bench(tmp_path, {"SDX_DATA_DIR": f"{folder}/data"}) as programs:
        nothing_yet = await programs.done("status")
        (folder / "data" / "pg").mkdir(parents=True)
        (folder / "data" / "pg" / "PG_VERSION").write_text("18\n")
        for path in (folder / "data", folder / "data" / "pg"):
            os.chown(path, DAEMON, DAEMON)
        stopped = await programs.done("status")
        # What a service that was killed leaves behind.
        (folder / "data" / "embedded.json").write_text(f'{{"runtime": "{folder}/gone", "major": 18}}')
        killed = await programs.done("status")

    assert nothing_yet[0] == 0
    assert nothing_yet[1].startswith("no account is mirrored here yet")
    assert stopped == killed
    assert stopped == (
        5,
        "",
        f"sdx-ledger: no PostgreSQL answers on {folder}/data, and only daemon may start it; start the service "
        "(systemctl start sdx-ledger), then look again\n",
    )


async def test_nothing_is_run_in_a_folder_of_another_user(service: Path, tmp_path: Path) -> None:
    keys = {"SDX_API_KEY": "k", "SDX_API_SECRET": "s", "SDX_REST_URL": "http://127.0.0.1:9"}
    with bench(tmp_path, {"SDX_DATA_DIR": str(service), "SDX_LOG_FORMAT": "json", **keys}) as programs:
        code, _, err = await programs.done("run")

    assert (code, "SDX_DATA_DIR: " in err, "belongs to daemon" in err) == (3, True, True), err
