"""Explained balances: what fills, fees and transfers say is what the balance did, or the difference is told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger.db import apply, coverage, decisions, explain
from ledger.db.explain import Finding
from ledger.facts.types import Balance, Exact, Fact, Order, Settlement, Transfer
from ledger.reconcile.explain import Explainer
from ledger.sandbox.books import PAIRS, Books
from ledger.venue import requests
from ledger.wire.clock import ManualClock
from ledger.wire.postgres import Writer
from tests.histories import (
    ACCOUNT,
    T_MS,
    Frame,
    Session,
    Socket,
    Venue,
    Walker,
    column,
    fill,
    head_seq,
    held,
    known,
    order,
    rest,
    rows,
    snapshot,
    trade,
)

DIALECTS = ("documented", "orders_quote", "mixed", "full")
FAR_MS = 10_000_000
"""An instant, counted from ``T_MS``, that no history here reaches."""
MARKETS = {symbol: (pair.base, pair.quote) for symbol, pair in PAIRS.items()}
OPEN = "SELECT subject, residual FROM ledger_v1.discrepancies WHERE kind = $1 AND resolved_at IS NULL ORDER BY 1, 2"
SETTLED = "SELECT subject, residual FROM ledger_v1.discrepancies WHERE resolved_at IS NOT NULL ORDER BY 1, 2"


@dataclass
class Judge:
    """Judges as the reconciler does: what is found is told through ``apply``, six seconds pass, it looks again."""

    conn: Any
    now: datetime = field(default=datetime(2024, 6, 3, tzinfo=UTC))
    notes: Session = field(default_factory=rest)

    async def look(self, at_ms: int = FAR_MS) -> list[Finding]:
        """Once, with everything covered to ``at_ms``."""
        await Session().tell_nothing(self.conn, T_MS + at_ms)
        found = await explain.explain(self.conn, ACCOUNT, through_ms=T_MS + at_ms, now=self.now)
        facts = [fact for fact in map(explain.told, found) if fact is not None]
        if facts:
            await self.notes.tell(self.conn, *facts)
        return found

    async def settle(self, at_ms: int = FAR_MS) -> list[tuple[str, Decimal]]:
        """Until there is nothing more to tell; returns what is open."""
        for _ in range(5):
            found = await self.look(at_ms)
            if all(one.verdict == "unsure" for one in found):
                break
            self.now += timedelta(seconds=6)
        else:
            pytest.fail(f"still to tell after five looks: {found}")
        return await open_residuals(self.conn)


async def open_residuals(conn: Any) -> list[tuple[str, Decimal]]:
    return await rows(conn, OPEN, decisions.UNEXPLAINED)


async def begun(conn: Any, *balances: Balance, at_ms: int = 0, mode: str = "orders") -> Judge:
    """An account whose first snapshot held ``balances``, with the markets known."""
    await ready(conn, mode)
    session = rest()
    entry = session.entry(snapshot(*balances, at_ms=at_ms), kind="account", venue_ms=T_MS + at_ms)
    await apply.apply(conn, session.batch(entry, question="GET /api/v1/account", asked_seq=0))
    return Judge(conn)


async def ready(conn: Any, mode: str) -> None:
    await known(conn)
    await conn.execute("UPDATE ledger.venue_state SET mode = $1", mode)
    await explain.learn_markets(conn, ACCOUNT, MARKETS, source="venue")


def moved(asset: str, amount: str, at_ms: int, kind: str = "deposit") -> Transfer:
    return Transfer(asset, Exact(amount), kind, T_MS + at_ms)


# --- what is explained


async def test_a_fill_its_fee_and_both_legs_explain_the_balances(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await Session().tell(conn, fill(5, "2", "100", fee=Exact("0.2")), held("BTC", "3", at_ms=5))
    await Session().tell(conn, held("USDT", "799.8", at_ms=5))
    assert await judge.settle() == []
    assert await rows(conn, "SELECT asset, effects, residual FROM ledger.explained ORDER BY 1") == [
        ("BTC", 2, 0),
        ("USDT", Decimal("-200.2"), 0),
    ]


async def test_a_fee_in_a_third_asset_explains_it(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"), held("BNB", "1"))
    sold = fill(5, "1", "100", side="SELL", fee=Exact("0.01"), fee_asset="BNB")
    positions = held("BTC", "0", at_ms=5), held("USDT", "1100", at_ms=5), held("BNB", "0.99", at_ms=5)
    await Session().tell(conn, sold, *positions)
    assert await judge.settle() == []


async def test_an_asset_absent_from_the_first_snapshot_began_at_zero(conn: Any) -> None:
    judge = await begun(conn, held("USDT", "1000"))
    await Session().tell(conn, held("XRP", "7", at_ms=5))
    assert await judge.settle() == [("XRP", Decimal(7))]


async def test_what_was_before_the_first_snapshot_explains_itself(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await rest().tell(conn, trade(1, -5_000, "3"))
    assert await judge.settle() == []


async def test_an_announced_deposit_explains_itself(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell(conn, moved("BTC", "2", 5), held("BTC", "3", at_ms=5))
    assert await judge.settle() == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_market_told_in_full_leaves_nothing_unexplained(conn: Any, dialect: str, seed: int) -> None:
    venue = Venue(seed, 120, dialect)
    judge = await told_market(conn, venue)
    await apply.apply(conn, Socket().received(venue.frames))
    await reconciled(conn, venue)
    announced = venue.dialect.full
    assert summed(await judge.settle()) == ([] if announced else movements_of(venue.truth))


async def test_two_fills_in_a_row_are_counted_once_each(conn: Any) -> None:
    """A second look adds what is new and nothing else."""
    judge = await begun(conn, held("BTC", "1"))
    session = Session()
    for number in range(1, 4):
        at_ms = number * 1000
        await session.tell(conn, fill(at_ms, "1", fee=None, fee_asset=None), held("BTC", str(1 + number), at_ms=at_ms))
        await judge.look(at_ms)
    assert await rows(conn, "SELECT effects, total, through_ms - $1 FROM ledger.explained", T_MS) == [(3, 4, 3000)]


# --- what is not


async def test_an_unannounced_deposit_is_told_once_with_its_amount_and_instant(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell(conn, held("BTC", "3.5", at_ms=7))
    assert await judge.settle() == [("BTC", Decimal("2.5"))]
    assert await judge.settle(FAR_MS + 1) == [("BTC", Decimal("2.5"))]
    at_ms, evidence = (await rows(conn, "SELECT at_ms - $1, evidence_seq FROM ledger.discrepancies", T_MS))[0]
    assert (at_ms, evidence) == (7, 2)
    expected, actual = (await rows(conn, "SELECT expected, actual FROM ledger_v1.discrepancies"))[0]
    assert expected == "1 by fills, fees and transfers known"
    assert actual.startswith("3.5 at 2024-06-03 00:00:00.007 UTC: a deposit or another credit")


async def test_a_withdrawal_is_told_with_its_sign(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "3"))
    await Session().tell(conn, held("BTC", "1", at_ms=7))
    assert await judge.settle() == [("BTC", Decimal(-2))]


async def test_a_change_reader_sees_a_new_discrepancy(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell(conn, held("BTC", "3", at_ms=7))
    last = await head_seq(conn)
    await judge.settle()
    assert await rows(conn, "SELECT subject FROM ledger_v1.discrepancies WHERE seq > $1", last) == [("BTC",)]


async def test_one_sighting_is_not_enough(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell(conn, held("BTC", "3", at_ms=7))
    assert [one.verdict for one in await judge.look()] == ["seen"]
    judge.now += timedelta(seconds=4.9)
    assert [one.verdict for one in await judge.look()] == ["seen"]
    assert await open_residuals(conn) == []
    judge.now += timedelta(seconds=0.1)
    assert [one.verdict for one in await judge.look()] == ["open"]


async def test_another_value_is_a_first_sighting_again(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    for number in range(2, 5):
        await Session().tell(conn, held("BTC", str(number), at_ms=number))
        judge.now += timedelta(seconds=60)
        assert [one.verdict for one in await judge.look(FAR_MS + number)] == ["seen"]


async def test_two_deposits_are_two_discrepancies(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    session = Session()
    await session.tell(conn, held("BTC", "3", at_ms=7))
    await session.tell(conn, fill(8, "1", fee=None), held("BTC", "4", at_ms=8))
    await session.tell(conn, held("BTC", "9", at_ms=9))
    assert await judge.settle() == [("BTC", Decimal(2)), ("BTC", Decimal(5))]


async def test_two_equal_deposits_are_two_discrepancies(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    session = Session()
    await session.tell(conn, held("BTC", "3", at_ms=7))
    assert await judge.settle(100) == [("BTC", Decimal(2))]
    await session.tell(conn, held("BTC", "5", at_ms=200))
    assert await judge.settle() == [("BTC", Decimal(2)), ("BTC", Decimal(2))]


async def test_a_deposit_told_later_resolves_its_discrepancy_alone(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    session = Session()
    await session.tell(conn, held("BTC", "3", at_ms=7))
    await session.tell(conn, held("BTC", "9", at_ms=9))
    assert await judge.settle() == [("BTC", Decimal(2)), ("BTC", Decimal(6))]
    await session.tell(conn, moved("BTC", "6", 9))
    assert await judge.settle() == [("BTC", Decimal(2))]
    assert await rows(conn, SETTLED) == [("BTC", Decimal(6))]
    await session.tell(conn, moved("BTC", "2", 7))
    assert await judge.settle() == []


async def test_a_withheld_fill_is_a_residual_that_vanishes_when_it_arrives(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await Session().tell(conn, held("BTC", "2", at_ms=5), held("USDT", "899.9", at_ms=5))
    assert await judge.settle() == [("BTC", Decimal(1)), ("USDT", Decimal("-100.1"))]
    await Session().tell(conn, fill(5))
    assert await judge.settle() == []
    assert await rows(conn, SETTLED) == [("BTC", Decimal(1)), ("USDT", Decimal("-100.1"))]


async def test_a_late_fill_without_a_movement_is_told(conn: Any) -> None:
    """The balance was judged with less: a fill that comes late and moved nothing does not fit."""
    judge = await begun(conn, held("BTC", "1"))
    assert await judge.settle(1000) == []
    await Session().tell(conn, fill(500, "1", fee=None))
    assert await judge.settle(2000) == [("BTC", Decimal(-1))]


async def test_truth_and_fill_a_moment_apart_leave_nothing(conn: Any) -> None:
    """The instant of the deposit is found between truths that were ahead of their fills and came back."""
    judge = await begun(conn, held("BTC", "1"))
    session = Session()
    await session.tell(conn, held("BTC", "2", at_ms=10))
    await session.tell(conn, fill(11, "1", fee=None), held("BTC", "2", "0", at_ms=12))
    await session.tell(conn, held("BTC", "7", at_ms=20))
    await session.tell(conn, held("BTC", "8", at_ms=30))
    await session.tell(conn, fill(31, "1", fee=None), held("BTC", "8.0", at_ms=32))
    assert await judge.settle() == [("BTC", Decimal(5))]
    assert await rows(conn, "SELECT at_ms - $1 FROM ledger.discrepancies", T_MS) == [(20,)]


# --- when nothing may be judged


async def test_nothing_is_judged_past_an_open_gap(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell_nothing(conn, T_MS + 100)
    lost = await coverage.open_gap(conn, ACCOUNT, cause="lost", until_ms=T_MS + 5000)
    await Session().tell(conn, held("BTC", "3", at_ms=2000))
    assert await judge.settle() == []
    await coverage.close_gap(conn, ACCOUNT, lost.gap_id, complete_from_ms=None)
    assert await judge.settle() == [("BTC", Decimal(2))]


async def test_a_provisional_fill_leaves_it_undecided(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    twice = Session()
    await twice.tell(conn, fill(5, fee=None), held("BTC", "2", at_ms=5))
    await twice.tell(conn, fill(5, fee=None), held("BTC", "3", at_ms=5))
    assert await judge.settle() == []
    assert [(one.verdict, one.actual) for one in await judge.look()] == [
        ("unsure", "an execution may be a doubled frame, GET order decides")
    ]


async def test_a_market_nobody_knows_leaves_its_assets_undecided_until_it_is_known(conn: Any) -> None:
    judge = await begun(conn, held("ABC", "1"), held("DEF", "100"), held("XYZ", "1"))
    strange = fill(5, "1", "10", symbol="ABCDEF", fee=None, fee_asset=None)
    await Session().tell(conn, strange, held("ABC", "2", at_ms=5), held("DEF", "90", at_ms=5))
    await Session().tell(conn, held("XYZ", "2", at_ms=5))
    assert await judge.settle() == [("XYZ", Decimal(1))]
    assert [one.verdict for one in await judge.look()] == ["unsure", "unsure"]
    await explain.infer_markets(conn, ACCOUNT, ["ABCDEF"])
    assert await judge.settle() == [("XYZ", Decimal(1))]
    assert await judge.look() == []


async def test_a_market_learnt_to_be_another_starts_again(conn: Any) -> None:
    judge = await begun(conn, held("ABC", "1"), held("DEF", "100"), held("AB", "5"), held("CDEF", "5"))
    await explain.learn_markets(conn, ACCOUNT, {"ABCDEF": ("AB", "CDEF")}, source="inferred")
    strange = fill(5, "1", "10", symbol="ABCDEF", fee=None, fee_asset=None)
    await Session().tell(conn, strange, held("ABC", "2", at_ms=5), held("DEF", "90", at_ms=5))
    assert {asset for asset, _ in await judge.settle()} == {"AB", "ABC", "CDEF", "DEF"}
    assert await explain.learn_markets(conn, ACCOUNT, {"ABCDEF": ("ABC", "DEF")}, source="setting") == 1
    assert await explain.learn_markets(conn, ACCOUNT, {"ABCDEF": ("AB", "CDEF")}, source="venue") == 0
    assert await judge.settle() == []


# --- executions that are missing


async def test_a_known_missing_quantity_explains_the_base_asset_exactly(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await rest().tell(
        conn, order("FILLED", side="BUY", price="100", orig_qty="1", executed_qty="1", updated_ms=T_MS + 5)
    )
    await Session().tell(conn, held("BTC", "2", at_ms=5), held("USDT", "899.9", at_ms=5))
    assert await judge.settle() == []
    assert await rows(conn, SETTLED) == [("USDT", Decimal("-100.1"))], "the quote asset is told as not judged"
    await Session().tell(conn, held("USDT", "949.9", at_ms=FAR_MS + 5))
    assert await judge.settle(2 * FAR_MS) == [("USDT", Decimal(50))], "a deposit after the hole is told as ever"


@pytest.mark.parametrize("updated_ms", [T_MS + 50, None])
async def test_a_missing_execution_known_before_the_balances_are_looked_at_that_far_explains_them(
    conn: Any, updated_ms: int | None
) -> None:
    """REST was asked about the order during an outage, and the balances of a moment before were judged after that."""
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    walk = rest()
    told = order("FILLED", side="BUY", price="100", orig_qty="1", executed_qty="1", updated_ms=updated_ms)
    await apply.apply(conn, walk.batch(walk.entry(told, kind="order", venue_ms=T_MS + 60)))
    for at_ms in (20, 40):
        assert await judge.settle(at_ms) == []
    await Session().tell(conn, held("BTC", "2", at_ms=50), held("USDT", "899.9", at_ms=50))

    assert await judge.settle() == []
    assert await rows(conn, SETTLED) == [("USDT", Decimal("-100.1"))]


async def test_an_execution_lost_after_the_stream_told_of_its_order_explains_the_balances(conn: Any) -> None:
    """The venue does not tell when an order changed: what is known of that is older than the loss."""
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await Session().tell(conn, order("NEW", side="BUY", updated_ms=T_MS + 10))
    told = order("FILLED", side="BUY", price="100", orig_qty="1", executed_qty="1", created_ms=T_MS + 10)
    await rest().tell(conn, told, asked_ms=60)
    for at_ms in (20, 40):
        assert await judge.settle(at_ms) == []
    await Session().tell(conn, held("BTC", "2", at_ms=50), held("USDT", "899.9", at_ms=50))

    assert await judge.settle() == []
    assert await rows(conn, SETTLED) == [("USDT", Decimal("-100.1"))]


@pytest.mark.parametrize("created_ms", [5, 50])
async def test_a_withdrawal_is_told_though_rest_knows_of_executions_that_the_stream_has_yet_to_bring(
    conn: Any, created_ms: int
) -> None:
    """Frames wait for the database while REST goes on: what is executed later may look like what was withdrawn."""
    judge = await begun(conn, held("BTC", "1"), held("USDT", "1000"))
    await Session().tell(conn, held("USDT", "900", at_ms=10))
    whole: dict[str, Any] = {"price": "100", "orig_qty": "1", "executed_qty": "1", "created_ms": T_MS + created_ms}
    await rest().tell(conn, order("FILLED", side="BUY", **whole), asked_ms=70)
    for _ in range(3):
        assert {one.verdict for one in await judge.look(40)} <= {"seen", "open"}
        judge.now += timedelta(seconds=6)
    late = fill(60, status="FILLED"), held("BTC", "2", at_ms=60), held("USDT", "799.9", at_ms=60)
    await Session().tell(conn, *late)
    await rest().tell(conn, order("FILLED", side="BUY", **whole), asked_ms=50_000)

    assert await judge.settle() == [("USDT", Decimal(-100))]
    assert await rows(conn, SETTLED) == []


async def test_a_deposit_is_told_though_executions_are_missing_that_cannot_explain_it(conn: Any) -> None:
    judge = await begun(conn, held("USDT", "1000"))
    await rest().tell(
        conn, order("FILLED", side="BUY", price="100", orig_qty="1", executed_qty="1", updated_ms=T_MS + 5)
    )
    await Session().tell(conn, held("USDT", "1500", at_ms=5))
    assert await judge.settle() == [("USDT", Decimal(500))]


async def test_of_a_deposit_beside_a_missing_execution_the_deposit_is_told(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "5"))
    told: dict[str, Any] = {"price": "100", "orig_qty": "1", "executed_qty": "1", "created_ms": T_MS + 4}
    await rest().tell(conn, order("FILLED", side="SELL", **told))
    await Session().tell(conn, held("BTC", "6.5", at_ms=6))
    assert await judge.settle() == [("BTC", Decimal("2.5"))]
    assert await judge.look() == []


async def test_missing_trades_are_waited_for_where_the_venue_tells_trades(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"), mode="trades")
    await rest().tell(
        conn, order("FILLED", side="BUY", price="100", orig_qty="1", executed_qty="1", updated_ms=T_MS + 5)
    )
    await Session().tell(conn, held("BTC", "2", at_ms=5))
    assert await judge.settle() == []
    assert [one.actual for one in await judge.look()] == ["executions of BTCUSDT/288274 are still missing"]
    await rest().tell(conn, trade(1, 5))
    assert await judge.settle() == []
    assert await judge.look() == []


# --- whole markets, with a fill withheld


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
async def test_a_withheld_fill_shows_as_its_effect(conn: Any, seed: int) -> None:
    """In the ten-field form nothing but the balances tells that it happened."""
    venue = Venue(seed, 120, "documented")
    judge = await told_market(conn, venue)
    told = Counter(frame.content for frame in venue.frames)
    twins = {frame.order for frame in venue.frames if frame.content is not None and told[frame.content] > 1}
    singles = [n for n, frame in enumerate(venue.frames) if frame.content is not None and frame.order not in twins]
    lost = singles[len(singles) // 2]
    await apply.apply(conn, Socket().received([*venue.frames[:lost], *venue.frames[lost + 1 :]]))
    for key in 2 * await provisional(conn):
        executed = Exact(format(venue.truth.orders[key].executed_qty, "f"))
        await rest().tell(conn, Settlement(key[0], key[1], executed), asked_ms=FAR_MS)
    await two_snapshots(conn, venue)
    expected = movements_of(venue.truth) + effects_of(venue, venue.frames[lost])
    assert summed(await judge.settle()) == summed(expected)
    await apply.apply(conn, Socket().received(venue.frames))
    assert summed(await judge.settle()) == movements_of(venue.truth)


def effects_of(venue: Venue, frame: Frame) -> list[tuple[str, Decimal]]:
    """How the fill in a frame moved both assets."""
    assert frame.content is not None
    symbol, order_id, _, _, qty, price, fee = frame.content
    pair, made = PAIRS[symbol], venue.truth.order(symbol, order_id)
    assert made is not None
    sign = 1 if made.side == "BUY" else -1
    return [(pair.base, sign * qty), (pair.quote, -sign * qty * price - fee)]


async def two_snapshots(conn: Any, venue: Venue) -> None:
    """They settle what comes and goes within one millisecond."""
    for asked_ms in (FAR_MS, FAR_MS + 6000):
        body = venue.answer(requests.account(), venue.truth)
        await apply.apply(conn, Walker().answered(requests.account(), body, T_MS + asked_ms, await head_seq(conn)))


async def told_market(conn: Any, venue: Venue) -> Judge:
    """The venue's account as it was before its first event."""
    await ready(conn, "trades" if venue.dialect.trades else "orders")
    opening = Walker().answered(requests.account(), venue.answer(requests.account(), venue.books[0]), T_MS - 1, 0)
    await apply.apply(conn, opening)
    return Judge(conn)


