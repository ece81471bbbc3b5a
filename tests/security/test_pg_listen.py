"""The embedded server over TCP: on loopback, for the reader with its password, and for nobody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from ledger.errors import ConfigError
from ledger.wire import embedded
from ledger.wire.embedded import DATABASE, OWNER, READER, WRITER, Embedded
from ledger.wire.pg_listen import PASSWORD_FILE
from tests.flows.test_embedded import ask, ask_until_up, owner_process, sockets_of
from tests.free_port import free_address
from tests.security.test_embedded_doors import connects

WHO = "SELECT current_user || ' ' || current_database()"


@pytest.fixture(scope="module")
def listen() -> str:
    return free_address()


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder below one that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sdx-listen-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "data"
    shutil.rmtree(folder)


def over_tcp(listen: str, role: str, password: str | None, database: str = DATABASE) -> str:
    return f"postgresql://{role}{f':{password}' if password else ''}@{listen}/{database}"


async def refusal(url: str) -> str:
    """What the server says to a client that it does not let in."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError) as caught:
        await ask(url, WHO)
    return str(caught.value)


async def test_the_reader_gets_in_with_its_password(data: Path, listen: str) -> None:
    async with Embedded(data, listen=listen) as pg:
        url = embedded.tcp_url(data, listen)

        assert embedded.running_listen(data) == listen
        assert await ask(url, WHO) == "sdx_reader ledger"
        assert await ask(pg.url(), "SHOW listen_addresses") == "127.0.0.1"
        parts = urlsplit(url)
        assert (parts.username, f"{parts.hostname}:{parts.port}", parts.path) == (READER, listen, "/ledger")
    assert embedded.running_listen(data) is None


