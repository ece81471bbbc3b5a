"""What commands say, whole: each refusal once, in a sentence that names what came and what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ledger.cli import cli
from ledger.db.code import NEWEST
from ledger.wire import loopback
from tests.flows.processes import FAST, Bench, bench, until

KEY = {"SDX_API_KEY": "some-key", "SDX_API_SECRET": "some-secret"}
NO_VENUE = {"SDX_REST_URL": "http://127.0.0.1:9", "SDX_STREAM_URL": "ws://127.0.0.1:9"}
ALL_TIME = ("--from", "2020-01-01", "--to", "2100-01-01")
NOTHING_YET = "no account is mirrored here yet; start one with: sdx-ledger run"


@pytest.fixture
def programs(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    """Programs on a database of this test's own."""
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url, "SDX_LOG_FORMAT": ""}) as made:
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Bench]:
    """Programs on a machine where nothing was ever started: no setting, not even a data folder."""
    with bench(tmp_path, {"SDX_DATA_DIR": str(tmp_path / "data")}) as made:
        yield made


# On an empty machine.


@pytest.mark.parametrize("words", [("status",), ("discrepancy", "list"), ("quarantine", "list"), ("account", "list")])
async def test_a_list_says_where_to_begin_and_leaves_no_trace(empty: Bench, words: tuple[str, ...]) -> None:
    assert await empty.done(*words) == (0, f"{NOTHING_YET}\n", "")
    assert not (empty.folder / "data").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("replay",),
        ("export", "fills-csv", *ALL_TIME),
        ("discrepancy", "resolve", "1", "--as", "deposit", "--note", "?"),
        ("quarantine", "retry"),
        ("account", "forget", "main"),
        ("account", "unblock", "main"),
    ],
    ids=" ".join,
)
async def test_what_needs_a_ledger_says_that_there_is_none_and_makes_none(empty: Bench, words: tuple[str, ...]) -> None:
    assert await empty.done(*words) == (5, "", f"sdx-ledger: {NOTHING_YET}\n")
    assert not (empty.folder / "data").exists()


@pytest.mark.parametrize("command", ["status", "verify", "replay"])
async def test_a_ledger_without_an_account_is_said_too(programs: Bench, command: str) -> None:
    assert await programs.done(command) == (0, f"{NOTHING_YET}\n", "")


async def test_doctor_tries_postgresql_and_leaves_no_data_folder(empty: Bench) -> None:
    code, out, err = await empty.done("doctor", "--json", settings=KEY | NO_VENUE)

    found = {one["what"]: one["found"] for one in json.loads(out)["findings"]}
    assert (code, err) == (4, "")
    assert found["database"].endswith("(embedded), empty: `run` makes the schema")
    assert not (empty.folder / "data").exists()


async def test_a_missing_key_says_where_it_was_looked_for(empty: Bench) -> None:
    assert await empty.done("run") == (
        3,
        "",
        "sdx-ledger: SDX_API_KEY: not set for account 'main' (there is no .env and no sdx-ledger.toml in "
        f"{empty.folder}); set it or SDX_API_KEY_FILE, to a key that only reads\n",
    )

    (empty.folder / ".env").write_text("SDX_API_KEY=some-key\n")
    (empty.folder / ".env").chmod(0o600)
    assert await empty.done("run") == (
        3,
        "",
        f"sdx-ledger: SDX_API_SECRET: not set for account 'main' (.env in {empty.folder} was read); set it or "
        "SDX_API_SECRET_FILE, to a key that only reads\n",
    )


async def test_an_address_with_a_path_is_refused_at_the_start(empty: Bench) -> None:
    settings = KEY | {"SDX_REST_URL": "https://api.example.com/api/v1"}

    assert await empty.done("run", settings=settings) == (
        3,
        "",
        "sdx-ledger: SDX_REST_URL: expected a URL without a path, such as https://api.example.com, got "
        "'https://api.example.com/api/v1'\n",
    )


# A venue and a database that are away.


async def test_a_venue_that_is_away_is_named_with_its_setting_and_asked_once(programs: Bench) -> None:
    code, out, err = await programs.done("doctor", settings=KEY | NO_VENUE)

    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "account main" in line]
    assert (code, err) == (4, "")
    assert lines == [
        [
            "NO",
            "account main: clock",
            "cannot reach http://127.0.0.1:9 (SDX_REST_URL): connection refused",
            "check the address and this machine's network",
        ],
        ["-", "account main: key", "not asked", ""],
        ["-", "account main: listen key", "not asked", ""],
        ["-", "account main: recovery", "not asked", ""],
    ]


async def test_reconcile_without_a_venue_gives_up_naming_it(programs: Bench) -> None:
    code, out, err = await programs.done("reconcile", settings=KEY | NO_VENUE, within_s=120)

    assert (code, out) == (4, "")
    assert err.splitlines()[-1] == "sdx-ledger: cannot reach http://127.0.0.1:9 (SDX_REST_URL): connection refused"


async def test_a_database_that_is_away_is_named_without_its_password(empty: Bench) -> None:
    url = "postgresql://reader:hunter2@127.0.0.1:9/books"

    assert await empty.done("status", settings={"SDX_DATABASE_URL": url}) == (
        5,
        "",
        "sdx-ledger: cannot connect to the database at 127.0.0.1:9/books: connection refused; check SDX_DATABASE_URL, "
        "or that the server runs\n",
    )


