"""Balances: which of two states is newer, and when a snapshot of the whole account may overrule the stream."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from ledger.facts.types import Snapshot
from tests.histories import T_MS, Session, column, head_seq, held, known, order, rest, rows, snapshot

NOW = "SELECT asset, free, locked FROM ledger_v1.balances ORDER BY asset"
HISTORY = "SELECT free, as_of_ms - $1 FROM ledger_v1.balance_history ORDER BY as_of_ms, seq"


async def ask(conn: Any, told: Snapshot, *, at_s: float, asked_seq: int | None = None) -> None:
    """An account answer to a question asked ``at_s`` seconds after ``T_MS``."""
    seq = await head_seq(conn) if asked_seq is None else asked_seq
    await rest().tell(conn, told, asked_ms=int(at_s * 1000), asked_seq=seq, question="GET /api/v1/account")


# --- positions


async def test_the_newest_clock_wins_in_every_order_of_arrival(conn: Any) -> None:
    told = [held("BTC", "3", "1", at_ms=3), held("BTC", "9", "0", at_ms=1), held("BTC", "5", "2", at_ms=2)]
    for number, arrival in enumerate(permutations(told)):
        account = await known(conn, f"a{number}")
        for one in arrival:
            await Session(account=account).tell(conn, one)
    assert await rows(conn, "SELECT DISTINCT free, locked, total FROM ledger_v1.balances") == [(3, 1, 4)]


async def test_an_asset_absent_from_a_position_is_unchanged(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1"), held("USDT", "5"))
    await Session().tell(conn, held("USDT", "4", at_ms=1))
    assert await rows(conn, NOW) == [("BTC", 1, 0), ("USDT", 4, 0)]


async def test_of_equal_clocks_the_last_distinct_value_of_a_session_wins(conn: Any) -> None:
    await known(conn)
    left, right = Session(), Session()
    for free in ("10", "9", "8"):
        await left.tell(conn, held("BTC", free))
    for free in ("10", "9"):
        await right.tell(conn, held("BTC", free))
    assert await rows(conn, NOW) == [("BTC", 8, 0)], "the slower socket takes nothing back"


async def test_equal_clocks_in_one_call_end_with_the_last_value(conn: Any) -> None:
    await known(conn)
    session = Session()
    await session.tell(conn, held("BTC", "8"), held("BTC", "10"), held("BTC", "9"))
    assert await rows(conn, NOW) == [("BTC", 9, 0)]


async def test_a_balance_told_without_a_clock_is_as_of_its_arrival(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "8", at_ms=None))
    assert await column(conn, "SELECT as_of_ms FROM ledger_v1.balances") == [T_MS]


async def test_history_has_one_row_per_distinct_state(conn: Any) -> None:
    await known(conn)
    for _ in range(2):
        session = Session()
        for free, at_ms in (("10", 0), ("9", 0), ("9.0", 0), ("9", 4), ("10", 5)):
            await session.tell(conn, held("BTC", free, at_ms=at_ms))
    assert await rows(conn, HISTORY, T_MS) == [(10, 0), (9, 0), (9, 4), (10, 5)]


async def test_zero_stays_a_row(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1"))
    await Session().tell(conn, held("BTC", "0", at_ms=1))
    assert await rows(conn, NOW) == [("BTC", 0, 0)]


# --- snapshots


async def test_an_asset_absent_from_a_snapshot_is_zero(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1"), held("USDT", "5"))
    await ask(conn, snapshot(held("USDT", "5"), at_ms=9), at_s=1)
    assert await rows(conn, NOW) == [("BTC", 0, 0), ("USDT", 5, 0)]
    assert await rows(conn, HISTORY, T_MS) == [(1, 0), (5, 0), (0, 9)]


async def test_an_unchanged_asset_of_a_snapshot_is_no_change(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1"))
    await ask(conn, snapshot(held("BTC", "1.0"), at_ms=9), at_s=1)
    assert await rows(conn, "SELECT source, seq FROM ledger_v1.balances") == [("stream", 1)]
    assert await rows(conn, HISTORY, T_MS) == [(1, 0)]


@pytest.mark.parametrize("clock_ms", [-1, 0, None])
async def test_a_snapshot_not_newer_than_the_stream_changes_nothing(conn: Any, clock_ms: int | None) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1"))
    await ask(conn, snapshot(held("BTC", "2"), at_ms=clock_ms), at_s=60)
    assert await rows(conn, NOW) == [("BTC", 1, 0)]


async def test_an_asset_the_stream_never_told_is_taken_from_the_snapshot(conn: Any) -> None:
    await known(conn)
    await ask(conn, snapshot(held("BTC", "2")), at_s=1)
    assert await rows(conn, "SELECT asset, free, source, as_of_ms FROM ledger_v1.balances") == [
        ("BTC", 2, "rest", T_MS + 1000)
    ]


async def test_the_stream_overtakes_a_snapshot_of_the_same_clock(conn: Any) -> None:
    """A snapshot cannot say after which of the changes of its millisecond it was taken."""
    await known(conn)
    await ask(conn, snapshot(held("BTC", "2"), at_ms=9), at_s=1)
    await Session().tell(conn, held("BTC", "3", at_ms=9))
    assert await rows(conn, NOW) == [("BTC", 3, 0)]


@pytest.mark.parametrize(("second_s", "wins"), [(14.999, False), (15, True)])
async def test_two_snapshots_that_agree_win_whatever_the_clocks_say_when_five_seconds_apart(
    conn: Any, second_s: float, wins: bool
) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=10)
    await ask(conn, snapshot(held("BTC", "2.0"), at_ms=1), at_s=second_s)
    assert await rows(conn, NOW) == [("BTC", 2 if wins else 1, 0)]
    assert await column(conn, "SELECT count(*) FROM ledger.observations") == [0 if wins else 1]


async def test_the_third_snapshot_decides_when_the_second_came_too_soon(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    for at_s in (10, 12, 15):
        await ask(conn, snapshot(), at_s=at_s)
    assert await rows(conn, NOW) == [("BTC", 0, 0)]


async def test_snapshots_that_differ_decide_nothing(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    for free, at_s in (("2", 10), ("3", 20), ("2", 30)):
        await ask(conn, snapshot(held("BTC", free), at_ms=1), at_s=at_s)
    assert await rows(conn, NOW) == [("BTC", 1, 0)]


@pytest.mark.parametrize("clock_ms", [50_000, 100_000])
async def test_a_position_in_between_takes_the_vote_away_whatever_its_clock(conn: Any, clock_ms: int) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=10)
    await Session().tell(conn, held("BTC", "1.5", at_ms=clock_ms))
    before = await rows(conn, NOW)
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=20)
    assert await rows(conn, NOW) == before, "the first vote was taken before the position"
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=26)
    assert await rows(conn, NOW) == [("BTC", 2, 0)], "the second and third agree, with nothing in between"


async def test_a_position_while_the_first_answer_was_under_way_takes_its_vote_away(conn: Any) -> None:
    await known(conn)
    asked_seq = await head_seq(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=10, asked_seq=asked_seq)
    await ask(conn, snapshot(held("BTC", "2"), at_ms=1), at_s=20)
    assert await rows(conn, NOW) == [("BTC", 1, 0)]


async def test_a_position_of_another_asset_in_between_does_not_matter(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    await ask(conn, snapshot(held("BTC", "2"), held("USDT", "7"), at_ms=1), at_s=10)
    await Session().tell(conn, held("USDT", "7", at_ms=5), order("NEW"))
    await ask(conn, snapshot(held("BTC", "2"), held("USDT", "7"), at_ms=1), at_s=20)
    assert await rows(conn, NOW) == [("BTC", 2, 0), ("USDT", 7, 0)]


async def test_an_agreement_with_the_stream_ends_the_vote(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99_000))
    for free, at_s in (("2", 10), ("1", 20), ("2", 30)):
        await ask(conn, snapshot(held("BTC", free), at_ms=1), at_s=at_s)
    assert await rows(conn, NOW) == [("BTC", 1, 0)]
