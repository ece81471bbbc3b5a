"""The service as it runs: processes of their own, killed, stopped and started again, over real connections."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.proof import Proof, prove
from ledger.wire import embedded, postgres
from tests.flows.processes import (
    FAST,
    Bench,
    Process,
    bench,
    end_all,
    family,
    left_of,
    pause,
    serving,
    truth,
    until,
)

STOP_WITHIN_S = 10.0
"""What a stop may take, as the settings promise."""


@pytest.fixture
def programs(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    """Programs on a database of this test's own."""
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url}) as made:
        yield made


@pytest.fixture
def embedded_programs(tmp_path: Path) -> Iterator[Bench]:
    """Programs on a PostgreSQL of their own under a data folder of this test."""
    data_dir = tmp_path / "data"
    with bench(tmp_path, {**FAST, "SDX_DATA_DIR": str(data_dir)}) as made:
        yield made
    assert serving(data_dir) == [], "a server outlived its test"


async def one(conn: Any, sql: str) -> Any:
    return await conn.fetchval(sql)


async def says(conn: Any, sql: str, what: str) -> None:
    """Wait until the database says so."""

    async def is_so() -> bool:
        return bool(await conn.fetchval(f"SELECT {sql}"))

    await until(is_so, what)


async def gaps(conn: Any) -> tuple[int, int]:
    """Gaps there are, and how many of them are closed."""
    row = await conn.fetchrow("SELECT count(*), count(closed_at) FROM ledger_v1.gaps")
    return row[0], row[1]


async def all_gaps_closed(conn: Any, count: int) -> None:
    async def closed() -> bool:
        return await gaps(conn) == (count, count)

    try:
        await until(closed, f"{count} gaps, all closed")
    except AssertionError as error:
        found = await conn.fetch("SELECT gap_id, cause, from_ms, until_ms, closed_at FROM ledger_v1.gaps")
        raise AssertionError(f"{error}: {[tuple(row) for row in found]}") from None


async def settled_proof(conn: Any, rest_url: str, account: str = "main") -> Proof:
    """Compare until it holds or patience ends; the last comparison is what counts."""
    books = await truth(rest_url)
    proof = await prove(conn, account, books)

    async def holds() -> bool:
        nonlocal proof
        proof = await prove(conn, account, books)
        return proof.holds

    try:
        await until(holds, "mirror = venue")
    except AssertionError:
        return proof
    return proof


GAP_IS_OPEN = "EXISTS (SELECT FROM ledger_v1.gaps WHERE closed_at IS NULL)"
NO_GAP_IS_OPEN = "NOT EXISTS (SELECT FROM ledger_v1.gaps WHERE closed_at IS NULL) AND EXISTS (SELECT FROM ledger.gaps)"


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_a_service_killed_three_times_ends_with_the_venues_rows_and_one_closed_gap_more_each_time(
    programs: Bench, conn: Any, dialect: str
) -> None:
    venue = await programs.sandbox("--dialect", dialect, "--rate", "25", "--history", "120")
    frames_before = 0

    async def the_first_walk_is_under_way() -> None:
        await says(conn, GAP_IS_OPEN, "a gap is open")

    async def frames_are_flowing() -> None:
        await says(conn, NO_GAP_IS_OPEN, "every gap is closed")
        seen = f"(SELECT max(stream_frames) >= {frames_before + 40} FROM ledger.accounts)"
        await says(conn, seen, "40 frames more were written")

    async def the_reconciler_is_writing() -> None:
        told = "(SELECT count(*) FROM ledger_v1.journal WHERE source = 'rest')"
        before = await one(conn, f"SELECT {told}")
        await says(conn, f"{told} > {before}", "an answer of the walk was written")

    moments = (the_first_walk_is_under_way, frames_are_flowing, the_reconciler_is_writing)
    for kills, moment in enumerate(moments, start=1):
        service = programs.start("run")
        await says(conn, f"(SELECT count(*) >= {kills} FROM ledger_v1.gaps)", "this start opened its gap")
        frames_before = await one(conn, "SELECT max(stream_frames) FROM ledger.accounts")
        await moment()
        await service.killed()
        assert (await gaps(conn))[0] == kills

    service = programs.start("run")
    await all_gaps_closed(conn, 4)
    await pause(venue)
    proof = await settled_proof(conn, venue)

    assert proof.differences == []
    assert proof.orders > 120
    assert proof.fills > 0
    assert (proof.missing == 0) == (dialect == "full")
    assert (proof.gaps_opened, proof.gaps_closed) == (4, 4)
    assert await service.stopped() == 0


