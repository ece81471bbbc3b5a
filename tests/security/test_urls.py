"""Database URLs and secrets: a mistyped one is one sentence without its value, whoever would have read it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from ledger import config, log, urls
from ledger.errors import ConfigError
from ledger.wire import postgres
from tests.flows.processes import Bench, bench, until

PASSWORD = "pA5sw0rd-9xY"
ENCODED = "postgresql://u:p%23%2F%3F%40%3A@127.0.0.1/d"

MISTYPED = {
    "a hash in the password": f"postgresql://u:{PASSWORD}#x@127.0.0.1:5432/d",
    "a slash in the password": f"postgresql://u:{PASSWORD}/x@127.0.0.1:5432/d",
    "a question mark in the password": f"postgresql://u:{PASSWORD}?x@127.0.0.1:5432/d",
    "an at sign in the password": f"postgresql://u:{PASSWORD}@x@127.0.0.1:5432/d",
    "a colon in the password": f"postgresql://u:x:{PASSWORD}@127.0.0.1:5432/d",
    "a bracket in the password": f"postgresql://u:[{PASSWORD}@127.0.0.1:5432/d",
    "a space in the password": f"postgresql://u:{PASSWORD} x@127.0.0.1:5432/d",
    "a lone percent sign": f"postgresql://u:{PASSWORD}%zz@127.0.0.1:5432/d",
    "no user": f"postgresql://:{PASSWORD}:x@127.0.0.1/d",
    "the password where the port belongs": f"postgresql://127.0.0.1:{PASSWORD}/d",
    "a port beyond 65535": f"postgresql://u:{PASSWORD}@127.0.0.1:99999/d",
    "a port that is a word": f"postgresql://u:{PASSWORD}@127.0.0.1:five/d",
    "port 0 in the query": f"postgresql://u:{PASSWORD}@/d?port=0",
    "a query without a value": f"postgresql://u:{PASSWORD}@127.0.0.1/d?sslmode",
    "the password as a query": f"postgresql://127.0.0.1/d?{PASSWORD}",
    "another scheme": f"mysql://u:{PASSWORD}@127.0.0.1/d",
    "no scheme": f"u:{PASSWORD}@127.0.0.1/d",
    "no slashes": f"postgresql:u:{PASSWORD}@127.0.0.1/d",
    "a line break": f"postgresql://u:{PASSWORD}\n@127.0.0.1/d",
    "a letter beyond ASCII": f"postgresql://u:{PASSWORD}ß@127.0.0.1/d",
    "a service": f"postgresql://u:{PASSWORD}@127.0.0.1/d?service=other",
}


@pytest.mark.parametrize("name", ["database_url", "read_database_url", "owner_database_url"])
@pytest.mark.parametrize("mistake", MISTYPED)
def test_a_mistyped_url_is_one_sentence_without_its_value(mistake: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(**{name: MISTYPED[mistake]})

    message = str(caught.value)
    assert message.startswith(f"SDX_{name.upper()}: expected a URL ")
    assert (PASSWORD in message, "127.0.0.1" in message, "\n" in message) == (False, False, False)
    assert caught.value.exit_code == 3


ARGUMENTS = {"export": ("fills-csv", "--from", "2026-01-01", "--to", "2026-01-02")}


@pytest.mark.parametrize("command", ["run", "status", "doctor", "export", "db upgrade", "db psql", "db url"])
async def test_no_command_prints_a_password_with_a_hash(command: str, tmp_path: Path) -> None:
    settings = {"SDX_DATABASE_URL": MISTYPED["a hash in the password"], "SDX_LOG_LEVEL": "debug"}
    with bench(tmp_path, settings) as programs:
        code, out, err = await programs.done(*command.split(), *ARGUMENTS.get(command, ()))

    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert err.startswith("sdx-ledger: SDX_DATABASE_URL: expected a URL ")
    assert ("%23" in err, PASSWORD in err) == (True, False)


@pytest.mark.parametrize(
    "url",
    [
        ENCODED,
        "postgres://127.0.0.1",
        "postgresql://u@[::1]:5433/d",
        "postgresql://u@/d?host=%2Ftmp%2Fx%2Fs&port=5432",
        "postgresql://u@127.0.0.1:1,127.0.0.2:2/d?target_session_attrs=read-write",
    ],
)
def test_what_is_written_rightly_is_taken_as_it_is(url: str) -> None:
    loaded = config.load(database_url=url)

    assert loaded.database_url is not None
    assert loaded.database_url.get_secret_value() == url


async def test_what_the_driver_says_of_a_url_does_not_leave_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise ValueError(f"invalid literal for int() with base 10: '{PASSWORD}'")

    monkeypatch.setattr(asyncpg, "connect", refuse)
    with pytest.raises(ConfigError) as caught:
        await postgres.connect("postgresql://x", application="test")

    assert PASSWORD not in str(caught.value)


def test_a_certificate_that_is_not_there_is_named() -> None:
    url = f"postgresql://u:{PASSWORD}@127.0.0.1/d?sslmode=verify-full&sslrootcert=/none.crt"

    with pytest.raises(ConfigError) as caught:
        config.load(database_url=url)

    assert str(caught.value) == "SDX_DATABASE_URL: sslrootcert: expected a file that can be read, got /none.crt"


@pytest.mark.parametrize("url", [*MISTYPED.values(), ENCODED])
def test_the_whole_url_and_all_that_may_be_its_password_is_masked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_redactor", log._Redactor())
    log._redactor.learn(urls.passwords(url))

    assert log.redact(f"cannot use {url} now") == "cannot use *** now"
    written = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    assert not written or log.redact(f"bad port {written!r}") in ("bad port '***'", 'bad port "***"')


ELSEWHERE = [
    "postgresql://u:p@db.example/d",
    "postgresql://u@10.0.0.7,127.0.0.1/d",
    "postgresql://u@db.example/d?sslmode=require",
    "postgresql://u@/d?host=db.example",
]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize("name", ["database_url", "read_database_url", "owner_database_url"])
def test_a_database_elsewhere_must_prove_which_server_it_is(name: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"SDX_{name.upper()}: expected sslmode=verify-full .* SDX_DATABASE_TLS=off"):
        config.load(**{name: url})

    assert config.load(**{name: url}, database_tls="off").unchecked_databases()
    checked = url.replace("sslmode=require", "").rstrip("?") + ("&" if "host=" in url else "?") + "sslmode=verify-full"
    assert config.load(**{name: checked}).unchecked_databases() == ()


async def test_doctor_says_that_nothing_proves_which_server_it_is(tmp_path: Path) -> None:
    # No name server is asked for this name.
    settings = {"SDX_DATABASE_URL": "postgresql://u@db.invalid:1/d", "SDX_DATABASE_TLS": "off"}
    with bench(tmp_path, settings) as programs:
        _, out, _ = await programs.done("doctor", "--json")

    findings = {one["what"]: one for one in json.loads(out)["findings"]}
    assert findings["database TLS"]["verdict"] == "warning"
    assert "SDX_DATABASE_URL is on another machine" in findings["database TLS"]["found"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SDX_REST_URL", f"https://host/?key={PASSWORD}"),
        ("SDX_REST_URL", PASSWORD * 4),
        ("SDX_STREAM_URL", f"wss://host/#{PASSWORD}"),
        ("SDX_ACCOUNT", PASSWORD * 4),
        ("SDX_HTTP_PORT", PASSWORD * 4),
    ],
)
def test_a_secret_in_the_wrong_variable_is_not_echoed(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=f"{name}: expected ") as caught:
        config.load()

    assert PASSWORD not in str(caught.value)


# psql and db url.

SHOW = r"""#!{python}
import os, sys
print(open('/proc/self/cmdline').read().split(chr(0))[2:-1], os.environ.get('PGPASSWORD'))
print(sorted(name for name in os.environ if name.startswith('SDX_')))
"""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Bench]:
    """Programs whose psql prints what the system's table of processes shows of it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("postgres", "initdb"):
        (folder / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'\n")
    (folder / "psql").write_text(SHOW.format(python=sys.executable))
    for file in folder.iterdir():
        file.chmod(0o755)
    settings = {
        "SDX_PG_BIN": str(folder),
        "SDX_DATABASE_URL": f"postgresql://w:{PASSWORD}%2F@127.0.0.1/d?application_name=x",
        "SDX_READ_DATABASE_URL": f"postgresql://r@127.0.0.1/d?password={PASSWORD}&sslmode=prefer",
        "SDX_OWNER_DATABASE_URL": "postgresql://o@127.0.0.1/d",
    }
    with bench(tmp_path, settings) as made:
        yield made


async def test_psql_gets_no_password_on_its_command_line_and_none_of_our_settings(watched: Bench) -> None:
    shown = f"['postgresql://r@127.0.0.1/d?sslmode=prefer', '-c', 'SELECT 1'] {PASSWORD}\n[]\n"
    assert await watched.done("db", "psql", "-c", "SELECT 1") == (0, shown, "")

    code, out, err = await watched.done("db", "psql", "--as", "writer")
    assert (code, out) == (0, f"['postgresql://w@127.0.0.1/d?application_name=x'] {PASSWORD}/\n[]\n")
    assert err == "sdx-ledger: as writer, which can spoil what the service wrote\n"


async def test_readers_get_the_url_for_readers(watched: Bench) -> None:
    for words, user in (((), "r"), (("--as", "sdx_reader"), "r"), (("--as", "writer"), "w"), (("--as", "owner"), "o")):
        _, out, _ = await watched.done("db", "url", *words)
        assert out.startswith(f"postgresql://{user}")

    watched.settings["SDX_READ_DATABASE_URL"] = ""
    _, out, err = await watched.done("db", "url")
    assert (out.startswith("postgresql://w"), "SDX_READ_DATABASE_URL is not set" in err) == (True, True)
    assert (await watched.done("db", "url", "--as", "boss"))[0] == 2


# The process itself.


async def test_no_core_dump_is_written_of_this_program(tmp_path: Path) -> None:
    with bench(tmp_path, {"SDX_LOG_FORMAT": "json"}) as programs:
        venue = programs.start("sandbox", "--port", "0")
        await until(lambda: "SDX_API_SECRET=" in venue.out, "the sandbox listens")
        assert resource.prlimit(venue.pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.parametrize(("command", "code"), [("run", 0), ("status", 130)])
async def test_a_stop_while_the_program_is_loaded_is_as_a_later_one(command: str, code: int, tmp_path: Path) -> None:
    with bench(tmp_path) as programs:
        words = [sys.executable, "-X", "importtime", *programs.command(command)[1:]]
        process = await asyncio.create_subprocess_exec(
            *words, cwd=tmp_path, env=programs.environment({}), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        async for line in process.stderr:
            if line.rstrip().endswith(b" getpass"):  # one of the first that the command line brings
                process.send_signal(signal.SIGTERM)
                break
        await process.stderr.read()

        assert await process.wait() == code
    assert not (tmp_path / "data").exists()
    assert os.listdir(tmp_path) == []