async def reconciled(conn: Any, venue: Venue) -> None:
    """A walk, what settles doubled frames, and two snapshots."""
    walker = Walker()
    settling = [requests.query_order(symbol, order_id, settle=True) for symbol, order_id in await provisional(conn)]
    for request in (*venue.walk(venue.truth), *settling, *settling):
        await apply.apply(conn, walker.answered(request, venue.answer(request, venue.truth), T_MS + FAR_MS, None))
    await two_snapshots(conn, venue)


async def provisional(conn: Any) -> list[tuple[Any, ...]]:
    return await rows(
        conn, "SELECT DISTINCT symbol, order_id FROM ledger.fills WHERE state = 'provisional' ORDER BY 1, 2"
    )


def movements_of(books: Books) -> list[tuple[str, Decimal]]:
    """What was deposited and withdrawn without a word, per asset."""
    return summed([(one.asset, one.amount) for one in books.movements])


def summed(residuals: list[tuple[str, Decimal]]) -> list[tuple[str, Decimal]]:
    totals: dict[str, Decimal] = {}
    for asset, amount in residuals:
        totals[asset] = totals.get(asset, Decimal(0)) + amount
    return sorted((asset, total) for asset, total in totals.items() if total)


# --- locked amounts


@dataclass
class Locks:
    """Judges as the reconciler does, with a clock that is moved by hand."""

    explainer: Explainer
    clock: ManualClock
    judge: Judge

    async def look(self, *, after_s: float = 6) -> bool:
        async def tell(_: str, fact: Fact) -> None:
            await self.judge.notes.tell(self.judge.conn, fact)

        self.clock.advance(after_s)
        await Session().tell_nothing(self.judge.conn, T_MS + FAR_MS)
        return await self.explainer.judge(T_MS + FAR_MS, tell)

    async def open(self) -> list[tuple[str, Decimal]]:
        return await rows(self.judge.conn, OPEN, explain.LOCK)