async def test_sigterm_stops_the_service_in_time_with_exit_0_and_nothing_is_live_afterwards(
    programs: Bench, conn: Any
) -> None:
    await programs.sandbox("--rate", "20")
    service = programs.start("run")
    await says(conn, "(SELECT bool_or(live) FROM ledger_v1.coverage)", "live")

    assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0

    assert await one(conn, "SELECT bool_or(live) FROM ledger_v1.coverage") is False
    assert service.events[-1] == "service stopped"
    assert service.out == ""
    assert (
        await one(
            conn,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'sdx-ledger%'"
            " AND datname = current_database()",
        )
        == 0
    )


async def test_ctrl_c_stops_the_service_with_exit_130(programs: Bench, conn: Any) -> None:
    await programs.sandbox()
    service = programs.start("run")
    await says(conn, "(SELECT bool_or(live) FROM ledger_v1.coverage)", "live")

    assert await service.stopped(signal.SIGINT, STOP_WITHIN_S) == 130

    assert await one(conn, "SELECT bool_or(live) FROM ledger_v1.coverage") is False


async def test_a_service_waits_for_a_venue_that_is_away_and_says_so(programs: Bench, conn: Any) -> None:
    nowhere = {
        "SDX_REST_URL": "http://127.0.0.1:9",
        "SDX_STREAM_URL": "ws://127.0.0.1:9",
        "SDX_API_KEY": "some-key",
        "SDX_API_SECRET": "some-secret",
    }
    service = programs.start("run", settings=nowhere)
    await service.says("stream cannot be opened now")

    assert await one(conn, "SELECT live FROM ledger_v1.coverage") is False
    await says(
        conn,
        "(SELECT last_error LIKE 'cannot reach %: connection refused' FROM ledger.venue_state)",
        "the error is kept",
    )
    assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0


async def test_a_stop_while_the_database_is_away_is_heeded_in_time(tmp_path: Path) -> None:
    server = embedded.Embedded(tmp_path / "other")
    await server.start()
    try:
        with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": server.url()}) as programs:
            await programs.sandbox("--rate", "20")
            service = programs.start("run")
            await service.says("gap closed")
            await server.stop()
            await service.says("database is away, waiting for it")

            assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0
            assert "stopped before everything was written, which will be a gap" in service.events
    finally:
        await server.stop()


async def test_a_service_finds_the_venue_that_comes_up_later(programs: Bench, conn: Any) -> None:
    kept = ("--rate", "10", "--state", str(programs.folder / "venue.json"))  # the same market and key again
    venue = await programs.sandbox(*kept)
    port = venue.rpartition(":")[2]
    await programs.programs[0].stopped()
    service = programs.start("run")
    await service.says("stream cannot be opened now")

    programs.start("sandbox", "--port", port, *kept)

    await service.says("gap closed")
    assert await gaps(conn) == (1, 1)


