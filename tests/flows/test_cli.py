"""The command line as people and scripts meet it: exit codes, what is said where, files and pipes."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
import pytest_asyncio
import typer.main
from typer.testing import CliRunner

from ledger import __version__
from ledger.cli import cli
from ledger.db.code import NEWEST
from ledger.proof import prove
from ledger.sandbox.server import Sandbox
from ledger.wire import loopback
from tests.flows.processes import FAST, Bench, bench, pause, truth, until
from tests.flows.scripted_http import ScriptedHttp, reply
from tests.patience import stretched

KEY = {"SDX_API_KEY": "some-key", "SDX_API_SECRET": "some-secret"}
NO_VENUE = {"SDX_REST_URL": "http://127.0.0.1:9", "SDX_STREAM_URL": "ws://127.0.0.1:9"}
NO_DATABASE = "postgresql://nobody@127.0.0.1:9/ledger"
ALL_TIME = ("--from", "2020-01-01", "--to", "2100-01-01")


@pytest.fixture
def programs(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    """Programs on a database of this test's own."""
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url}) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Bench]:
    """Programs without any setting but a data folder of this test's own."""
    with bench(tmp_path, {"SDX_DATA_DIR": str(tmp_path / "data"), "SDX_LOG_FORMAT": "json"}) as made:
        yield made