@pytest.fixture
async def locks(conn: Any, database_url: str) -> AsyncIterator[Locks]:
    """An account with 2 BTC and 1000 USDT, 300 of them locked, and the judge of it."""
    judge = await begun(conn, held("BTC", "2"), held("USDT", "700", "300"))
    writer, clock = Writer(database_url, application="tests"), ManualClock(T_MS + FAR_MS)
    yield Locks(Explainer(ACCOUNT, writer, clock, assets_of={}), clock, judge)
    await writer.close()


def resting(order_id: int = 1, qty: str = "3", executed: str = "0", **told: Any) -> Order:
    words: dict[str, Any] = {"side": "BUY", "type": "LIMIT", "price": "100", "updated_ms": T_MS}
    return order("NEW", order_id, **{**words, "orig_qty": qty, "executed_qty": executed, **told})


@pytest.mark.parametrize(
    "orders",
    [
        [resting()],
        [resting(qty="5", executed="2")],
        [resting(1, "1"), resting(2, "2"), resting(3, side="SELL", type="MARKET", price="0")],
    ],
    ids=["whole", "partly executed", "two and a market order"],
)
async def test_open_orders_that_reserve_what_is_locked_are_in_order(locks: Locks, orders: list[Order]) -> None:
    await rest().tell(locks.judge.conn, *orders)
    assert not await locks.look()
    assert await locks.open() == []


