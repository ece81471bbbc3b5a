"""Whatever reaches the mirror in whatever order, however often, over however many sessions: the same rows.

A seeded market trades; its frames are dropped, doubled, shuffled and cut over sessions and batches, and mixed with
REST answers from any earlier moment. One complete walk over REST at the end must then make the mirror equal to the
market's own books, to the last digit. Where a dialect tells no trades, exactly what no session delivered is missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger.db import apply, reads
from ledger.db.apply import Batch
from ledger.sandbox.books import Books, Fill, Order
from ledger.venue import requests
from tests.histories import T_MS, Frame, Socket, Venue, Walker, contents_of, doubts, due_orders, head_seq, known, rows

END_MS = T_MS + 3_600_000
"""When the last walk asks; long after the market's last action."""

OrderKey = tuple[str, int]
FillRow = tuple[Any, ...]
Content = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """What happens to a history on its way. Shares are of 100."""

    seed: int
    steps: int
    sockets: int
    lost: int
    doubled: int
    shuffled: bool
    answers: int
    batch_max: int
    amended: int


plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 60),
    sockets=st.integers(1, 3),
    lost=st.sampled_from((0, 10, 60)),
    doubled=st.sampled_from((0, 10, 40)),
    shuffled=st.booleans(),
    answers=st.integers(0, 6),
    batch_max=st.sampled_from((1, 5, 200)),
    amended=st.sampled_from((0, 0, 40)),
)


TWINS_OF_ONE_MILLISECOND = Plan(
    seed=40857, steps=41, sockets=3, lost=0, doubled=40, shuffled=False, answers=1, batch_max=1, amended=0
)
"""Two equal fills in one millisecond: the frame of the first is doubled, that of the second fills the order."""


