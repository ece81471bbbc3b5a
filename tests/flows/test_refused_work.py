"""The database refuses to work: a right or a function is missing for a while, and later is there again.

What the frames say is not at fault, so nothing may be dropped: the account waits, says so, and goes on by itself.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import gaps_closed, holds, venue
from tests.flows.processes import FAST, Bench, Program, bench, until
from tests.flows.test_process import STOP_WITHIN_S, says
from tests.histories import rows

MORE = 60
"""So often the market acts while the database refuses, and again."""
SNAPSHOTS = 3
"""So often the balances are looked at meanwhile: what stays unexplained is told when it was seen twice."""
APPLY = "EXECUTE ON FUNCTION ledger.apply"
DENIED = {
    "table fills": (
        """
        CREATE FUNCTION public.deny() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'permission denied for table fills'; END $$;
        CREATE TRIGGER deny BEFORE INSERT ON ledger.fills EXECUTE FUNCTION public.deny()
        """,
        "DROP FUNCTION public.deny CASCADE",
    ),
    "function apply": (f"REVOKE {APPLY} FROM {{writer}}", f"GRANT {APPLY} TO {{writer}}"),
}
"""What takes a right away and gives it back. On fills it is the owner's, as whom the service writes; the owner of a
test is a superuser, from whom nothing can be taken, so a trigger says what the server would."""
PAUSED = "EXISTS (SELECT FROM ledger.venue_state WHERE paused_error IS NOT NULL)"
UNEXPLAINED = """
    SELECT asset, residual FROM ledger.discrepancies WHERE kind = 'unexplained_balance' AND resolved_at IS NULL
    ORDER BY asset, residual
"""
REFUSED_ROWS = "SELECT count(*) FROM ledger.inbox WHERE problem IS NOT NULL AND kind <> 'note'"


@pytest_asyncio.fixture
async def writer(conn: Any) -> AsyncIterator[str]:
    """A role that may do what sdx_writer may, of this test's own: roles belong to the whole server."""
    role = f"sdx_writer_{uuid4().hex[:8]}"
    grants = (files("ledger.db") / "grants.sql").read_text("utf-8").replace("sdx_writer", role)
    await conn.execute(f"CREATE ROLE {role} LOGIN; {grants}")
    yield role
    await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def programs(tmp_path: Path, database_url: str, writer: str) -> Iterator[Bench]:
    """Programs that write under that role."""
    parts = urlsplit(database_url)
    url = urlunsplit(parts._replace(netloc=f"{writer}@{parts.netloc.rpartition('@')[2]}"))
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": url}) as made:
        yield made


@asynccontextmanager
async def served(programs: Bench, dialect: str) -> AsyncIterator[tuple[Sandbox, Program]]:
    """The service in a process of its own, its first gap closed, and a venue that trades by ``step`` alone."""
    async with venue(dialect) as sandbox:
        programs.settings |= {
            "SDX_REST_URL": sandbox.rest_url,
            "SDX_STREAM_URL": sandbox.stream_url,
            "SDX_API_KEY": sandbox.api_key,
            "SDX_API_SECRET": sandbox.api_secret,
        }
        service = programs.start("run")
        await service.says("gap closed")
        await sandbox.step(40)
        yield sandbox, service


def asked_for(sandbox: Sandbox, name: str) -> int:
    """How often this endpoint answered."""
    return sum(path.endswith(f"/{name}") for _, path, _ in sandbox.calls)


async def status_of(programs: Bench) -> dict[str, Any]:
    code, out, err = await programs.done("status", "--json")
    assert code == 0, err
    (account,) = json.loads(out)["accounts"]
    return dict(account)