async def test_nobody_gets_in_as_another_role_or_into_another_database_not_even_with_a_password(
    data: Path, listen: str
) -> None:
    async with Embedded(data, listen=listen) as pg:
        password = urlsplit(embedded.tcp_url(data, listen)).password
        for role in (WRITER, OWNER):
            await ask(pg.url(), f"ALTER ROLE {role} PASSWORD '{password}'")
            assert "no pg_hba.conf entry for host" in await refusal(over_tcp(listen, role, password))
        assert "no pg_hba.conf entry for host" in await refusal(over_tcp(listen, READER, password, "postgres"))
        for wrong in ("x" * 32, None):
            assert "password authentication failed" in await refusal(over_tcp(listen, READER, wrong or "-"))
        conn = await asyncpg.connect(embedded.tcp_url(data, listen))
        for forbidden in ("SET ROLE sdx_writer", "CREATE TABLE public.x ()", "SELECT pg_read_file('PG_VERSION')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(forbidden)
        await conn.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_of_the_machine_gets_in_with_the_password_alone(data: Path, listen: str) -> None:
    async with Embedded(data, listen=listen) as pg:
        url = embedded.tcp_url(data, listen)
        for user in ("nobody", "daemon"):
            assert connects(url, user) == (True, READER)
            for role in (READER, WRITER, OWNER, user):
                assert connects(over_tcp(listen, role, None), user)[0] is False
                assert connects(pg.url(user=role), user)[0] is False
        with pytest.raises(PermissionError):
            await asyncio.to_thread(read_as_nobody, data / PASSWORD_FILE)


def read_as_nobody(file: Path) -> None:
    """Try it in a child, with the rights of user nobody."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            file.read_text()
        except PermissionError:
            os._exit(13)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13:
        raise PermissionError(file)


async def test_the_password_is_in_a_private_file_kept_over_restarts_and_made_anew_where_it_was_removed(
    data: Path, listen: str
) -> None:
    file = data / PASSWORD_FILE
    async with Embedded(data, listen=listen) as pg:
        first = embedded.tcp_url(data, listen)
        kept = await ask(pg.url(), f"SELECT rolpassword FROM pg_authid WHERE rolname = '{READER}'")
        assert str(kept).startswith("SCRAM-SHA-256$4096:")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.stat().st_uid == os.geteuid()
        assert len(file.read_text().strip()) == 32

    async with Embedded(data, listen=listen):
        assert embedded.tcp_url(data, listen) == first
        assert await ask(first, WHO) == "sdx_reader ledger"
        file.unlink()
        with pytest.raises(ConfigError, match="no such file or directory; without the file the next start of the"):
            embedded.tcp_url(data, listen)

    async with Embedded(data, listen=listen):
        assert embedded.tcp_url(data, listen) != first
        assert await ask(embedded.tcp_url(data, listen), WHO) == "sdx_reader ledger"
        assert "password authentication failed" in await refusal(first)

    passwords = {urlsplit(first).password or "-", file.read_text().strip()}
    assert [word for word in passwords if word in (data / "postgres.log").read_text()] == []


async def test_a_password_of_ones_own_is_taken_whatever_is_in_it(data: Path, listen: str) -> None:
    (data / PASSWORD_FILE).write_text("p@ss/w:rd?#%41'\"\\x")
    async with Embedded(data, listen=listen):
        assert await ask(embedded.tcp_url(data, listen), WHO) == "sdx_reader ledger"
    (data / PASSWORD_FILE).unlink()


@pytest.mark.parametrize(
    "content", ["", "short\n", "x" * 15, "with a space in it\n", "two\nlines of a file\n", "é" * 20]
)
async def test_a_file_without_a_password_is_refused_in_words_that_do_not_show_it(
    data: Path, listen: str, content: str
) -> None:
    (data / PASSWORD_FILE).write_text(content)
    with pytest.raises(ConfigError, match=r"reader\.password: expected a password of 16 to 256 characters") as caught:
        await Embedded(data, listen=listen).start()
    assert (content.strip() in str(caught.value)) == (content == "")
    (data / PASSWORD_FILE).unlink()


async def test_a_file_that_others_may_write_is_refused(data: Path, listen: str) -> None:
    file = data / PASSWORD_FILE
    file.write_text("x" * 32)
    file.chmod(0o602)
    with pytest.raises(ConfigError, match=r"reader\.password: .* may be written by every user"):
        await Embedded(data, listen=listen).start()
    file.unlink()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_port_in_use_is_one_sentence(data: Path, host: str) -> None:
    with socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET) as other:
        other.bind((host.strip("[]"), 0))
        other.listen()
        listen = f"{host}:{other.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            await Embedded(data, listen=listen).start()

    assert (
        str(caught.value)
        == f"SDX_PG_LISTEN: {listen} cannot be listened on: address already in use; choose another port"
    )
    assert caught.value.exit_code == 3
    async with Embedded(data) as pg:
        assert pg.owns, "the refusal let the lock go"


async def test_on_the_other_loopback_too(data: Path) -> None:
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        listen = f"[::1]:{one.getsockname()[1]}"
    async with Embedded(data, listen=listen):
        assert await ask(embedded.tcp_url(data, listen), WHO) == "sdx_reader ledger"


async def test_a_url_of_the_socket_is_good_with_and_without_tcp(data: Path, listen: str) -> None:
    async with Embedded(data) as pg:
        before = pg.url()
        assert await ask(before, "SHOW listen_addresses") == ""
        assert embedded.running_listen(data) is None
    async with Embedded(data, listen=listen) as pg:
        assert pg.url() == before
        assert await ask(before, "SHOW port") == listen.rpartition(":")[2]
    async with Embedded(data) as pg:
        assert await ask(before, "SHOW port") == "5432"
        with pytest.raises(ConnectionRefusedError):
            await ask(over_tcp(listen, READER, "x"), WHO)


async def test_who_takes_over_listens_as_its_own_settings_say(data: Path, listen: str) -> None:
    with owner_process(data) as (owner, url):
        async with Embedded(data, listen=listen) as guest:
            assert not guest.owns
            assert embedded.running_listen(data) is None
            owner.communicate("")

            assert await ask_until_up(url, "SHOW listen_addresses") == "127.0.0.1"
            assert sockets_of(guest.url()) == sockets_of(url)