def sentence(err: str) -> str:
    """The one line a refusal says on standard error."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("sdx-ledger: ")
    return lines[0].removeprefix("sdx-ledger: ")


# What is said about itself.

COMMANDS = {
    (): "durable, provable copy",
    ("run",): "Mirror every configured account",
    ("reconcile",): "close every open gap",
    ("status",): "Health of every account",
    ("doctor",): "Check key, clock, venue, database and disk",
    ("export",): "exact decimals",
    ("sandbox",): "A venue to try things on",
    ("demo",): "Watch it work",
    ("discrepancy",): "What does not fit",
    ("discrepancy", "list"): "the newest first",
    ("discrepancy", "resolve"): "Say what a discrepancy was",
    ("deploy",): "What a service needs",
    ("deploy", "unit"): "Print a systemd unit",
    ("deploy", "env"): "Print every setting",
    ("deploy", "sysusers"): "Print the account",
    ("db",): "The database",
    ("quarantine",): "kept without their facts",
    ("quarantine", "list"): "the newest first",
    ("quarantine", "retry"): "Apply again what is quarantined",
    ("account",): "The accounts of this database",
    ("account", "list"): "each with the venue it belongs to",
    ("account", "forget"): "Make the name of an account free",
    ("account", "unblock"): "Ask the venue again",
    ("verify",): "Check every invariant",
    ("replay",): "from the journal and compare",
    ("db", "upgrade"): "Bring the schema",
    ("db", "url"): "Print the URL",
    ("db", "psql"): "Open psql",
    ("db", "stop"): "Stop an embedded server",
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_says_what_it_does(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"], env={"COLUMNS": "200"})

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert COMMANDS[words] in shown.stdout


def test_the_list_of_commands_above_is_complete() -> None:
    top: Any = typer.main.get_command(cli)
    deep = {(name, sub) for name, one in top.commands.items() for sub in getattr(one, "commands", {})}

    assert {(name,) for name in top.commands} | deep | {()} == COMMANDS.keys()


async def test_version_is_told_on_stdout(plain: Bench) -> None:
    assert await plain.done("--version") == (0, f"sdx-ledger {__version__}\n", "")


# Refusals.

WRONG = [
    ({"SDX_KEEPALIVE_S": "4000"}, "SDX_KEEPALIVE_S"),
    ({"SDX_ACCOUNT": "My Account"}, "SDX_ACCOUNT"),
    ({"SDX_REST_URL": "http://api.example.com"}, "SDX_REST_URL"),
    ({"SDX_DATABASE_URL": "mysql://root:hunter2@127.0.0.1/x"}, "SDX_DATABASE_URL"),
    ({"SDX_API_KEY_FILE": "no/such/file"}, "SDX_API_KEY_FILE"),
    ({"SDX_HISTORY_START": "yesterday"}, "SDX_HISTORY_START"),
    ({}, "SDX_API_KEY"),
    ({"SDX_API_KEY": "some-key"}, "SDX_API_SECRET"),
]


@pytest.mark.parametrize(("settings", "name"), WRONG, ids=[str(sorted(one.items())) for one, _ in WRONG])
async def test_a_wrong_setting_stops_run_with_one_sentence_naming_it(
    programs: Bench, settings: dict[str, str], name: str
) -> None:
    code, out, err = await programs.done("run", settings=settings)

    assert (code, out) == (3, "")
    said = sentence(err)
    assert said.startswith(f"{name}: ")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("run", "SDX_API_KEY"),
        ("run", "SDX_API_SECRET"),
        ("reconcile", "SDX_API_KEY"),
        ("doctor", "SDX_API_SECRET"),
    ],
)
async def test_a_refused_key_is_exit_3_and_says_what_to_check(programs: Bench, command: str, wrong: str) -> None:
    await programs.sandbox()

    code, out, err = await programs.done(command, settings={wrong: "not-the-right-one"})

    assert code == 3
    assert re.search(rf"check (that )?{wrong}", " ".join((out + err).split()))
    assert "not-the-right-one" not in out + err
    assert "Traceback" not in err


async def test_doctor_says_4_when_the_venue_is_away_and_does_not_take_long(programs: Bench) -> None:
    code, out, _ = await programs.done("doctor", "--json", within_s=15, settings=KEY | NO_VENUE)
    found = {one["what"]: one for one in json.loads(out)["findings"]}

    assert code == 4
    assert json.loads(out)["schema"] == "sdx-ledger/doctor/1"
    assert {what: one["verdict"] for what, one in found.items()} == {
        "account main: clock": "failed",
        "account main: key": "skipped",
        "account main: listen key": "skipped",
        "account main: recovery": "skipped",
        "database": "ok",
        "schema": "ok",
    }
    assert all(one["advice"] for one in found.values() if one["verdict"] == "failed")


async def test_doctor_finds_all_well_where_all_is_well(programs: Bench) -> None:
    await programs.sandbox("--dialect", "full")

    code, out, _ = await programs.done("doctor", "--json")

    assert {one["verdict"] for one in json.loads(out)["findings"]} == {"ok"}
    assert code == 0
    assert "mode trades" in out


async def test_reconcile_at_a_venue_that_refuses_is_exit_4_and_the_gap_stays_open(programs: Bench, conn: Any) -> None:
    venue = await programs.sandbox("--rate", "0")
    elsewhere = {"do": "redirect", "to": "http://127.0.0.1:9", "path": "allOrders", "count": 100}
    await loopback.post(f"{venue}/sandbox/fault", elsewhere)

    code, out, err = await programs.done("reconcile", settings={"SDX_SYMBOLS": "BTCUSDT"})

    assert (code, out) == (4, "")
    assert "redirected" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NULL") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("status",),
        ("export", "fills-csv", *ALL_TIME),
        ("db", "upgrade"),
    ],
    ids=" ".join,
)
async def test_a_database_that_is_away_is_exit_5_naming_the_setting(plain: Bench, command: tuple[str, ...]) -> None:
    code, out, err = await plain.done(*command, settings={**KEY, **NO_VENUE, "SDX_DATABASE_URL": NO_DATABASE})

    assert (code, out) == (5, "")
    assert "SDX_DATABASE_URL" in sentence(err)


@pytest.mark.parametrize("command", [("run",), ("status",), ("db", "upgrade")], ids=" ".join)
async def test_a_newer_schema_is_exit_5_and_told_by_its_name(
    programs: Bench, conn: Any, command: tuple[str, ...]
) -> None:
    await conn.execute("UPDATE ledger.alembic_version SET version_num = '9999'")

    code, out, err = await programs.done(*command, settings=KEY | NO_VENUE)

    assert (code, out) == (5, "")
    said = sentence(err)
    assert said.count("9999, which is newer than this program") == 1
    assert "install a newer sdx-ledger" in said
    assert await conn.fetchval("SELECT version_num FROM ledger.alembic_version") == "9999"


GRANTS = """
GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO {role};
GRANT ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger TO {role}
"""


@pytest_asyncio.fixture
async def plain_role_url(conn: Any, database_url: str) -> AsyncIterator[str]:
    """A role that may read and write the ledger but does not own it."""
    role = f"sdx_plain_{uuid4().hex[:8]}"
    await conn.execute(f"CREATE ROLE {role} LOGIN; {GRANTS.format(role=role)}")
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{role}@{host}"))
    await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_old_schema_and_a_role_that_may_not_upgrade_is_exit_5_naming_db_upgrade(
    programs: Bench, conn: Any, plain_role_url: str
) -> None:
    await conn.execute("COMMENT ON SCHEMA ledger IS 'sdx-ledger code of-old'")

    code, out, err = await programs.done("run", settings={**KEY, **NO_VENUE, "SDX_DATABASE_URL": plain_role_url})
    assert (code, out) == (5, "")
    assert "run: sdx-ledger db upgrade" in sentence(err)

    code, _, err = await programs.done("db", "upgrade", settings={"SDX_DATABASE_URL": plain_role_url})
    assert (code, "cannot upgrade the database" in sentence(err)) == (5, True)

    assert (await programs.done("db", "upgrade"))[:2] == (0, f"schema is at {NEWEST}\n")
    # An upgrade makes functions anew, with the rights of the program's own roles only.
    await conn.execute(GRANTS.format(role=urlsplit(plain_role_url).username))
    await programs.sandbox()
    service = programs.start("run", settings={"SDX_DATABASE_URL": plain_role_url})
    await service.says("gap closed")


async def test_a_role_that_may_read_nothing_is_exit_5_in_words(programs: Bench, conn: Any, database_url: str) -> None:
    role = f"sdx_blind_{uuid4().hex[:8]}"
    await conn.execute(f"CREATE ROLE {role} LOGIN")
    try:
        parts = urlsplit(database_url)
        url = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        for command in ("status", "run"):
            code, out, err = await programs.done(command, settings={**KEY, **NO_VENUE, "SDX_DATABASE_URL": url})
            assert (code, out, "permission denied" in sentence(err)) == (5, "", True)
    finally:
        await conn.execute(f"DROP ROLE {role}")


# Whose account it is.


async def test_an_account_never_changes_its_venue(programs: Bench, conn: Any) -> None:
    await programs.sandbox()
    assert (await programs.done("reconcile"))[0] == 0
    rows = await conn.fetchval("SELECT count(*) FROM ledger_v1.journal")

    await programs.sandbox()
    code, out, err = await programs.done("run")

    assert (code, out) == (3, "")
    assert "SDX_ACCOUNT: account 'main' in this database belongs to http://127.0.0.1:" in err
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.journal") == rows


async def test_a_venue_that_never_accepted_the_key_leaves_the_name_free(programs: Bench, conn: Any) -> None:
    """A typo in SDX_REST_URL, and a venue of another key: neither is where the account belongs."""
    await programs.sandbox("--rate", "0")
    right = dict(programs.settings)
    async with ScriptedHttp([reply(401, '{"code":-2015,"msg":"no"}')] * 3) as stranger:
        code, _, err = await programs.done("run", settings={"SDX_REST_URL": stranger.url})
        assert (code, "SDX_API_KEY" in err) == (3, True)
    await programs.sandbox("--rate", "0")  # another venue, which would have accepted its own key
    code, _, err = await programs.done("reconcile", settings={"SDX_API_KEY": right["SDX_API_KEY"]})
    assert (code, "SDX_API_KEY" in err) == (3, True)
    assert await conn.fetchval("SELECT count(*) FROM ledger.accounts WHERE rest_origin IS NULL") == 1

    code, out, _ = await programs.done("account", "list", "--json")
    told = json.loads(out)
    assert (code, told["schema"]) == (0, "sdx-ledger/accounts/1")
    (row,) = told["accounts"]
    assert (row["account"], row["rest_origin"], row["journal_rows"]) == ("main", None, 0)

    assert (await programs.done("reconcile", settings=right))[0] == 0
    _, out, _ = await programs.done("account", "list", settings={"COLUMNS": "200"})
    assert "main" in out
    assert right["SDX_REST_URL"] in out


async def test_an_account_of_which_nothing_is_kept_can_be_forgotten_and_no_other(programs: Bench, conn: Any) -> None:
    await programs.sandbox("--rate", "0")
    assert (await programs.done("reconcile", settings={"SDX_ACCOUNT": "kept"}))[0] == 0
    wrong = {"SDX_ACCOUNT": "empty", "SDX_API_SECRET": "mistyped"}
    assert (await programs.done("run", settings=wrong))[0] == 3
    assert await conn.fetchval("SELECT count(*) FROM ledger.accounts") == 2

    code, out, err = await programs.done("account", "forget", "empty")
    assert (code, "is forgotten" in out) == (0, True), err
    for table in ("accounts", "coverage", "venue_state", "gaps"):
        assert await conn.fetchval(f"SELECT count(*) FROM ledger.{table} WHERE account = 'empty'") == 0

    code, _, err = await programs.done("account", "forget", "kept")
    assert code == 1
    assert "SDX_DATA_DIR" in err, "it says how to start anew"
    code, _, err = await programs.done("account", "forget", "nobody")
    assert (code, "nobody" in err) == (2, True)
    assert await conn.fetchval("SELECT count(*) FROM ledger.accounts") == 1


async def test_a_silence_that_the_venue_asked_for_is_shown_and_can_be_lifted(programs: Bench, conn: Any) -> None:
    await programs.sandbox("--rate", "0")
    assert (await programs.done("reconcile"))[0] == 0
    nothing = "account 'main': the venue asked for no silence\n"
    assert await programs.done("account", "unblock", "main") == (0, nothing, "")
    far_ms = 4102444800000
    await conn.execute("UPDATE ledger.venue_state SET blocked_until_ms = $1", far_ms)

    _, shown, _ = await programs.done("status")
    assert "the venue wants no calls before 2100-01-01 00:00:00.000 UTC, in " in shown
    assert "were that a mistake: sdx-ledger account unblock main" in shown
    code, line, _ = await programs.done("status", "--check")
    assert (code, "the venue wants no calls before 2100-01-01" in line) == (1, True)

    code, out, err = await programs.done("account", "unblock", "main")
    lifted = (
        "account 'main': the silence until 2100-01-01 00:00:00.000 UTC is lifted; a service that runs keeps it until"
    )
    assert (code, out, err) == (0, f"{lifted} it is started again\n", "")
    assert await conn.fetchval("SELECT blocked_until_ms FROM ledger.venue_state") is None
    assert (await programs.done("reconcile"))[0] == 0
    code, _, err = await programs.done("account", "unblock", "other")
    assert (code, err) == (
        3,
        "sdx-ledger: NAME: account 'other' is not mirrored in this database; there is: main\n",
    )


async def test_a_sandbox_with_a_state_goes_on_after_a_restart_and_one_without_is_another_account(
    programs: Bench, conn: Any, tmp_path: Path
) -> None:
    state = str(tmp_path / "market")
    await programs.sandbox("--state", state, "--history", "30", "--rate", "50")
    venue, first = programs.programs[-1], dict(programs.settings)
    assert (await programs.done("reconcile"))[0] == 0
    orders = await conn.fetchval("SELECT count(*) FROM ledger_v1.orders")
    await venue.killed()

    port = first["SDX_REST_URL"].rpartition(":")[2]
    await programs.sandbox("--state", state, "--rate", "0", "--port", port)
    again = programs.programs[-1]
    assert {name: programs.settings[name] for name in ("SDX_API_KEY", "SDX_API_SECRET")} == {
        name: first[name] for name in ("SDX_API_KEY", "SDX_API_SECRET")
    }
    assert (await programs.done("reconcile"))[0] == 0
    books = await truth(first["SDX_REST_URL"])
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.orders") == len(books["orders"]) >= orders >= 30
    await again.killed()

    await programs.sandbox("--seed", "2", "--rate", "0", "--port", port)
    assert programs.settings["SDX_API_KEY"] != first["SDX_API_KEY"]
    code, _, err = await programs.done("reconcile")
    assert (code, "this key is new to account 'main'" in err) == (3, True), "play money of another market stays out"


async def test_a_key_of_another_account_is_refused_unless_adopted(programs: Bench, conn: Any) -> None:
    first = Sandbox(seed=1, dialect="full", weight_per_minute=120_000)
    await first.step(80)
    await first.start()
    port = first.port
    programs.settings |= {"SDX_REST_URL": first.rest_url, "SDX_STREAM_URL": first.stream_url}
    keys = {"SDX_API_KEY": first.api_key, "SDX_API_SECRET": first.api_secret}
    assert (await programs.done("reconcile", settings=keys))[0] == 0
    await first.stop()

    # The venue knows another key of the same account, and one of another account.
    same = Sandbox(seed=1, dialect="full", weight_per_minute=120_000, api_key="same-account")
    same.market = first.market
    await same.start(port)
    code, _, err = await programs.done("reconcile", settings=keys | {"SDX_API_KEY": "same-account"})
    assert (code, "Traceback" in err) == (0, False)
    await same.stop()

    other = Sandbox(seed=2, dialect="full", weight_per_minute=120_000, api_key="another-account")
    await other.start(port)
    wrong = keys | {"SDX_API_KEY": "another-account"}
    for command in ("reconcile", "run"):
        code, out, err = await programs.done(command, settings=wrong)
        assert (code, out) == (3, "")
        assert "--adopt-key" in err.splitlines()[-1]
        assert "SDX_API_KEY: this key is new to account 'main'" in err.splitlines()[-1]
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.gaps") == 2

    assert (await programs.done("reconcile", "--adopt-key", settings=wrong))[0] == 0
    assert (await programs.done("reconcile", settings=wrong))[0] == 0, "adopted once is adopted"
    await other.stop()


# Reading verbs, export, reconcile by hand.


async def test_reconcile_alone_brings_the_account_and_status_and_export_show_it(
    programs: Bench, conn: Any, tmp_path: Path
) -> None:
    venue = await programs.sandbox("--dialect", "full", "--history", "60", "--rate", "0")
    nothing = await programs.done("status")
    assert nothing[:2] == (0, "no account is mirrored here yet; start one with: sdx-ledger run\n")

    code, out, err = await programs.done("reconcile")
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("main: ")
    assert " new fills, " in out
    assert {json.loads(line).get("account") for line in err.splitlines()} <= {"main", None}
    proof = await prove(conn, "main", await truth(venue))
    assert (proof.differences, proof.missing, proof.gaps_closed) == ([], 0, 1)

    code, out, err = await programs.done("status", "--json")
    told = json.loads(out)
    assert (code, err, told["schema"]) == (0, "", "sdx-ledger/status/1")
    (account,) = told["accounts"]
    assert account["account"] == "main"
    assert account["rest_origin"] == venue
    assert account["mode"] == "trades"
    assert account["live"] is False
    assert account["open_gaps"] == 0
    assert account["frames_seen"] == account["unreadable_frames"] == 0
    assert account["last_error"] is None
    assert account["weight_used"] > 0

    code, out, _ = await programs.done("status", settings={"COLUMNS": "200"})
    assert code == 0
    assert "0 open, 1 in all" in out
    assert "trades" in out

    await exports_are_the_fills(programs, conn, tmp_path)


async def exports_are_the_fills(programs: Bench, conn: Any, folder: Path) -> None:
    code, text, err = await programs.done("export", "fills-csv", *ALL_TIME)
    assert code == 0
    sums = "SELECT count(*), sum(qty)::text AS qty, sum(quote_qty)::text AS quote, sum(fee)::text AS fee"
    truth_row = await conn.fetchrow(f"{sums} FROM ledger_v1.fills")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == truth_row["count"] > 10
    assert f"{len(rows)} rows, {len(text.encode())} bytes, sha256 {hashlib.sha256(text.encode()).hexdigest()}" in err

    file = folder / "fills.csv"
    for _ in range(2):
        code, out, _ = await programs.done("export", "fills-csv", *ALL_TIME, "-o", str(file))
        assert (code, out) == (0, "")
        assert file.read_bytes() == text.encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    for form in ("orders-csv", "balances-csv"):
        code, text, _ = await programs.done("export", form, *ALL_TIME)
        assert (code, len(text.splitlines()) > 2) == (0, True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("export", "fills-pdf", *ALL_TIME), "fills-pdf"),
        (("export", "fills-csv", "--from", "someday", "--to", "2026-01-01"), "someday"),
        (("export", "fills-csv", "--from", "2026-01-01", "--to", "2026-01-01"), "--from"),
        (("export", "fills-csv", "--from", "2026-01-01"), "--to"),
        (("export", "fills-csv", "--to", "2026-01-01"), "--from"),
        (("reconcile", "--since", "someday"), "someday"),
        (("run", "--fast"), "--fast"),
        (("mirror",), "mirror"),
        (("demo", "--seconds", "3"), "--seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_wrong_usage_is_exit_2_and_names_what_is_wrong(
    programs: Bench, words: tuple[str, ...], named: str
) -> None:
    code, out, err = await programs.done(*words, settings=KEY | {"COLUMNS": "200"})

    assert (code, out) == (2, "")
    assert named in err


async def test_an_export_of_an_account_nobody_mirrors_is_refused_by_name(programs: Bench, tmp_path: Path) -> None:
    file = tmp_path / "fills.csv"

    code, out, err = await programs.done("export", "fills-csv", *ALL_TIME, "-o", str(file), "--account", "other")

    assert (code, out, "'other'" in sentence(err)) == (3, "", True)
    assert not file.exists()


async def test_status_of_a_running_service_tells_frames_what_nobody_could_read_and_the_last_error(
    programs: Bench, conn: Any
) -> None:
    venue = await programs.sandbox("--rate", "20", "--dialect", "documented")
    service = programs.start("run")
    await service.says("gap closed")
    await loopback.post(f"{venue}/sandbox/fault", {"do": "garbage", "kind": "not_json"})
    await loopback.post(f"{venue}/sandbox/fault", {"do": "refuse_ws", "for_s": 3})
    await loopback.post(f"{venue}/sandbox/fault", {"do": "drop"})
    shown: dict[str, Any] = {}

    async def healed() -> bool:
        code, out, _ = await programs.done("status", "--json")
        assert code == 0
        shown.update(json.loads(out)["accounts"][0])
        return bool(shown["gaps"] == 2 and shown["open_gaps"] == 0)

    await until(healed, "two gaps, both closed")
    assert shown["live"] is True
    assert shown["mode"] == "orders"
    assert shown["frames_seen"] > 0
    assert shown["unreadable_frames"] == 1
    assert "503" in shown["last_error"]
    assert shown["weight_used"] > 0
    assert shown["complete_through_ms"] > 0


async def test_a_reconcile_that_is_stopped_is_not_told_as_done(programs: Bench, conn: Any) -> None:
    await programs.sandbox("--history", "50", "--rate", "0")
    for number in (signal.SIGTERM, signal.SIGINT):
        program = programs.start("reconcile", settings={"SDX_REST_LAG_S": "300"})

        async def waits() -> bool:
            return bool(await conn.fetchval("SELECT count(*) FROM ledger.gaps WHERE closed_at IS NULL"))

        await until(waits, "the walk waits for REST to have caught up")
        assert await program.stopped(number, 10) == 130
        assert program.out == ""
        await conn.execute("UPDATE ledger.gaps SET closed_at = now() WHERE closed_at IS NULL")


# The database's own commands.


async def test_db_url_and_psql_reach_the_configured_database(programs: Bench, database_url: str) -> None:
    note = "sdx-ledger: SDX_READ_DATABASE_URL is not set, this is SDX_DATABASE_URL and may do what its role may\n"
    assert await programs.done("db", "url") == (0, f"{database_url}\n", note)

    code, out, err = await programs.done("db", "psql", "-At", "-c", "SELECT current_database()")

    assert (code, out, err) == (0, f"{urlsplit(database_url).path[1:]}\n", note)
    assert (await programs.done("db", "psql", "-c", "SELECT nonsense"))[0] == 1


async def test_db_upgrade_makes_the_schema_in_an_empty_database(programs: Bench, conn: Any) -> None:
    await conn.execute("DROP SCHEMA ledger, ledger_v1 CASCADE")
    nothing = "no account is mirrored here yet; start one with: sdx-ledger run"
    assert await programs.done("status") == (0, f"{nothing}\n", "")
    assert await programs.done("verify") == (5, "", f"sdx-ledger: {nothing}\n")

    for _ in range(2):
        assert (await programs.done("db", "upgrade"))[:2] == (0, f"schema is at {NEWEST}\n")

    assert (await programs.done("status"))[0] == 0


async def test_where_no_embedded_server_runs_url_and_psql_say_so_and_stop_has_nothing_to_do(plain: Bench) -> None:
    for command in ("url", "psql"):
        code, out, err = await plain.done("db", command)
        assert (code, out) == (3, "")
        assert sentence(err).startswith("SDX_DATA_DIR: no embedded server runs on ")
    assert await plain.done("db", "stop") == (0, "no embedded server is running\n", "")


# Pipes.


def start_into(
    programs: Bench, words: tuple[str, ...], *, shell: str = 'exec "$@"', **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a command with these streams, by a shell that may close some."""
    return subprocess.Popen(
        ["sh", "-c", shell, "sh", *programs.command(*words)],
        env=programs.environment({}),
        cwd=programs.folder,
        start_new_session=True,
        **streams,
    )


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("export", "fills-csv", *ALL_TIME)], ids=" ".join)
async def test_a_reader_who_has_gone_ends_a_command_without_a_traceback(
    programs: Bench, conn: Any, words: tuple[str, ...]
) -> None:
    await conn.execute("SELECT ledger.register('main', 'http://127.0.0.1:1', 'f')")
    reading, writing = os.pipe()
    os.close(reading)
    process = start_into(programs, words, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)

    try:
        _, err = await asyncio.to_thread(process.communicate, timeout=stretched(15))
    finally:
        process.kill()
        process.wait()

    assert process.returncode not in (0, 120)
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