@pytest.mark.parametrize("dialect", ["documented", "orders_quote", "mixed", "full"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(plan=plans)
@example(plan=TWINS_OF_ONE_MILLISECOND)
async def test_a_mirror_equals_the_venue_after_one_complete_walk(conn: Any, dialect: str, plan: Plan) -> None:
    venue, chance = Venue(plan.seed, plan.steps, dialect, amended=plan.amended), Random(plan.seed)
    account = await known(conn, f"a{uuid4().hex}")
    delivered = [lossy(venue.frames, plan, chance) for _ in range(plan.sockets)]
    expected = expected_fills(venue, delivered)
    told = [doubling(frames, plan, chance, tellable(venue, expected)) for frames in delivered]

    await interleave(conn, batches(account, told, plan, chance), answers(account, venue, plan, chance), chance)
    await walk_to_the_end(conn, account, venue)

    assert await mirror_fills(conn, account) == {key: sorted(fills) for key, fills in expected.items() if fills}
    assert await mirror_orders(conn, account) == venue_orders(venue, expected)
    assert await missing(conn, account) == shortfall(venue, expected)
    assert await balances(conn, account) == nonzero(venue.truth)
    assert [kind for kind, is_open in await doubts(conn, account) if is_open] == []
    assert await transfers(conn, account) == delivered_transfers(venue, delivered)


# --- what happens on the way


def lossy(frames: Sequence[Frame], plan: Plan, chance: Random) -> list[Frame]:
    kept = [frame for frame in frames if chance.randrange(100) >= plan.lost]
    if plan.shuffled:
        chance.shuffle(kept)
    return kept


def tellable(venue: Venue, expected: dict[OrderKey, list[FillRow]]) -> set[bytes]:
    """The frames that may come twice within one session: not a movement, of which two are two.

    Without trades nobody can tell a double from a lost fill of that size, nor from a twin of another frame of the same
    order: there only frames of orders that lost nothing are doubled, and beside twins only the twins themselves.
    """
    if venue.dialect.trades:
        return {frame.raw for frame in venue.frames if b'"balanceUpdate"' not in frame.raw}
    made, counts = venue_fills(venue), Counter(frame.content for frame in venue.frames)
    twins: dict[OrderKey, set[Content]] = defaultdict(set)
    for frame in venue.frames:
        if frame.order is not None and frame.content is not None and counts[frame.content] > 1:
            twins[frame.order].add(frame.content)
    return {
        frame.raw
        for frame in venue.frames
        if frame.order is None
        or frame.content is None
        or (Counter(expected[frame.order]) == Counter(made[frame.order]) and twins[frame.order] <= {frame.content})
    }


def doubling(frames: list[Frame], plan: Plan, chance: Random, may: set[bytes]) -> list[Frame]:
    """The same frames, some of them twice in a row."""
    told: list[Frame] = []
    for frame in frames:
        told += [frame] * (2 if frame.raw in may and chance.randrange(100) < plan.doubled else 1)
    return told


def batches(account: str, told: list[list[Frame]], plan: Plan, chance: Random) -> list[list[Batch]]:
    """Each session's frames in batches of any size."""
    cut: list[list[Batch]] = []
    for frames in told:
        socket, rest, own = Socket(account=account), list(frames), []
        while rest:
            size = chance.randint(1, plan.batch_max)
            own.append(socket.received(rest[:size]))
            rest = rest[size:]
        cut.append(own)
    return cut


def answers(account: str, venue: Venue, plan: Plan, chance: Random) -> list[list[Batch]]:
    """Walks over REST at any moment of the history, each answered from the books of that moment."""
    walks: list[list[Batch]] = []
    for _ in range(plan.answers):
        moment = chance.randrange(len(venue.books))
        books, walker = venue.books[moment], Walker(account=account)
        asked_ms = T_MS + moment * 1000
        wanted = [*venue.walk(books), requests.account()]
        if venue.dialect.trades:
            # The trades say in the end what was doubled, so even a judgement made too early must not last.
            wanted += [requests.query_order(*one.key, settle=True) for one in books.orders.values()]
        chosen = chance.sample(wanted, chance.randint(1, len(wanted)))
        walks.append([walker.answered(ask, venue.answer(ask, books), asked_ms, 0) for ask in chosen])
    return walks


async def interleave(conn: Any, streams: list[list[Batch]], walks: list[list[Batch]], chance: Random) -> None:
    """Each session in its own order, all of them mixed; now and then a batch is sent twice."""
    waiting = [iter(batches) for batches in (*streams, *walks) if batches]
    while waiting:
        session: Iterator[Batch] = chance.choice(waiting)
        batch = next(session, None)
        if batch is None:
            waiting.remove(session)
            continue
        for _ in range(chance.choice((1, 1, 1, 2))):
            await apply.apply(conn, batch)


async def walk_to_the_end(conn: Any, account: str, venue: Venue) -> None:
    """What the reconciler does in the end: a complete walk, settling reads until nothing is in doubt, two snapshots."""
    walker, asked_ms = Walker(account=account), END_MS

    async def ask(request: requests.Request) -> None:
        nonlocal asked_ms
        asked_ms += 10_000
        body = venue.answer(request, venue.truth)
        await apply.apply(conn, walker.answered(request, body, asked_ms, await head_seq(conn, account)))

    for request in venue.walk(venue.truth):
        await ask(request)
    for _ in range(3):
        for key in await due_orders(conn, "provisional_fill", END_MS, account=account):
            await ask(requests.query_order(*key, settle=True))
    for _ in range(2):
        await ask(requests.account())


# --- what the venue knows, and how much of it a dialect can tell


def venue_fills(venue: Venue) -> dict[OrderKey, list[FillRow]]:
    fills: dict[OrderKey, list[FillRow]] = defaultdict(list)
    for one in venue.truth.fills.values():
        fills[one.symbol, one.order_id].append(fill_row(venue, one))
    return fills


def fill_row(venue: Venue, one: Fill) -> FillRow:
    ids = (one.trade_id, one.is_maker) if venue.dialect.trades else (-1, None)
    return (*ids, one.side, one.price, one.qty, one.quote, one.fee, one.fee_asset, one.time_ms)


def expected_fills(venue: Venue, delivered: list[list[Frame]]) -> dict[OrderKey, list[FillRow]]:
    """With trades every fill; without, as many of each content as the session that heard most of them."""
    if venue.dialect.trades:
        return venue_fills(venue)
    heard: Counter[Content] = Counter()
    for frames in delivered:
        heard |= contents_of(frames)
    fills: dict[OrderKey, list[FillRow]] = defaultdict(list)
    for frame in {frame.content: frame for frame in venue.frames if frame.content is not None}.values():
        assert frame.content is not None
        symbol, order_id, _, time_ms, qty, price, fee = frame.content
        one = next(
            one
            for one in venue.truth.fills.values()
            if (one.symbol, one.order_id, one.time_ms, one.qty, one.price, one.fee)
            == (symbol, order_id, time_ms, qty, price, fee)
        )
        fills[symbol, order_id] += [fill_row(venue, one)] * heard[frame.content]
    return fills


def venue_orders(venue: Venue, expected: dict[OrderKey, list[FillRow]]) -> dict[OrderKey, tuple[Any, ...]]:
    return {key: order_row(venue, one, expected[key]) for key, one in venue.truth.orders.items()}


def order_row(venue: Venue, one: Order, fills: list[FillRow]) -> tuple[Any, ...]:
    long = venue.dialect.long_orders
    is_whole = sum((row[4] for row in fills), Decimal(0)) == one.executed_qty
    return (
        one.client_order_id,
        one.side,
        one.type,
        one.time_in_force if long else None,
        one.price,
        one.orig_qty,
        one.executed_qty,
        one.executed_quote if long or is_whole else None,
        one.status,
        one.created_ms,
    )


def shortfall(venue: Venue, expected: dict[OrderKey, list[FillRow]]) -> dict[OrderKey, tuple[Any, ...]]:
    lacking: dict[OrderKey, tuple[Any, ...]] = {}
    for key, one in venue.truth.orders.items():
        qty = one.executed_qty - sum((row[4] for row in expected[key]), Decimal(0))
        quote = one.executed_quote - sum((row[5] for row in expected[key]), Decimal(0))
        if qty:
            lacking[key] = (qty, quote if venue.dialect.long_orders else None)
    return lacking


def nonzero(books: Books) -> dict[str, tuple[Decimal, Decimal]]:
    return {asset: (held.free, held.locked) for asset, held in books.balances.items() if held.free or held.locked}


def delivered_transfers(venue: Venue, delivered: list[list[Frame]]) -> list[tuple[Any, ...]]:
    """REST tells no transfers: those of the stream that some session delivered."""
    raws = {frame.raw for frames in delivered for frame in frames}
    return sorted(
        {
            (one.asset, one.amount, one.at_ms)
            for one in venue.truth.movements
            if any(b'"balanceUpdate"' in raw and is_about(raw, one.asset, one.amount, one.at_ms) for raw in raws)
        }
    )


def is_about(raw: bytes, asset: str, amount: Decimal, at_ms: int) -> bool:
    return all(part.encode() in raw for part in (f'"a":"{asset}"', f'"d":"{amount:f}"', f'"T":{at_ms}'))


# --- what the mirror holds


async def mirror_fills(conn: Any, account: str) -> dict[OrderKey, list[FillRow]]:
    fills: dict[OrderKey, list[FillRow]] = defaultdict(list)
    for symbol, order_id, *row in await rows(
        conn,
        "SELECT symbol, order_id, coalesce(trade_id, -1), is_maker, side, price, qty, quote_qty, fee, fee_asset,"
        " executed_ms FROM ledger_v1.fills WHERE account = $1",
        account,
    ):
        fills[symbol, order_id].append(tuple(row))
    return {key: sorted(found) for key, found in fills.items()}


async def mirror_orders(conn: Any, account: str) -> dict[OrderKey, tuple[Any, ...]]:
    found = await rows(
        conn,
        "SELECT symbol, order_id, client_order_id, side, type, time_in_force, price, orig_qty, executed_qty,"
        " executed_quote, status, (extract(epoch FROM created_at) * 1000)::bigint FROM ledger_v1.orders"
        " WHERE account = $1",
        account,
    )
    return {(row[0], row[1]): row[2:] for row in found}


async def missing(conn: Any, account: str) -> dict[OrderKey, tuple[Any, ...]]:
    found = await rows(
        conn,
        "SELECT symbol, order_id, missing_qty, missing_quote FROM ledger_v1.missing_executions WHERE account = $1",
        account,
    )
    return {(row[0], row[1]): row[2:] for row in found}


async def balances(conn: Any, account: str) -> dict[str, tuple[Decimal, Decimal]]:
    held = await reads.balances(conn, account)
    return {asset: value for asset, value in held.items() if any(value)}


async def transfers(conn: Any, account: str) -> list[tuple[Any, ...]]:
    return sorted(await rows(conn, "SELECT asset, amount, at_ms FROM ledger_v1.transfers WHERE account = $1", account))