async def nothing_was_lost(conn: Any, programs: Bench, sandbox: Sandbox, *, gaps: int) -> None:
    """Every fill of the venue is here, nothing was kept without its facts, and every check holds."""
    await says(conn, f"NOT {PAUSED}", "the account is no longer paused")
    await sandbox.step(20)
    proof = await holds(conn, sandbox, gaps=gaps)
    assert (proof.missing, proof.fills) == (0, proof.venue_fills)
    assert await conn.fetchval(REFUSED_ROWS) == 0
    status = await status_of(programs)
    assert (status["paused_error"], status["paused_since"]) == (None, None)
    # Movements that the dialect does not announce are for a person to say: each one is told, and nothing else.
    moved = [] if sandbox.dialect.full else sorted((one.asset, one.amount) for one in sandbox.books.movements)
    await until(partial(tells_of, conn, moved), f"discrepancies tell of {moved}")
    _, out, _ = await programs.done("verify", "--strict", "--json")
    broken = {one["name"] for one in json.loads(out)["accounts"][0]["verdicts"] if one["count"]}
    assert broken == ({"balances_are_explained"} if moved else set())


async def tells_of(conn: Any, moved: list[tuple[str, Decimal]]) -> bool:
    """Whether exactly these amounts are open discrepancies of their assets."""
    return await rows(conn, UNEXPLAINED) == moved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "denied"), [("documented", "table fills"), ("full", "table fills"), ("full", "function apply")]
)
async def test_a_right_taken_away_under_traffic_and_given_back_costs_no_fill(
    dialect: str, denied: str, programs: Bench, conn: Any, writer: str
) -> None:
    take_away, give_back = (sql.replace("{writer}", writer) for sql in DENIED[denied])
    async with served(programs, dialect) as (sandbox, service):
        # What is executed while nothing is written may look like this, which the stream tells before.
        await sandbox.fault({"do": "move", "asset": "USDT", "amount": "-5000", "announce": sandbox.dialect.full})
        moved_ms = sandbox.books.movements[-1].at_ms
        await says(
            conn, f"EXISTS (SELECT FROM ledger_v1.coverage WHERE complete_through_ms >= {moved_ms})", "it is covered"
        )
        await conn.execute(take_away)
        await sandbox.step(MORE)
        await service.says("database refuses to work, this account is paused")
        await says(conn, PAUSED, "status says that the account is paused")
        status = await status_of(programs)
        assert f"(42501): permission denied for {denied}; give the writer its rights back" in status["paused_error"]
        assert status["paused_since"] is not None
        assert "PAUSED" in (await programs.done("status"))[1]
        await sandbox.step(MORE)
        if not sandbox.dialect.trades:  # else REST brings fills too, so the balances are not looked at
            snapshots = asked_for(sandbox, "account")
            await sandbox.until(lambda: asked_for(sandbox, "account") >= snapshots + SNAPSHOTS)
        await conn.execute(give_back)
        await service.says("database works again")
        await nothing_was_lost(conn, programs, sandbox, gaps=1)


@pytest.mark.slow
@pytest.mark.parametrize("function", ["apply", "row_digest", "lock_account"])
async def test_a_function_that_is_missing_for_a_while_costs_nothing(function: str, programs: Bench, conn: Any) -> None:
    async with served(programs, "documented") as (sandbox, service):
        await conn.execute(f"ALTER FUNCTION ledger.{function} RENAME TO is_gone")
        await sandbox.step(1)
        await service.says("database refuses to work, this account is paused")
        await says(conn, PAUSED, "status says that the account is paused")
        assert "(42883)" in (await status_of(programs))["paused_error"]
        await sandbox.step(MORE)
        await conn.execute(f"ALTER FUNCTION ledger.is_gone RENAME TO {function}")
        await nothing_was_lost(conn, programs, sandbox, gaps=1)


async def test_a_stop_while_the_account_is_paused_is_heeded_and_the_next_start_finds_what_is_missing(
    programs: Bench, conn: Any, writer: str
) -> None:
    async with served(programs, "full") as (sandbox, service):
        await conn.execute(f"REVOKE {APPLY} FROM {writer}")
        await sandbox.step(MORE)
        await says(conn, PAUSED, "status says that the account is paused")
        assert await service.stopped(signal.SIGTERM, STOP_WITHIN_S) == 0
        assert (await status_of(programs))["paused_error"] is not None, "nobody has seen it work again"

        await conn.execute(f"GRANT {APPLY} TO {writer}")
        programs.start("run")
        await gaps_closed(conn, 2)
        await nothing_was_lost(conn, programs, sandbox, gaps=2)