async def test_a_service_whose_log_nobody_reads_any_more_goes_on_and_stops_when_told(
    programs: Bench, conn: Any
) -> None:
    venue = await programs.sandbox("--rate", "20")
    reading, writing = os.pipe()
    os.close(reading)
    process = start_into(programs, ("run",), stdout=writing, stderr=writing)
    os.close(writing)
    try:

        async def mirrored() -> bool:
            return bool(await conn.fetchval("SELECT count(closed_at) FROM ledger.gaps"))

        await until(mirrored, "the first gap is closed")
        await pause(venue)
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None, "the service stops", 10)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


async def test_a_service_without_any_standard_stream_runs(programs: Bench, conn: Any) -> None:
    await programs.sandbox()
    process = start_into(programs, ("run",), shell='exec "$@" <&- >&- 2>&-')
    try:

        async def mirrored() -> bool:
            return bool(await conn.fetchval("SELECT count(closed_at) FROM ledger.gaps"))

        await until(mirrored, "the first gap is closed")
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None, "the service stops", 10)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


LAST_WORD = """
from ledger import log
import structlog

class Late:
    def __del__(self):
        structlog.get_logger("late").error("the last word")

log.setup()
late = Late()
"""


async def test_a_word_logged_while_the_program_is_being_taken_down_does_not_hang_it(plain: Bench) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LAST_WORD, env=plain.environment({}), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, err = await asyncio.wait_for(process.communicate(), stretched(15))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0
    # By then the renderer may be gone already; who spoke is told all the same.
    assert b"late" in err
