"""Several processes on one account, several accounts in one process: one leads, one that fails stops no other.

Who wrote what is told by the database itself: each process connects under a name of its own, and a trigger notes it
beside the fence at every write.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ledger import app
from ledger.app import Database
from ledger.config import AccountSettings, Settings
from ledger.errors import KeyRefused
from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import ALL_MARKETS, eventually, gaps_closed, holds, mirroring, settings_for, venue
from tests.flows.processes import FAST, Bench, Program, bench, pause, until
from tests.flows.proxy import before_database, before_port, through
from tests.flows.test_process import settled_proof
from tests.patience import stretched

TAKEOVER_S = 10.0
WATCHED = ("batches", "gaps", "coverage")
"""Whatever a leader writes, it writes to one of these, too."""
WRITERS = "SELECT DISTINCT fence, who FROM public.writers ORDER BY fence, who"
LEASE = "SELECT fence FROM ledger.leases WHERE account = 'main'"
LAPSED = "SELECT until_at < clock_timestamp() FROM ledger.leases WHERE account = 'main'"
LED = "SELECT until_at > clock_timestamp() FROM ledger.leases WHERE account = 'main'"
FRAMES = "SELECT stream_frames FROM ledger.accounts WHERE account = 'main'"
LOST_LEAD = "another process leads, nothing more is written here"


@pytest.fixture
async def programs(tmp_path: Path, database_url: str, conn: Any) -> AsyncIterator[Bench]:
    """Programs on a database of this test's own that notes who writes under which fence."""
    await conn.execute(
        """
        CREATE TABLE public.writers (n bigint GENERATED ALWAYS AS IDENTITY, fence bigint, who text);
        CREATE FUNCTION public.note_writer() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.writers (fence, who)
            SELECT a.fence, current_setting('test.who', true) FROM ledger.accounts a
            WHERE a.account = NEW.account AND a.fence > 0;
            RETURN NULL;
        END $$;
        """
    )
    for table in WATCHED:
        await conn.execute(
            f"CREATE TRIGGER noted AFTER INSERT OR UPDATE ON ledger.{table}"
            " FOR EACH ROW EXECUTE FUNCTION public.note_writer()"
        )
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url}) as made:
        yield made


def start(programs: Bench, who: str, **settings: str) -> Program:
    """The service under a name that the database learns."""
    url = programs.settings["SDX_DATABASE_URL"]
    named = f"{url}{'&' if '?' in url else '?'}test.who={who}"
    return programs.start("run", settings={"SDX_DATABASE_URL": named, **settings})


async def pair(programs: Bench, **settings: str) -> tuple[Program, Program]:
    """A leader that has closed its first gap, and its standby."""
    first = start(programs, "first", **settings)
    await first.says("gap closed")
    second = start(programs, "second", **settings)
    await second.says("standing by")
    return first, second


async def says_again(program: Program, event: str, times: int) -> None:
    """Wait until its log has told this so many times."""
    await until(lambda: program.events.count(event) >= times, f"{event!r} {times} times in the log")


