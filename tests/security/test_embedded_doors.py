"""Who gets into the embedded server: the user who runs it and root, whatever the modes of its folders say."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from ledger.errors import DatabaseError
from ledger.wire import embedded, pg_binaries
from ledger.wire.embedded import OWNER, READER, WRITER, Embedded
from ledger.wire.pg_binaries import FREE_IDS

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of root's."""
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


async def value(pg: Embedded, sql: str) -> object:
    conn = await asyncpg.connect(pg.url())
    try:
        return await conn.fetchval(sql)
    finally:
        await conn.close()


def server_uids(data: Path) -> set[int]:
    """The user ids that the server's processes run under."""
    server = int((data / "pg" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return {Path(f"/proc/{pid}").stat().st_uid for pid in (server, *children)}


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def connects(url: str, user: str) -> tuple[bool, str]:
    """Whether psql gets in as this operating system user, and what it says."""
    entry = pwd.getpwnam(user)
    psql = ["psql", "-X", url, "-Atc", "SELECT current_user"]
    shown = subprocess.run(
        psql, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], cwd="/", capture_output=True, text=True,
        env={"PATH": os.environ["PATH"]}, check=False,
    )  # fmt: skip
    return shown.returncode == 0, shown.stdout.strip() or shown.stderr.strip()


async def test_roots_server_runs_under_an_account_that_nothing_else_has_and_keeps_it(data: Path) -> None:
    async with Embedded(data):
        (first,) = server_uids(data)
    async with Embedded(data):
        assert server_uids(data) == {first}

    if own := pg_binaries._account(pg_binaries.OWN_ACCOUNT):
        assert first == own.pw_uid
    else:
        assert first in FREE_IDS
        assert pg_binaries._name_of(first) is None
    assert owners(data / "pg") == {first}
    assert first not in pg_binaries.uids_in_use()


@pytest.fixture
def outside() -> Iterator[Path]:
    """A data folder of root's in a place that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sdx-doors-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "data").mkdir(mode=0o700)
    yield folder / "data"
    shutil.rmtree(folder)


async def test_others_get_in_as_no_role_also_where_every_folder_is_open(outside: Path) -> None:
    async with Embedded(outside) as pg:
        sockets = outside / "run" / "s"
        for user in ("nobody", "daemon"):
            for role in (OWNER, WRITER, READER, user):
                entered, said = connects(pg.url(user=role), user)
                assert (entered, "Permission denied" in said) == (False, True), said

        for path in (outside, sockets.parent, sockets, sockets / ".s.PGSQL.5432"):
            path.chmod(0o777)
        for user in ("nobody", "daemon"):
            for role in (OWNER, WRITER, READER, user):
                entered, said = connects(pg.url(user=role), user)
                assert (entered, f'Peer authentication failed for user "{role}"' in said) == (False, True), said
        for role in (OWNER, WRITER, READER):
            assert connects(pg.url(user=role), "root") == (True, role)


async def test_what_ran_as_nobody_is_given_to_an_account_of_its_own_with_its_rows(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(embedded, "server_user", lambda cluster: (NOBODY, NOBODY))
        async with Embedded(data) as pg:
            assert server_uids(data) == {NOBODY}
            await value(pg, "CREATE TABLE kept AS SELECT 7 AS n")
            await value(pg, "CHECKPOINT")
            url = pg.url()
            # Killed, so that its socket and its lock file stay behind.
            assert pg._process is not None
            assert pg._keeper is not None
            pg._keeper.cancel()
            pg._process.kill()
            await pg._process.wait()
            pg._process, pg._owns = None, False

    async with Embedded(data) as pg:
        assert pg.url() == url
        assert await value(pg, "SELECT n FROM kept") == 7
        assert NOBODY not in server_uids(data) | owners(data / "pg")


async def test_a_file_of_others_that_is_linked_into_the_cluster_is_not_given_away(data: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("root's")
    (data / "pg").mkdir()
    os.link(precious, data / "pg" / "PG_VERSION")
    (data / "pg" / "link").symlink_to(precious)

    with pytest.raises(DatabaseError, match="PG_VERSION is linked from elsewhere"):
        await asyncio.to_thread(embedded._give, data / "pg", (NOBODY, NOBODY))
    (data / "pg" / "PG_VERSION").unlink()
    await asyncio.to_thread(embedded._give, data / "pg", (NOBODY, NOBODY))

    assert precious.stat().st_uid == 0
    assert owners(data / "pg") == {NOBODY}


def test_where_no_id_can_be_had_one_sentence_says_what_to_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_binaries, "_is_known_to_the_kernel", lambda number: False)
    monkeypatch.setattr(pg_binaries, "_account", lambda name: None)

    with pytest.raises(DatabaseError, match="none of the user ids 60578 to 61183 can be had here; run: useradd"):
        pg_binaries.server_user(data / "pg")
    with pytest.raises(DatabaseError, match="programs run under every system account here"):
        pg_binaries.maker((FREE_IDS[0], FREE_IDS[0]))


def test_an_id_that_somebody_has_by_now_is_not_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_binaries, "_account", lambda name: None)
    (data / "pg").mkdir()
    os.chown(data / "pg", FREE_IDS[3], FREE_IDS[3])
    assert pg_binaries.server_user(data / "pg") == (FREE_IDS[3], FREE_IDS[3])

    monkeypatch.setattr(pg_binaries, "_name_of", lambda number: "somebody" if number == FREE_IDS[3] else None)
    taken = pg_binaries.server_user(data / "pg")
    assert taken is not None
    assert taken[0] in set(FREE_IDS) - {FREE_IDS[3]}