async def test_a_market_that_the_venue_does_not_know_is_named(programs: Bench) -> None:
    await programs.sandbox("--rate", "0", "--history", "20")

    code, out, err = await programs.done("reconcile", "--symbol", "btc/usdt", "--symbol", "BTCUSDT")

    assert (code, out.count("\n")) == (4, 1)
    assert err.splitlines()[-1] == (
        "main: --symbol btc/usdt: GET /api/v1/allOrders btc/usdt: the venue says 'Invalid symbol.' "
        "(HTTP 400, code -1121)"
    )


async def test_a_monitor_is_told_that_the_service_is_well_that_it_cannot_reach_the_stream_and_that_it_is_gone(
    programs: Bench,
) -> None:
    venue = await programs.sandbox("--dialect", "full", "--rate", "5")
    service = programs.start("run", settings={"SDX_LOG_FORMAT": "json"})
    said: list[tuple[int, str, str]] = []

    async def check_says(code: int, *words: str) -> bool:
        said.append(await programs.done("status", "--check"))
        return said[-1][0] == code and all(word in said[-1][1] for word in words)

    await until(lambda: check_says(0, "main: live, complete through "), "all is well")
    await loopback.post(f"{venue}/sandbox/fault", {"do": "refuse_ws", "for_s": 3600})
    await loopback.post(f"{venue}/sandbox/fault", {"do": "drop"})
    await until(lambda: check_says(1, "main: not live: no socket since ", "REST alone is asked"), "the outage is said")
    assert await service.stopped() == 0
    await until(lambda: check_says(1, "main: no process mirrors it, not live"), "the service is gone")

    assert all(err == "" and out.count("\n") == 1 for _, out, err in said)


# An account nobody mirrors, by one helper.


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("replay",),
        ("export", "fills-csv", *ALL_TIME),
        ("discrepancy", "list"),
        ("discrepancy", "resolve", "1", "--as", "deposit", "--note", "?"),
        ("quarantine", "list"),
        ("quarantine", "retry"),
    ],
    ids=" ".join,
)
async def test_an_unknown_account_is_refused_with_the_known_ones(
    programs: Bench, conn: Any, words: tuple[str, ...]
) -> None:
    await conn.execute("INSERT INTO ledger.accounts (account, created_at) VALUES ('main', now())")

    assert await programs.done(*words, "--account", "nobody") == (
        3,
        "",
        "sdx-ledger: --account: account 'nobody' is not mirrored in this database; there is: main\n",
    )


# Old schemas.


async def test_an_older_schema_and_older_functions_are_two_sentences(programs: Bench, conn: Any) -> None:
    await conn.execute("UPDATE ledger.alembic_version SET version_num = '0003'")
    assert await programs.done("status") == (
        5,
        "",
        f"sdx-ledger: schema 0003 is older than this program ({NEWEST}); run: sdx-ledger db upgrade\n",
    )

    await conn.execute(f"UPDATE ledger.alembic_version SET version_num = '{NEWEST}'")
    await conn.execute("COMMENT ON SCHEMA ledger_v1 IS 'of another build'")
    await conn.execute("COMMENT ON SCHEMA ledger IS 'of another build'")
    assert await programs.done("status") == (
        5,
        "",
        f"sdx-ledger: schema {NEWEST} is this program's, but its functions are of another build; run: sdx-ledger db "
        "upgrade\n",
    )


# Usage: one exit code.


async def test_a_port_that_is_taken_is_a_usage_error(empty: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = await empty.done("sandbox", "--port", str(port))

    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"sdx-ledger: The sandbox cannot listen on port {port}: address already in use. Choose another port."
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sandbox", "--port", "99999"), "Invalid value for '--port': Input should be less than or equal to 65535"),
        (
            ("export", "fills-csv", "--from", "2026-02-01", "--to", "2026-01-01"),
            "Invalid value for --from: expected a time before --to (2026-01-01), got 2026-02-01",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
async def test_a_value_that_cannot_be_used_is_a_usage_error(empty: Bench, words: tuple[str, ...], said: str) -> None:
    code, out, err = await empty.done(*words, settings={"COLUMNS": "200"})

    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())


async def test_an_unknown_dialect_and_a_file_that_cannot_be_written_are_usage_errors(
    programs: Bench, conn: Any
) -> None:
    assert await programs.done("sandbox", "--dialect", "klingon") == (
        2,
        "",
        "sdx-ledger: The sandbox has no dialect 'klingon'; it speaks documented, orders_quote, mixed, full. Choose "
        "one of these.\n",
    )
    await conn.execute("INSERT INTO ledger.accounts (account, created_at) VALUES ('main', now())")
    assert await programs.done("export", "fills-csv", *ALL_TIME, "-o", "no/such/folder/fills.csv") == (
        2,
        "",
        "sdx-ledger: export: cannot write no/such/folder/fills.csv: No such file or directory; name a file in a "
        "folder you may write to\n",
    )


# Help.


def options(command: Any) -> Iterator[Any]:
    yield from command.params
    for one in getattr(command, "commands", {}).values():
        yield from options(one)


def test_a_flag_shows_no_value_in_help() -> None:
    shown = {one.name: one.metavar for one in options(typer.main.get_command(cli)) if getattr(one, "is_flag", False)}

    assert {"version", "as_json", "swap"} <= shown.keys()
    assert {name for name, metavar in shown.items() if metavar is None} <= {
        "install_completion",
        "show_completion",
        "help",
    }