async def takes_over(program: Program) -> None:
    """Wait until it leads, its stream is up and the time without a leader is a gap; in time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await program.says("gap opened")
    assert loop.time() - began_s < stretched(TAKEOVER_S)


async def writers(conn: Any) -> list[tuple[int, str]]:
    return [tuple(row) for row in await conn.fetch(WRITERS)]


async def test_a_standby_asks_the_venue_nothing_and_writes_nothing_and_status_names_the_leader(
    programs: Bench, conn: Any
) -> None:
    await programs.sandbox("--rate", "20")
    first, second = await pair(programs)
    frames = await conn.fetchval(FRAMES)
    await eventually(conn, FRAMES, lambda found: found > frames + 60)

    assert second.events.count("stream connected") == 0
    assert await writers(conn) == [(1, "first")]
    code, out, _ = await programs.done("status", "--json")
    (row,) = json.loads(out)["accounts"]
    assert (code, row["led"]) == (0, True)
    assert row["leader"].endswith(f", process {first.pid}")
    assert row["led_since"].endswith("+00:00")
    code, out, _ = await programs.done("status", settings={"COLUMNS": "200"})
    assert f"process {first.pid}, since " in out

    assert await second.stopped() == 0
    assert await first.stopped() == 0
    code, out, _ = await programs.done("status", "--json")
    assert json.loads(out)["accounts"][0]["led"] is False
    code, out, _ = await programs.done("status")
    assert "NOBODY" in out


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["documented", "mixed"])
async def test_a_standby_takes_over_from_a_killed_leader_and_the_rows_are_right(
    programs: Bench, conn: Any, dialect: str
) -> None:
    rest_url = await programs.sandbox("--dialect", dialect, "--rate", "25", "--history", "40")
    first, second = await pair(programs)

    await first.killed()
    await takes_over(second)
    await second.says("gap closed")
    await pause(rest_url)
    proof = await settled_proof(conn, rest_url)

    assert proof.differences == []
    assert (proof.gaps_opened, proof.gaps_closed) == (2, 2)
    assert proof.fills > 0
    assert await writers(conn) == [(1, "first"), (2, "second")]
    covered, opened = await conn.fetchrow("SELECT g.from_ms, g.until_ms FROM ledger.gaps g WHERE gap_id = 2")
    assert 0 < opened - covered < (TAKEOVER_S + 5) * 1000, "from the last covered instant on, not from the beginning"


@pytest.mark.slow
async def test_a_leader_that_wakes_up_late_is_fenced_stands_by_and_leads_again_when_its_successor_dies(
    programs: Bench, conn: Any
) -> None:
    rest_url = await programs.sandbox("--dialect", "full", "--rate", "25")
    first, second = await pair(programs)

    os.kill(first.pid, signal.SIGSTOP)
    await takes_over(second)
    await second.says("gap closed")
    seq = await conn.fetchval("SELECT head_seq FROM ledger.accounts")
    os.kill(first.pid, signal.SIGCONT)
    await first.says(LOST_LEAD)
    await first.says("standing by")
    await eventually(conn, FRAMES + f" AND head_seq > {seq + 40}", lambda found: found is not None)
    assert await writers(conn) == [(1, "first"), (2, "second")]

    await second.killed()
    await takes_over(first)
    await says_again(first, "gap closed", 2)
    await pause(rest_url)
    proof = await settled_proof(conn, rest_url)

    assert proof.differences == []
    assert proof.fills == proof.venue_fills > 0
    assert (proof.gaps_opened, proof.gaps_closed) == (3, 3)
    assert await writers(conn) == [(1, "first"), (2, "second"), (3, "first")]
    assert first.events.count("account failed, starting it again") == 0
    assert "never retrieved" not in first.err
    assert await first.stopped() == 0


async def test_a_leader_that_is_stopped_hands_over_at_once_and_with_it_a_listen_key_that_lives(
    programs: Bench, conn: Any
) -> None:
    rest_url = await programs.sandbox("--dialect", "full", "--rate", "25")
    first, second = await pair(programs, SDX_RELEASE_KEY="1")
    loop = asyncio.get_running_loop()

    began_s = loop.time()
    assert await first.stopped() == 0
    await second.says("gap opened")
    assert loop.time() - began_s < stretched(5), "sooner than the lead would have lapsed"
    await second.says("gap closed")
    frames = await conn.fetchval(FRAMES)
    await eventually(conn, FRAMES, lambda found: found > frames + 40)
    await pause(rest_url)
    proof = await settled_proof(conn, rest_url)

    assert proof.differences == []
    assert (proof.gaps_opened, proof.gaps_closed) == (2, 2)
    assert "stream lost" not in second.events


# --- in this process -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """The whole service in this loop, stopped at the end."""
    stop = asyncio.Event()
    service = asyncio.create_task(app.run(settings, stop))
    try:
        yield service
    finally:
        stop.set()
        await service


async def test_while_the_database_is_away_nobody_takes_over_and_its_leader_goes_on(
    database_url: str, conn: Any
) -> None:
    async with venue("full") as sandbox, before_database(database_url) as proxy:
        settings = settings_for(sandbox)
        async with mirroring(settings, through(proxy, database_url)) as mirror:
            await gaps_closed(conn, 1)
            async with mirroring(settings, through(proxy, database_url)) as standby:
                await sandbox.step(20)
                proxy.go_away()
                await sandbox.step(20)
                await eventually(conn, LAPSED, bool)
                proxy.come_back()
                await eventually(conn, LED, bool)

                assert await conn.fetchval(LEASE) == 1
                await holds(conn, sandbox, gaps=1)
                assert (mirror.leads, standby.leads) == (True, False)


async def test_one_pass_of_reconcile_beside_a_leader_breaks_neither_its_stream_nor_coverage(
    database_url: str, conn: Any
) -> None:
    db = Database(database_url, database_url, database_url, embedded=False)
    async with venue("full") as sandbox:
        settings = settings_for(sandbox, reconcile_every_s=300)
        await sandbox.step(40)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 1)
            await conn.execute(
                """
                CREATE TABLE public.downs (at timestamptz);
                CREATE FUNCTION public.note_down() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN INSERT INTO public.downs VALUES (clock_timestamp()); RETURN NULL; END $$;
                CREATE TRIGGER noted AFTER UPDATE ON ledger.coverage FOR EACH ROW
                WHEN (OLD.live AND NOT NEW.live OR NEW.live_through_ms < OLD.live_through_ms)
                EXECUTE FUNCTION public.note_down();
                """
            )
            await sandbox.step(20)
            async with app.mirrors(settings, db) as (by_hand,):
                outcome = await by_hand.heal_once(since_ms=None, symbols=(), on_progress=None)
            await sandbox.step(20)

            assert outcome.answers > 0
            assert await conn.fetchval("SELECT live FROM ledger_v1.coverage WHERE symbol = '*'") is True
            proof = await holds(conn, sandbox, gaps=2)
            assert proof.fills == proof.venue_fills
            assert await conn.fetchval("SELECT count(*) FROM public.downs") == 0
            assert await conn.fetchval(LEASE) == 1


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_of_two_sockets_one_that_is_cut_leaves_no_gap_and_no_double(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox, before_port(sandbox.port) as proxy:
        await sandbox.step(40)
        # Where REST tells trades it is not asked again, so that the stream alone brings the fills.
        every_s = 300 if dialect == "full" else 2
        both = settings_for(
            sandbox,
            sockets=2,
            stream_url=f"ws://127.0.0.1:{proxy.port}",
            reconcile_every_s=every_s,
            symbols=ALL_MARKETS,
        )
        async with mirroring(both, database_url):
            await gaps_closed(conn, 1)
            await sandbox.until(lambda: sandbox.sockets == 2)
            from_rest = await conn.fetchval("SELECT count(*) FROM ledger_v1.fills WHERE source = 'rest'")
            for cut in (0, 1, 0):
                await sandbox.step(20)
                proxy.lines[cut].cut()
                await sandbox.until(lambda: sandbox.sockets == 1)
                await sandbox.step(20)
                await sandbox.until(lambda: sandbox.sockets == 2)
            await sandbox.step(20)
            proof = await holds(conn, sandbox, gaps=1)

            assert await conn.fetchval("SELECT count(*) FROM ledger_v1.fills WHERE source = 'rest'") == from_rest
            assert proof.fills - from_rest > 20
            assert await conn.fetchval("SELECT count(*) FROM ledger.fills WHERE state <> 'confirmed'") == 0


LAST_ERRORS = (
    "SELECT jsonb_object_agg(account, coalesce(paused_error, last_error)) FROM ledger.venue_state"
    " WHERE coalesce(paused_error, last_error) IS NOT NULL"
)


def accounts_of(sandbox: Sandbox, *names: str, **secrets: str) -> Settings:
    """Several accounts behind one venue; ``secrets``: of those whose key is another."""
    key = SecretStr(sandbox.api_key)
    accounts = tuple(
        AccountSettings(name=name, api_key=key, api_secret=SecretStr(secrets.get(name, sandbox.api_secret)))
        for name in names
    )
    return settings_for(sandbox, api_key=None, api_secret=None, accounts=accounts)


async def test_an_account_that_cannot_start_or_crashes_stops_no_other_says_why_and_is_tried_again(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "ACCOUNT_PAUSE_S", 0.2)
    await conn.execute(
        """
        SELECT ledger.register('elsewhere', 'https://elsewhere.example', 'k');
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE 'no gap may be opened'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON ledger.gaps FOR EACH ROW WHEN (NEW.account = 'crashing')
        EXECUTE FUNCTION public.refuse();
        """
    )
    async with venue("full") as sandbox:
        await sandbox.step(40)
        settings = accounts_of(sandbox, "elsewhere", "mistyped", "crashing", "main", mistyped="no-such-secret")
        async with serving(settings.model_copy(update={"database_url": SecretStr(database_url)})) as service:
            told = await eventually(conn, LAST_ERRORS, lambda found: found is not None and found.count('": "') == 3)
            told = json.loads(told)
            assert "belongs to https://elsewhere.example" in told["elsewhere"]
            assert "SDX_API_SECRET" in told["mistyped"]
            assert told["crashing"].startswith("the database refuses to work (P0001)")
            await gaps_closed(conn, 1)
            await sandbox.step(20)
            await holds(conn, sandbox, gaps=1)

            await conn.execute(
                "UPDATE ledger.accounts SET rest_origin = $1 WHERE account = 'elsewhere'", sandbox.rest_url
            )
            await conn.execute("DROP TRIGGER refuse ON ledger.gaps")
            await gaps_closed(conn, 3)
            live = (
                "SELECT array_agg(account::text ORDER BY account) FROM ledger_v1.coverage WHERE live AND symbol = '*'"
            )
            await eventually(conn, live, lambda found: found == ["crashing", "elsewhere", "main"])
            assert not service.done()


async def test_an_account_whose_venue_is_away_goes_on_when_it_comes(database_url: str, conn: Any) -> None:
    async with venue("full") as sandbox, before_port(sandbox.port) as proxy:
        proxy.go_away()
        url = f"127.0.0.1:{proxy.port}"
        settings = accounts_of(sandbox, "one", "two").model_copy(
            update={"database_url": SecretStr(database_url), "rest_url": f"http://{url}", "stream_url": f"ws://{url}"}
        )
        async with serving(settings):
            await eventually(conn, LAST_ERRORS, lambda found: found is not None and found.count('": "') == 2)
            proxy.come_back()
            await gaps_closed(conn, 2)


async def test_a_mistyped_key_that_is_mended_needs_no_word_of_adoption(database_url: str, conn: Any) -> None:
    async with venue("full") as sandbox:
        await sandbox.step(20)
        with pytest.raises(KeyRefused):
            async with mirroring(settings_for(sandbox, api_secret=SecretStr("mistyped")), database_url):
                pass
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