async def test_a_lock_without_an_order_is_told_when_seen_twice_and_settled_when_it_is_gone(locks: Locks) -> None:
    await rest().tell(locks.judge.conn, resting(qty="1"))
    assert await locks.look(), "seen once"
    assert await locks.look(after_s=4.9), "seen twice, too soon"
    assert await locks.open() == []
    assert not await locks.look(after_s=0.1)
    assert await locks.open() == [("USDT", Decimal(200))]
    assert not await locks.look()
    await Session().tell(locks.judge.conn, held("USDT", "900", "100", at_ms=5))
    await locks.look()
    assert await locks.open() == []


@pytest.mark.parametrize(
    "order_in_doubt",
    [
        resting(qty="1", type=None),
        resting(qty="1", type="STOP_LOSS_LIMIT"),
        resting(qty="1", price=None),
        resting(qty="1", side=None),
        resting(qty="1", updated_ms=T_MS + FAR_MS - 1000),
        resting(qty="1", symbol="WHATEVER"),
    ],
    ids=["no type", "odd type", "no price", "no side", "just moved", "unknown market"],
)
async def test_a_lock_is_not_judged_while_an_order_is_not_fully_told_or_moves(
    locks: Locks, order_in_doubt: Order
) -> None:
    await rest().tell(locks.judge.conn, order_in_doubt)
    for _ in range(3):
        assert not await locks.look()
    assert await locks.open() == []


