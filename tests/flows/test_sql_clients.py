"""SQL clients on the embedded server: what docs/clients.md says is done as it says, on a service that runs."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.wire.pg_listen import PASSWORD_FILE
from tests.flows.processes import FAST, ROOT, Bench, bench, pause, serving
from tests.free_port import free_address

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
SUM = "SELECT sum(quote_qty) FROM ledger_v1.fills"


def block(heading: str, language: str) -> str:
    """The code under a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return section.split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Bench]:
    """Programs on an embedded server that is asked to listen."""
    with bench(tmp_path, {**FAST, "SDX_PG_LISTEN": free_address()}) as made:
        yield made
    assert serving(tmp_path / "data") == [], "a server outlived its test"


def in_shell(programs: Bench, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person would, with ``sdx-ledger`` on the path."""
    folder = programs.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "sdx-ledger").write_text(f'#!/bin/sh\nexec {shlex.join(programs.command())} "$@"\n')
    (folder / "sdx-ledger").chmod(0o755)
    ours = programs.environment({})
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        env={**ours, "PATH": f"{folder}:{ours['PATH']}", **variables},
        cwd=programs.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


TOLD = """
import json, sys
cells = {name: type(fills[name].iloc[0]).__name__ for name in ("price", "qty", "quote_qty", "executed_at")}
json.dump([cells, str(turnover.sum()), str(fills["executed_at"].dt.tz)], sys.stdout)
"""


@pytest.mark.slow
async def test_clients_read_a_service_that_runs_as_the_page_says(programs: Bench) -> None:
    venue = await programs.sandbox("--dialect", "full", "--rate", "10", "--history", "30")
    address = programs.settings["SDX_PG_LISTEN"]
    service = programs.start("run")
    await service.says("gap closed")
    await pause(venue)
    password = (programs.folder / "data" / PASSWORD_FILE).read_text().strip()

    code, url, remark = await programs.done("db", "url", "--tcp")
    assert (code, url) == (0, f"postgresql://sdx_reader:{password}@{address}/ledger\n")
    assert remark == "sdx-ledger: this URL holds a password: who has it can read the ledger from this machine\n"

    code, shown, _ = await programs.done("status")
    assert f"SQL over TCP: {address}, database ledger, user sdx_reader; see: sdx-ledger db url --tcp" in shown
    assert json.loads((await programs.done("status", "--json"))[1])["pg_listen"] == address
    code, examined, _ = await programs.done("doctor", "--json")
    (found,) = [one for one in json.loads(examined)["findings"] if one["what"] == "SQL over TCP"]
    assert (found["verdict"], found["found"].startswith(address)) == ("ok", True)
    _, elsewhere, _ = await programs.done("doctor", "--json", settings={"SDX_PG_LISTEN": "127.0.0.1:1"})
    (found,) = [one for one in json.loads(elsewhere)["findings"] if one["what"] == "SQL over TCP"]
    assert (found["verdict"], found["advice"]) == ("warning", "start the service again with the setting you want")

    told = in_shell(programs, block("psql", "sh"))
    assert (told.returncode, told.stderr) == (0, "")
    assert [word in told.stdout for word in ("symbol", "locked", "complete_through")] == [True] * 3

    code, exact, _ = await programs.done("db", "psql", "--tcp", "-Atc", SUM)
    for words in ("db url --tcp", "db url"):
        script = f'LEDGER_URL=$(sdx-ledger {words} 2>/dev/null) exec "$PYTHON" -c "$CODE"'
        run = in_shell(programs, script, PYTHON=sys.executable, CODE=block("pandas", "python") + TOLD)
        assert run.returncode == 0, run.stderr
        decimals = {"price": "Decimal", "qty": "Decimal", "quote_qty": "Decimal", "executed_at": "Timestamp"}
        assert json.loads(run.stdout) == [decimals, exact.strip(), "UTC"]

    _, socket_url, _ = await programs.done("db", "url")
    assert await service.stopped() == 0
    for words in (("db", "url", "--tcp"), ("db", "psql", "--tcp")):
        code, out, err = await programs.done(*words)
        assert (code, out, "no embedded server runs on" in err) == (3, "", True)

    service = programs.start("run")
    await service.says("gap closed")
    assert await programs.done("db", "url") == (0, socket_url, "")
    assert await programs.done("db", "url", "--tcp") == (0, url, remark)
    assert await service.stopped() == 0

    written = [shown, examined, elsewhere, *(program.err for program in programs.programs)]
    assert [text for text in written if password in text] == []


@pytest.mark.slow
async def test_a_server_that_was_not_asked_to_listen_has_no_url_for_tcp(programs: Bench) -> None:
    await programs.sandbox()
    del programs.settings["SDX_PG_LISTEN"]
    service = programs.start("run")
    await service.says("service started")

    code, out, err = await programs.done("db", "url", "--tcp")

    assert (code, out) == (3, "")
    assert "was started without it; set it, such as SDX_PG_LISTEN=127.0.0.1:5433, and start the service again" in err
    assert not (programs.folder / "data" / PASSWORD_FILE).exists()
    assert await service.stopped() == 0


async def test_a_port_in_use_ends_run_with_one_sentence(programs: Bench) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = {"SDX_PG_LISTEN": address, "SDX_API_KEY": "k", "SDX_API_SECRET": "s"}
        code, out, err = await programs.done("run", settings=settings)
        assert (code, out) == (3, "")
        said = f"SDX_PG_LISTEN: {address} cannot be listened on: address already in use; choose another port"
        assert err.splitlines()[-1] == f"sdx-ledger: {said}"

        code, shown, _ = await programs.done("doctor", "--json", settings={"SDX_PG_LISTEN": address})
        (found,) = [one for one in json.loads(shown)["findings"] if one["what"] == "SQL over TCP"]
        assert (found["verdict"], found["found"], found["exit_code"]) == ("failed", said, 3)


async def test_commands_that_look_start_no_server_that_listens(programs: Bench) -> None:
    with socket.socket() as other:
        host, _, port = programs.settings["SDX_PG_LISTEN"].partition(":")
        other.bind((host, int(port)))
        other.listen()
        assert (await programs.done("db", "upgrade"))[0] == 0
        assert (await programs.done("status"))[0] == 0


async def test_tcp_is_of_the_embedded_server_and_for_readers(programs: Bench) -> None:
    code, _, err = await programs.done("db", "url", "--tcp", settings={"SDX_DATABASE_URL": "postgresql:///x"})
    assert (code, "--tcp is for the embedded server" in err) == (3, True)
    for role in ("writer", "sdx_owner"):
        code, _, err = await programs.done("db", "url", "--tcp", "--as", role)
        assert (code, "over TCP there is the reader alone" in err) == (2, True)


def test_the_page_names_every_way_in_and_what_was_not_run() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    clients = headings[headings.index("psql") :]
    assert clients == ["psql", "DBeaver", "Metabase", "pandas", "DuckDB", "Excel"]
    for heading in clients:
        section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        assert re.search(r"Run by (a test|hand)|Not run", " ".join(section.split())), heading
