"""``verify`` and ``replay`` beside the real service: what journal and venue say, and what a person reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from ledger import app
from ledger.app import Database
from ledger.config import Settings
from ledger.errors import ConfigError, VenueError
from ledger.sandbox.server import Sandbox
from ledger.verify import Report
from ledger.wire import heads
from tests.flows.mirrors import DIALECTS, gaps_closed, mirroring, proof_of, settings_for, venue
from tests.flows.processes import FAST, Bench, bench, pause, truth


async def verified(settings: Settings, url: str) -> Report:
    """Every check, those that ask the venue too."""
    db = Database(url, url, url, embedded=False)
    (report,) = await app.verify_all(settings, db, None, strict=False, against_venue=True)
    return report


def broken(report: Report) -> dict[str, list[str]]:
    return {v.name: [f"{row.key}: {row.found}" for row in v.first] for v in report.verdicts if not v.holds}


async def mirrored(sandbox: Sandbox, settings: Settings, url: str, conn: Any) -> None:
    """A mirror that ran, equals the venue, and stopped."""
    await sandbox.step(60)
    async with mirroring(settings, url):
        await gaps_closed(conn, 1)
        await sandbox.step(60)
        assert (await proof_of(conn, sandbox)).differences == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_mirror_that_equals_the_venue_passes_every_check(dialect: str, database_url: str, conn: Any) -> None:
    async with venue(dialect) as sandbox:
        settings = settings_for(sandbox)
        await mirrored(sandbox, settings, database_url, conn)
        report = await verified(settings, database_url)
        assert broken(report) == {}
        names = [verdict.name for verdict in report.verdicts]
        asked = ["venue_balances", "venue_open_orders", "venue_orders"]
        asked += ["venue_fills"] if dialect in ("mixed", "full") else []
        assert names[-len(asked) - 1 :] == ["head_is_kept", *asked]
        assert sandbox.violations == []
    head = await heads.read(conn, settings.data_dir, "main")
    assert head is not None, "a clean stop keeps the head"
    assert head.seq == report.head_seq


async def test_what_happened_behind_a_mirror_that_stopped_is_named_and_nothing_is_written(
    database_url: str, conn: Any
) -> None:
    async with venue("full") as sandbox:
        settings = settings_for(sandbox)
        await mirrored(sandbox, settings, database_url, conn)
        before = await conn.fetchval("SELECT head_seq FROM ledger.accounts")
        await sandbox.fault({"do": "move", "asset": "AAVE", "amount": "12.5"})
        await sandbox.step(30)
        found = broken(await verified(settings, database_url))
        assert found.keys() == {"venue_balances", "venue_open_orders", "venue_orders", "venue_fills"}
        unseen = "AAVE: 0 free and 0 locked here, 12.50000000 free and 0.00000000 locked at the venue"
        assert unseen in found["venue_balances"]
        assert any(text.endswith("at the venue, not here") for text in found["venue_fills"])
        assert await conn.fetchval("SELECT head_seq FROM ledger.accounts") == before


async def test_a_venue_that_lags_is_looked_at_again(database_url: str, conn: Any) -> None:
    async with venue("full") as sandbox:
        settings = settings_for(sandbox)
        await sandbox.step(60)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 1)
            await sandbox.fault({"do": "rest_lag", "s": 3})
            await sandbox.step(60)
            report = await verified(settings, database_url)
        assert [name for name in broken(report) if name.startswith("venue_")] == []


async def test_a_venue_that_is_away_or_an_account_without_key_is_an_error_not_a_verdict(
    database_url: str, conn: Any
) -> None:
    async with venue("full") as sandbox:
        settings = settings_for(sandbox)
        await mirrored(sandbox, settings, database_url, conn)
        await sandbox.fault({"do": "rest_status", "status": 503, "count": 1000})
        with pytest.raises(VenueError):
            await verified(settings, database_url)
    with pytest.raises(ConfigError, match="no key is configured for account 'main'"):
        await verified(settings_for(sandbox, account="other"), database_url)


# --- as commands ---


@pytest.fixture
def programs(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url}) as made:
        yield made


async def test_a_person_reads_what_is_broken_and_a_program_too(programs: Bench, conn: Any) -> None:
    rest_url = await programs.sandbox("--dialect", "full", "--rate", "50")
    service = programs.start("run")
    await gaps_closed(conn, 1)
    code, out, _ = await programs.done("replay")
    assert (code, "main: identical, at journal row" in out) == (0, True), out
    await pause(rest_url)
    assert (await truth(rest_url))["violations"] == []
    assert await service.stopped() == 0

    code, out, _ = await programs.done("verify")
    assert (code, "checks hold, at journal row" in out) == (0, True), out
    code, out, _ = await programs.done("verify", "--json", "--strict", "--account", "main")
    told = json.loads(out)
    assert (code, told["schema"], told["holds"]) == (0, "sdx-ledger/verify/1", True)
    assert len(told["accounts"][0]["verdicts"]) > 20

    seq = await conn.fetchval(
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY seq) FROM ledger.inbox WHERE source = 'stream'"
    )
    await conn.execute("SET session_replication_role = replica")
    await conn.execute("UPDATE ledger.inbox SET raw = set_byte(raw, 3, get_byte(raw, 3) # 1) WHERE seq = $1", seq)
    code, out, _ = await programs.done("verify")
    assert (code, "chain_is_whole broken" in out, f"row {seq}:" in out) == (1, True, True), out
    code, out, _ = await programs.done("verify", "--json")
    (verdict,) = [v for v in json.loads(out)["accounts"][0]["verdicts"] if v["name"] == "chain_is_whole"]
    assert (code, verdict["holds"], verdict["first"][0]["seq"]) == (1, False, seq)

    await conn.execute(
        "UPDATE ledger.fills SET qty = qty + 1 WHERE first_seq = (SELECT min(first_seq) FROM ledger.fills)"
    )
    code, out, _ = await programs.done("replay", "--json")
    told = json.loads(out)
    assert (code, told["schema"], told["identical"]) == (1, "sdx-ledger/replay/1", False)
    assert [t["table"] for t in told["accounts"][0]["tables"] if not t["identical"]][-1:] != []
    code, out, _ = await programs.done("replay", "--swap")
    assert (code, "they were corrected, which is journal row" in out) == (1, True), out
    code, out, _ = await programs.done("replay")
    assert code == 0, out


async def test_replay_without_the_owners_rights_says_what_to_set(programs: Bench, conn: Any, database_url: str) -> None:
    parts = urlsplit(database_url)
    role = f"{parts.path[1:]}_guest"
    await conn.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO {role}")
    await conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read TO {role}")
    try:
        guest = urlunsplit(
            urlsplit(database_url)._replace(netloc=f"{role}@{urlsplit(database_url).netloc.rpartition('@')[2]}")
        )
        code, _, err = await programs.done("replay", settings={"SDX_DATABASE_URL": guest})
        assert (code, "set SDX_OWNER_DATABASE_URL" in err) == (5, True), err
    finally:
        await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