async def test_a_stop_while_the_service_waits_for_a_database_of_another_owner_is_heeded(
    embedded_programs: Bench,
) -> None:
    data_dir = embedded_programs.folder / "data"
    data_dir.mkdir(mode=0o700)
    lock = os.open(data_dir / "embedded.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        service = embedded_programs.start("run", settings={"SDX_API_KEY": "k", "SDX_API_SECRET": "s"})

        def waits() -> bool:
            return any(f"{service.pid}/fd" in str(path) for path in _openers(data_dir / "embedded.lock"))

        await until(waits, "the service waits for the lock")
        assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0
    finally:
        os.close(lock)


def _openers(file: Path) -> Iterator[Path]:
    """The descriptors by which processes hold the file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == file:
                yield link
        except OSError:
            continue


@pytest.mark.slow
async def test_the_embedded_server_serves_sql_goes_with_the_service_and_comes_back_after_a_kill(
    embedded_programs: Bench,
) -> None:
    data_dir = embedded_programs.folder / "data"
    venue = await embedded_programs.sandbox("--dialect", "full", "--rate", "10")
    service = embedded_programs.start("run")
    await service.says("gap closed")
    members = family(service.pid)
    assert len(members) > 3, "the service and a server with its workers"

    code, url, _ = await embedded_programs.done("db", "url")
    assert (code, url.startswith("postgresql://sdx_reader@/ledger?host=")) == (0, True)
    code, out, _ = await embedded_programs.done("db", "psql", "-Atc", "SELECT count(*) > 0 FROM ledger_v1.orders")
    assert (code, out) == (0, "t\n")
    code, _, err = await embedded_programs.done("db", "psql", "-c", "DELETE FROM ledger.orders")
    assert code != 0
    assert "permission denied" in err or "read-only" in err
    code, out, err = await embedded_programs.done("db", "stop")
    assert (code, out) == (5, "")
    assert f"the PostgreSQL of {data_dir} belongs to a program that is running" in err

    await service.killed()
    await until(lambda: left_of(members) == [], "nothing of the killed service is left", STOP_WITHIN_S)
    assert await embedded_programs.done("db", "stop") == (0, "no embedded server is running\n", "")
    code, _, err = await embedded_programs.done("db", "url")
    assert (code, "no embedded server runs" in err) == (3, True)

    service = embedded_programs.start("run")
    await service.says("gap closed")
    await pause(venue)
    url = embedded.running_url(data_dir) or ""
    async with postgres.reading(url) as conn:
        proof = await settled_proof(conn, venue)
    assert proof.differences == []
    assert (proof.gaps_opened, proof.gaps_closed) == (2, 2)
    members = family(service.pid)

    assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0
    assert left_of(members) == []
    assert serving(data_dir) == []


@pytest.mark.slow
async def test_a_demo_of_twelve_seconds_proves_every_dialect(tmp_path: Path) -> None:
    with bench(tmp_path) as programs:
        demo = programs.start("demo", "--seconds", "12")
        await until(lambda: "database:" in demo.out, "the demo has a database")
        members = family(demo.pid)
        code = await demo.ended(90)

        assert code == 0, demo.out
        table = [line for line in demo.out.splitlines() if "│" in line]
        assert [line.split("│")[-2].strip() for line in table] == ["yes"] * 4
        assert left_of(members) == []


@pytest.mark.slow
async def test_nothing_is_left_of_a_demo_after_ctrl_c_nor_after_a_kill(tmp_path: Path) -> None:
    families: list[set[Process]] = []
    try:
        with bench(tmp_path) as programs:
            demos = [programs.start("demo", "--seed", seed) for seed in ("1", "2")]
            for demo in demos:
                await until(lambda: "database:" in demo.out, "the demo has a database")  # noqa: B023
            families += [family(demo.pid) for demo in demos]
            assert [len(members) > 8 for members in families] == [True, True], "a demo, four venues, a server, workers"

            os.killpg(demos[0].pid, signal.SIGINT)
            os.killpg(demos[1].pid, signal.SIGKILL)

            assert await demos[0].ended(20) == 130
            assert left_of(families[0]) == []
            assert await demos[1].ended() == -signal.SIGKILL
            await until(lambda: left_of(families[1]) == [], "nothing is left of the killed demo", STOP_WITHIN_S)
    finally:
        end_all(set().union(*families))