# --- balance_at


@pytest.mark.parametrize(("at_ms", "total"), [(-1, []), (0, [3]), (4, [3]), (5, [9]), (1_000_000, [9])])
async def test_balance_at_is_the_newest_truth_by_then(conn: Any, at_ms: int, total: list[int]) -> None:
    await known(conn)
    session = Session()
    for free, when in (("1", 0), ("2", 0), ("7", 5), ("8", 5)):
        await session.tell(conn, held("BTC", free, "1", at_ms=when))
    by_ms = "SELECT total FROM ledger_v1.balance_at('main', 'BTC', $1::bigint)"
    by_time = "SELECT total FROM ledger_v1.balance_at('main', 'BTC', to_timestamp($1::bigint / 1000.0))"
    assert await column(conn, by_ms, T_MS + at_ms) == total
    assert await column(conn, by_time, T_MS + at_ms) == total


# --- what it costs


async def test_a_look_reads_what_is_new_however_much_is_old(conn: Any) -> None:
    """Of 20,000 fills that were judged before none is read again."""
    judge = await begun(conn, held("BTC", "1"))
    bought = [fill(1000 + n, "1", fee=None, fee_asset=None) for n in range(20_000)]
    await Session().tell(conn, *bought, held("BTC", "20001", at_ms=30_000))
    await judge.settle(40_000)
    await Session().tell(conn, fill(50_000, "1", fee=None, fee_asset=None), held("BTC", "20002", at_ms=50_000))
    await conn.execute("ANALYZE; SET stats_fetch_consistency = none")
    before = await fills_read(conn)
    assert await judge.look(60_000) == []
    read = await fills_read(conn) - before
    assert 1 <= read < 100


async def fills_read(conn: Any) -> int:
    await conn.execute("SELECT pg_stat_force_next_flush()")
    read: int = await conn.fetchval(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
        " WHERE schemaname = 'ledger' AND relname = 'fills'"
    )
    return read
