"""The lead of an account in SQL: one holder at a time, and nothing lands that is written under an older fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from ledger.db import apply, coverage, leader, reads
from ledger.db.apply import WalkStep
from ledger.db.leader import Candidate
from ledger.db.tables import metadata
from ledger.errors import Fenced
from ledger.wire import postgres
from ledger.wire.postgres import Writer
from tests.flows.mirrors import eventually
from tests.histories import ACCOUNT, T_MS, Session, fill, held, known, order, snapshot

ALPHA = Candidate(ACCOUNT, UUID(int=1), "alpha, process 7")
BETA = Candidate(ACCOUNT, UUID(int=2), "beta, process 7")
WAITS_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE '%take_lead%'"
)


@pytest.fixture
async def ledger(conn: Any) -> Any:
    """A database with an account that nobody leads yet."""
    await known(conn)
    return conn


@pytest.fixture
async def other(ledger: Any, database_url: str) -> AsyncIterator[Any]:
    """A second connection to it."""
    connection = await postgres.connect(database_url, application="tests other")
    yield connection
    await connection.close()


async def pass_time(conn: Any, seconds: int) -> None:
    """From now on the clock of leases is so much ahead."""
    await conn.execute(
        "CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
        f" $$ SELECT clock_timestamp() + interval '{seconds} seconds' $$"
    )


async def test_one_leads_and_others_do_not_while_it_renews(ledger: Any) -> None:
    assert await leader.led_by(ledger, ACCOUNT) is None
    assert await leader.take(ledger, ALPHA) == 1
    assert await leader.take(ledger, BETA) is None
    await pass_time(ledger, 5)
    assert await leader.keep(ledger, ALPHA, 1)
    await pass_time(ledger, 10)
    assert await leader.take(ledger, BETA) is None
    assert await leader.led_by(ledger, ACCOUNT) == "alpha, process 7"


async def test_who_asks_again_since_the_answer_was_lost_gets_the_same_fence_and_all_of_the_time(ledger: Any) -> None:
    assert await leader.take(ledger, ALPHA) == 1
    await pass_time(ledger, 5)
    assert await leader.take(ledger, ALPHA) == 1
    await pass_time(ledger, 10)
    assert await leader.take(ledger, BETA) is None


async def test_a_lead_that_lapsed_goes_to_whoever_asks_first_under_a_later_fence(ledger: Any) -> None:
    await leader.take(ledger, ALPHA)
    await pass_time(ledger, 7)
    assert await leader.led_by(ledger, ACCOUNT) is None
    assert await leader.take(ledger, BETA) == 2
    assert not await leader.keep(ledger, ALPHA, 1)
    assert await leader.take(ledger, ALPHA) is None
    assert await leader.led_by(ledger, ACCOUNT) == "beta, process 7"


async def test_a_lead_that_lapsed_and_that_nobody_took_is_still_its_leaders(ledger: Any) -> None:
    await leader.take(ledger, ALPHA)
    await pass_time(ledger, 3600)
    assert await leader.keep(ledger, ALPHA, 1)
    assert await leader.take(ledger, BETA) is None


async def test_a_lead_that_is_left_goes_to_the_next_at_once_and_only_its_leader_can_leave_it(ledger: Any) -> None:
    await leader.take(ledger, ALPHA)
    await leader.leave(ledger, ALPHA, 1)
    assert await leader.take(ledger, BETA) == 2
    await leader.leave(ledger, ALPHA, 1)
    assert await leader.led_by(ledger, ACCOUNT) == "beta, process 7"


async def test_each_account_has_a_leader_of_its_own(ledger: Any) -> None:
    await known(ledger, "other")
    assert await leader.take(ledger, ALPHA) == 1
    assert await leader.take(ledger, Candidate("other", BETA.holder, BETA.host)) == 1
    (ours, theirs) = await reads.status(ledger)
    assert [(row["led"], row["leader"]) for row in (ours, theirs)] == [(True, ALPHA.host), (True, BETA.host)]
    assert ours["led_since"] <= theirs["led_since"]


async def test_status_names_no_leader_where_the_lead_was_left(ledger: Any) -> None:
    await leader.take(ledger, ALPHA)
    await leader.leave(ledger, ALPHA, 1)
    (row,) = await reads.status(ledger)
    assert (row["led"], row["leader"], row["led_since"]) == (False, None, None)


async def test_of_two_who_take_it_at_the_same_moment_one_leads(ledger: Any, other: Any) -> None:
    for fence in range(1, 11):
        taken = await asyncio.gather(leader.take(ledger, ALPHA), leader.take(other, BETA))
        assert sorted(taken, key=str) == [fence, None]
        await leader.leave(ledger, ALPHA, fence)
        await leader.leave(ledger, BETA, fence)


async def test_taking_the_lead_waits_for_a_write_in_flight_and_refuses_the_next(
    ledger: Any, other: Any, database_url: str
) -> None:
    await leader.take(ledger, ALPHA)
    await leader.leave(ledger, ALPHA, 1)
    session = Session()
    writing = other.transaction()
    await writing.start()
    await session.tell(other, order("NEW", 1))

    taking = asyncio.create_task(leader.take(ledger, BETA))
    watcher = await postgres.connect(database_url, application="tests watcher")
    try:
        await eventually(watcher, WAITS_FOR_A_LOCK, lambda waiting: waiting == 1)
        assert not taking.done()
        await writing.commit()
        assert await taking == 2
        assert await watcher.fetchval("SELECT count(*) FROM ledger_v1.orders") == 1
    finally:
        await watcher.close()


Sentence = Callable[[Any, int], Awaitable[object]]


async def _apply(conn: Any, fence: int) -> object:
    late = Session()
    facts = (order("FILLED", 9, executed_qty="5"), fill(order_id=9), held("BTC", "7", at_ms=9))
    batch = late.batch(late.entry(*facts), through_ms=T_MS + 60_000)
    return await apply.apply(conn, batch, fence=fence)


async def _walk(conn: Any, fence: int) -> object:
    late = Session("rest")
    batch = late.batch(late.entry(), walk=WalkStep(2, "BTCUSDT", "allOrders", T_MS, None, T_MS, True, 3))
    return await apply.apply(conn, batch, fence=fence)


async def _explain(conn: Any, fence: int) -> object:
    return await conn.fetch("SELECT * FROM ledger.explain($1, $2, clock_timestamp(), $3)", ACCOUNT, T_MS, fence)


SENTENCES: dict[str, Sentence] = {
    "apply": _apply,
    "stream_down": lambda conn, fence: coverage.stream_down(conn, ACCOUNT, fence=fence),
    "open_gap": lambda conn, fence: coverage.open_gap(conn, ACCOUNT, cause="late", until_ms=T_MS + 9, fence=fence),
    "close_gap": lambda conn, fence: coverage.close_gap(conn, ACCOUNT, 2, complete_from_ms=None, fence=fence),
    "explain": _explain,
}
"""What a leader writes, by the name of the SQL function."""
THE_LEAD_ITSELF = {"keep_lead", "leave_lead", "lock_account"}


async def test_these_are_all_functions_that_know_a_fence(conn: Any) -> None:
    named = await conn.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND 'p_fence' = ANY (proargnames)"
    )
    assert {row["proname"] for row in named} == SENTENCES.keys() | THE_LEAD_ITSELF


async def everything(conn: Any) -> dict[str, list[str]]:
    """Every row of every table."""
    return {
        table.name: [row[0] for row in await conn.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")]
        for table in metadata.sorted_tables
    }


@pytest.mark.parametrize("write", [*SENTENCES.values(), _walk], ids=[*SENTENCES, "walk"])
async def test_a_leader_that_wakes_up_late_moves_nothing(ledger: Any, database_url: str, write: Sentence) -> None:
    assert await leader.take(ledger, ALPHA) == 1
    await coverage.open_gap(ledger, ACCOUNT, cause="start", until_ms=T_MS, fence=1)
    walk = Session("rest")
    page = walk.entry(snapshot(held("BTC", "5", at_ms=-9), at_ms=-9), kind="account", venue_ms=T_MS - 9)
    await apply.apply(ledger, walk.batch(page, question="account", asked_seq=0), fence=1)
    await coverage.close_gap(ledger, ACCOUNT, 1, complete_from_ms=None, fence=1)
    await coverage.open_gap(ledger, ACCOUNT, cause="lost", until_ms=T_MS + 9, fence=1)
    await pass_time(ledger, 7)
    assert await leader.take(ledger, BETA) == 2
    before = await everything(ledger)

    late = Writer(database_url, application="tests late")
    try:
        with pytest.raises(Fenced, match="led by number 2, not by 1 any more"):
            await late.run(lambda conn: write(conn, 1))
        assert await everything(ledger) == before
        await late.run(lambda conn: write(conn, 2))
        assert await everything(ledger) != before, "the very same moves something under the right fence"
    finally:
        await late.close()


async def test_whoever_has_no_fence_may_write_beside_the_leader(ledger: Any) -> None:
    assert await leader.take(ledger, ALPHA) == 1
    await Session().tell(ledger, order("NEW", 1))
    await apply.apply(ledger, Session().batch(through_ms=T_MS), fence=1)
    assert await ledger.fetchval("SELECT count(*) FROM ledger_v1.orders") == 1
