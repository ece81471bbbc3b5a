"""The database fails over to its standby behind a living stream: nothing is lost, or what was lost is a gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ledger import app
from ledger.app import Database
from ledger.config import Settings
from ledger.sandbox.server import Sandbox
from ledger.verify import Report
from ledger.wire import heads, schema
from tests.flows.mirrors import eventually, gaps_closed, proof_of, settings_for, venue, without_movements
from tests.flows.processes import FAST, Bench, bench, until
from tests.flows.replicas import WRITER, Pair, replicated, session

ROWS_MIN = 40
"""Journal rows before, between and after what happens: about a second of trading."""
HEAD = "SELECT head_seq FROM ledger.accounts WHERE account = 'main'"
GAPS = "SELECT gap_id, cause, from_ms, until_ms FROM ledger_v1.gaps ORDER BY gap_id"
LIVE = "SELECT live_through_ms FROM ledger.coverage WHERE symbol = '*'"
ROLLBACKS = "SELECT seq, source, convert_from(raw, 'UTF8')::json AS said FROM ledger_v1.journal WHERE kind = 'rollback'"
ATTRIBUTES = pytest.mark.parametrize(("dialect", "attributes"), [("documented", "primary"), ("full", "read-write")])
COMMANDS = ("db upgrade", "doctor", "status", "verify --against-venue", "export fills-csv --from 2020-01-01")


@pytest.fixture(autouse=True)
def trades_only(monkeypatch: pytest.MonkeyPatch) -> None:
    without_movements(monkeypatch)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with replicated() as made:
        yield made


def hosts(pair: Pair, attributes: str) -> dict[str, str]:
    """Settings of a service that may write rows and upgrade the schema, whichever of the two leads."""
    return {
        "SDX_DATABASE_URL": pair.url(attributes, user=WRITER),
        "SDX_OWNER_DATABASE_URL": pair.url(attributes),
    }


# --- synchronous: processes of their own ----------------------------------------------------------------------------


async def works(programs: Bench, command: str) -> None:
    """The command finds the server that leads and has nothing to complain of."""
    more = ["--to", "2040-01-01"] if command.startswith("export") else []
    code, out, err = await programs.done(*command.split(), *more)
    assert code == 0, f"{command}: {out}{err}"


@pytest.mark.slow
@ATTRIBUTES
async def test_behind_a_synchronous_standby_nothing_is_lost_and_every_command_finds_the_new_primary(
    tmp_path: Path, pair: Pair, dialect: str, attributes: str
) -> None:
    await pair.synchronous()
    async with venue(dialect, rate=20) as sandbox:
        key = {"SDX_API_KEY": sandbox.api_key, "SDX_API_SECRET": sandbox.api_secret}
        where = {"SDX_REST_URL": sandbox.rest_url, "SDX_STREAM_URL": sandbox.stream_url, **hosts(pair, attributes)}
        with bench(tmp_path, {**FAST, **key, **where}) as programs:
            await works(programs, "db upgrade")
            service = programs.start("run")
            await service.says("gap closed")
            async with session(pair.primary) as conn:
                confirmed = await eventually(conn, HEAD, lambda seq: seq > ROWS_MIN)
            await pair.fail_over()

            async with session(pair.standby) as conn:
                assert await conn.fetchval(HEAD) >= confirmed, "what was confirmed is there"
                await eventually(conn, HEAD, lambda seq: seq > confirmed + ROWS_MIN)
                sandbox.pause()
                assert (await proof_of(conn, sandbox)).differences == []
                assert [row["cause"] for row in await conn.fetch(GAPS)] == ["start"]
                assert await conn.fetch(ROLLBACKS) == []
            for command in COMMANDS:
                await works(programs, command)
            assert await service.stopped() == 0


# --- asynchronous: the whole service in this loop --------------------------------------------------------------------


@asynccontextmanager
async def serving(sandbox: Sandbox, pair: Pair, attributes: str, data_dir: Path) -> AsyncIterator[Settings]:
    """The service on both hosts, stopped at the end."""
    urls = [SecretStr(url) for url in hosts(pair, attributes).values()]
    settings = settings_for(sandbox, database_url=urls[0], owner_database_url=urls[1], data_dir=data_dir)
    stop = asyncio.Event()
    service = asyncio.create_task(app.run(settings, stop))
    try:
        yield settings
    finally:
        stop.set()
        await service


async def verified(settings: Settings, url: str) -> Report:
    (report,) = await app.verify_all(
        settings, Database(url, url, url, embedded=False), None, strict=False, against_venue=True
    )
    return report


async def is_kept(settings: Settings, conn: Any, seq: int) -> bool:
    """Whether the end of the journal that is kept outside the database is this row or a later one."""
    head = await heads.read(conn, settings.data_dir, "main")
    return head is not None and head.seq >= seq


@pytest.mark.slow
@ATTRIBUTES
async def test_what_an_asynchronous_standby_never_had_is_a_gap_that_is_backfilled_and_verify_is_green(
    tmp_path: Path, pair: Pair, dialect: str, attributes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "EVERY_S", 0.2)
    await schema.upgrade(pair.url(attributes))
    async with venue(dialect, rate=20) as sandbox, serving(sandbox, pair, attributes, tmp_path) as settings:
        async with session(pair.primary) as conn:
            await gaps_closed(conn, 1)
            await pair.cut_off()
            async with session(pair.standby) as behind:
                found_seq, live_ms = await behind.fetchval(HEAD), await behind.fetchval(LIVE)
            confirmed = await eventually(conn, HEAD, lambda seq: seq > found_seq + ROWS_MIN)
            await until(partial(is_kept, settings, conn, confirmed), "a head beyond the standby's is kept outside")
        await pair.fail_over()

        async with session(pair.standby) as conn:
            after = f"SELECT (SELECT a.head_seq FROM ledger.accounts a) - r.seq FROM ({ROLLBACKS}) r"
            await eventually(conn, after, lambda rows: rows is not None and rows > ROWS_MIN)
            sandbox.pause()
            await gaps_closed(conn, 2)
            assert (await proof_of(conn, sandbox)).differences == []
            start, gap = await conn.fetch(GAPS)
            assert (start["cause"], gap["cause"]) == ("start", "database went back")
            assert 0 <= live_ms - gap["from_ms"] < 5000, "from what the database itself had last seen live, no later"
            (rollback,) = await conn.fetch(ROLLBACKS)
            said = json.loads(rollback["said"])
            assert (rollback["source"], said["found_seq"], said["gap"]) == ("operator", found_seq, gap["gap_id"])
            assert said["lost_seq"] >= confirmed

            report = await verified(settings, pair.url(attributes))
            assert {verdict.name: verdict.first for verdict in report.verdicts if not verdict.holds} == {}
            await until(partial(is_kept, settings, conn, rollback["seq"]), "the head that is kept is the new one")

    await pair.primary.start()
    async with session(pair.primary) as conn:
        digest = "SELECT encode(digest, 'hex') FROM ledger.batches WHERE last_seq = $1"
        assert await conn.fetchval(digest, said["lost_seq"]) == said["lost_digest"], "the very row that was lost"
        fills = "SELECT count(*) FROM ledger.fills WHERE first_seq BETWEEN $1 AND $2"
        assert await conn.fetchval(fills, found_seq + 1, said["lost_seq"]) > 0, "fills were among what was lost"
