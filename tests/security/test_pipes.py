"""A reader that goes away and a device that is full: the end comes at once, in one sentence at most."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.processes import Bench, bench, until
from tests.histories import known
from tests.patience import stretched

RANGE = ("--from", "2024-01-01", "--to", "2025-01-01")
EXPORT = ("export", "fills-csv", *RANGE)
AT_ONCE_S = 20.0
"""The program's start included; what hung took a minute, the driver's own limit."""
MORE_THAN_A_PIPE_HOLDS = 20_000


@pytest.fixture
async def programs(tmp_path: Path, database_url: str, conn: Any) -> Iterator[Bench]:  # type: ignore[misc]
    """Programs on a ledger with more fills than a pipe, a buffer and a socket hold."""
    await known(conn)
    await conn.execute(
        """
        INSERT INTO ledger.fills (account, first_seq, first_index, symbol, order_id, trade_id, price, qty, quote_qty,
                                  executed_ms, source, state, seq)
        SELECT 'main', 1, n, 'BTCUSDT', 1, n, 1, 1, 1, 1717372800000 + n, 'rest', 'confirmed', 1
        FROM generate_series(1, $1::int) n
        """,
        MORE_THAN_A_PIPE_HOLDS,
    )
    with bench(tmp_path, {"SDX_DATABASE_URL": database_url}) as made:
        yield made


def started(programs: Bench, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    # Where there is little room for files, none for bytecode: a cut one would be read by the next program.
    environment = programs.environment({"PYTHONDONTWRITEBYTECODE": "1"})
    return subprocess.Popen(
        programs.command(*words), cwd=programs.folder, env=environment, stderr=subprocess.PIPE, **options
    )


async def end_of(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = await asyncio.to_thread(process.communicate, timeout=stretched(AT_ONCE_S))
    return process.returncode, err.decode()


@pytest.mark.parametrize("words", [EXPORT, ("export", "balances-csv", "--to", "2025-01-01"), ("status", "--json")])
async def test_a_reader_that_goes_away_at_once_ends_it_without_a_word(programs: Bench, words: tuple[str, ...]) -> None:
    process = started(programs, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None

    assert await end_of(process) == (141, "")


async def test_a_reader_that_has_seen_enough_ends_it_and_the_server_sends_no_more(programs: Bench, conn: Any) -> None:
    process = started(programs, *EXPORT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = await asyncio.to_thread(process.stdout.readline)
    process.stdout.close()
    process.stdout = None

    assert first.startswith(b"account,symbol,")
    assert await end_of(process) == (141, "")

    async def is_gone() -> bool:
        query = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'sdx-ledger read'"
        return bool(await conn.fetchval(query))

    await until(is_gone, "the server's end of the export")


@pytest.mark.parametrize("words", [EXPORT, ("status",), ("discrepancy", "list", "--json")])
async def test_a_full_device_is_one_sentence(programs: Bench, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230 - a device
        process = started(programs, *words, stdout=full)

        assert await end_of(process) == (
            3,
            "sdx-ledger: cannot write to standard output: No space left on device\n",
        )


async def test_a_file_that_finds_no_room_is_one_sentence_and_leaves_what_stood_there(programs: Bench) -> None:
    (programs.folder / "fills.csv").write_text("of last month")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    process = started(programs, *EXPORT, "-o", "fills.csv", stdout=subprocess.DEVNULL, preexec_fn=little_room)

    assert await end_of(process) == (
        3,
        "sdx-ledger: export: cannot write fills.csv: File too large; free some space or name a file elsewhere\n",
    )
    assert (programs.folder / "fills.csv").read_text() == "of last month"
    assert list(programs.folder.glob("*.part")) + list(programs.folder.glob("*.json")) == []


async def test_strict_is_1_where_something_is_missing(programs: Bench) -> None:
    code, out, err = await programs.done(*EXPORT, "--strict")

    assert (code, out.count("\n")) == (1, MORE_THAN_A_PIPE_HOLDS + 1)
    assert err.splitlines()[0] == "fills-csv: nothing is complete yet"
    assert (await programs.done(*EXPORT))[0] == 0
