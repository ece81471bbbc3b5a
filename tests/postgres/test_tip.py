"""What a process was answered of a journal: a real database holds it, lost its end, or goes on without it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ledger.db import coverage, tables
from ledger.db.apply import Applied, apply
from ledger.verify import verify
from ledger.wire import postgres, tip
from ledger.wire.clock import ManualClock
from ledger.wire.tip import Tip
from tests.histories import ACCOUNT, T_MS, Session, column, head_seq, held, known, rows

TABLES = (*tables.DISTRIBUTED, *tables.REFERENCE)
SAID = "SELECT convert_from(raw, 'UTF8') FROM ledger_v1.journal WHERE kind = 'rollback' ORDER BY seq"
GAPS = "SELECT cause, from_ms - $1::bigint, until_ms - $1::bigint FROM ledger_v1.gaps ORDER BY gap_id"
LAG_MS = 1000
NOW_MS = T_MS + 60_000


@dataclass
class Story:
    """A process that was answered three frames. ``behind`` is how the database was after the second of them."""

    conn: Any
    tip: Tip
    session: Session

    async def frame(self, conn: Any = None, *, through_ms: int | None = None) -> Applied:
        """One more frame is written; up to then the stream is covered (ms since ``T_MS``; None: it is not said)."""
        n = self.session.frame_no + 1
        through = None if through_ms is None else T_MS + through_ms
        batch = self.session.batch(self.session.entry(held("BTC", str(n), at_ms=n)), through_ms=through)
        return await apply(conn or self.conn, batch)

    async def answered(self, applied: Awaitable[Applied]) -> bool:
        """Note the answer. True: it shows less than before."""
        before_seq = self.tip.seq
        return self.tip.lost_by(await applied, before_seq)

    async def fall_behind(self) -> None:
        """Two frames and a heartbeat that a standby has, and a third frame that it has not."""
        assert not await self.answered(self.frame(through_ms=4000))
        assert not await self.answered(self.frame())
        assert not await self.answered(self.session.tell_nothing(self.conn, T_MS + 5000))
        await remembered(self.conn)
        assert not await self.answered(self.frame(through_ms=9000))

    async def fail_over(self) -> None:
        """The standby leads."""
        async with self.conn.transaction():
            await self.conn.execute("SET LOCAL session_replication_role = replica")
            for name in TABLES:
                await self.conn.execute(
                    f"DELETE FROM ledger.{name}; INSERT INTO ledger.{name} SELECT * FROM past.{name}"
                )

    async def rollbacks(self) -> list[tuple[int, int, int]]:
        """Of each row that says so: after which row, up to which, and the gap of it."""
        told = [json.loads(text) for text in await column(self.conn, SAID)]
        return [(one["found_seq"], one["lost_seq"], one["gap"]) for one in told]

    async def frames_lack(self) -> list[str]:
        """What ``verify`` says of sessions that are not whole."""
        report = await verify(self.conn, ACCOUNT, now_ms=NOW_MS, head=None)
        (verdict,) = [one for one in report.verdicts if one.name == "frames_are_complete"]
        return [row.found for row in verdict.first]


async def remembered(conn: Any) -> None:
    """Keep every row as it is now, as a standby does that is cut off."""
    await conn.execute("DROP SCHEMA IF EXISTS past CASCADE; CREATE SCHEMA past")
    for name in TABLES:
        await conn.execute(f"CREATE TABLE past.{name} AS TABLE ledger.{name}")


@pytest.fixture
async def story(conn: Any) -> Story:
    await known(conn)
    gap = await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS)
    await coverage.close_gap(conn, ACCOUNT, gap.gap_id, complete_from_ms=None)
    the_tip = Tip(
        ACCOUNT,
        ManualClock(NOW_MS),
        rest_lag_s=LAG_MS / 1000,
        register=lambda conn: coverage.register(conn, ACCOUNT),
        is_up=lambda: True,
    )
    return Story(conn, the_tip, Session())


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    """The connection of another writer of the same process."""
    conn = await postgres.connect(database_url, application="tests other")
    yield conn
    await conn.close()


START, WENT_BACK = ("start", None, 0), ("database went back", 5000 - LAG_MS, 60_000)


async def test_a_database_that_holds_what_it_confirmed_is_left_alone(story: Story) -> None:
    await story.fall_behind()
    await story.tip.check(story.conn)
    assert (story.tip.generation, await story.rollbacks(), await rows(story.conn, GAPS, T_MS)) == (0, [], [START])


async def test_a_new_connection_to_one_that_lost_rows_opens_the_gap_from_its_own_last_live_instant(
    story: Story,
) -> None:
    await story.fall_behind()
    await story.fail_over()
    await story.tip.check(story.conn)

    assert await story.rollbacks() == [(2, 3, 2)]
    assert await rows(story.conn, GAPS, T_MS) == [START, WENT_BACK]
    assert (story.tip.generation, story.tip.seq) == (1, await head_seq(story.conn)) == (1, 3)
    await story.tip.check(story.conn)
    assert len(await story.rollbacks()) == 1, "what is explained is not found again"


@pytest.mark.parametrize("what", ["frame", "heartbeat"])
async def test_over_a_connection_that_stays_the_first_answer_shows_it_whatever_it_moved_coverage_to(
    story: Story, what: str
) -> None:
    await story.fall_behind()
    await story.fail_over()
    before_seq = story.tip.seq
    if what == "frame":
        applied = await story.frame(through_ms=11_000)
    else:
        applied = await story.session.tell_nothing(story.conn, T_MS + 11_000)
    assert story.tip.lost_by(applied, before_seq)
    await story.tip.replaced(story.conn, applied, 0)

    assert await story.rollbacks() == [(2, 3, 2)]
    assert await rows(story.conn, GAPS, T_MS) == [START, WENT_BACK]


async def test_a_new_connection_is_not_misled_by_what_another_that_stayed_has_written_since(
    story: Story, other: Any
) -> None:
    await story.fall_behind()
    await story.fail_over()
    before_seq = story.tip.seq
    applied = await story.frame(other, through_ms=11_000)
    await story.tip.check(story.conn)
    assert story.tip.lost_by(applied, before_seq)
    await story.tip.replaced(other, applied, 0)

    assert await story.rollbacks() == [(2, 3, 2)], "once, and from where the two histories part"
    assert await rows(story.conn, GAPS, T_MS) == [START, WENT_BACK]
    assert await story.frames_lack() == []


async def test_frames_a_rollback_names_as_lost_are_explained_and_no_others(story: Story) -> None:
    await story.fall_behind()
    await story.fail_over()
    before_seq = story.tip.seq
    applied = await story.frame()
    assert await story.frames_lack() == ["3 frames kept, 3 numbers, the last is 4"]
    await story.tip.replaced(story.conn, applied, 0)
    assert (before_seq, await story.frames_lack()) == (3, [])

    story.session.frame_no += 1
    await story.frame()
    lacks = "4 frames kept, 4 numbers, the last is 6, 1 lost when the database went back"
    assert await story.frames_lack() == [lacks]


async def test_more_frames_than_rows_were_lost_are_not_explained(story: Story) -> None:
    await story.fall_behind()
    await story.fail_over()
    story.session.frame_no += 1
    await story.tip.replaced(story.conn, await story.frame(), 0)
    assert await story.frames_lack() == ["3 frames kept, 3 numbers, the last is 5"]


async def test_a_session_that_was_lost_from_its_first_frame_on_is_explained_too(story: Story) -> None:
    await story.fall_behind()
    story.session = Session()
    assert not await story.answered(story.frame())
    await story.fail_over()
    await story.tip.replaced(story.conn, await story.frame(), 0)
    assert (await story.rollbacks(), await story.frames_lack()) == ([(2, 4, 2)], [])


async def test_a_database_that_goes_back_twice_names_all_that_was_lost(story: Story) -> None:
    await story.fall_behind()
    for _ in range(2):
        await story.fail_over()
        await story.tip.check(story.conn)
    assert await story.rollbacks() == [(2, 3, 2)]
    assert await rows(story.conn, GAPS, T_MS) == [START, WENT_BACK]


async def test_an_account_that_is_not_registered_any_more_is_made_known_and_read_from_the_beginning(
    story: Story,
) -> None:
    await story.fall_behind()
    for name in TABLES:
        await story.conn.execute(f"DELETE FROM past.{name}")
    await story.fail_over()
    await story.tip.check(story.conn)

    assert await story.rollbacks() == [(0, 3, 1)]
    assert await rows(story.conn, GAPS, T_MS) == [("database went back", None, 60_000)]


async def test_of_very_many_answers_the_older_are_thinned_out_and_the_gap_begins_no_later(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tip, "REMEMBERED_MAX", 8)
    await story.fall_behind()
    for n in range(50):
        assert not await story.answered(story.frame(through_ms=10_000 + n))
    await story.fail_over()
    await story.tip.replaced(story.conn, await story.frame(through_ms=11_000), 0)

    ((found_seq, lost_seq, _),) = await story.rollbacks()
    assert (found_seq <= 2, lost_seq) == (True, 53)
    (_, from_ms, _) = (await rows(story.conn, GAPS, T_MS))[1]
    assert 4000 - LAG_MS <= from_ms <= 5000 - LAG_MS


class Interrupted:
    """A connection beside which something else happens while its first question is on its way."""

    def __init__(self, conn: Any, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._conn, self._meanwhile = conn, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def fetchrow(self, *words: Any) -> Any:
        row = await self._conn.fetchrow(*words)
        meanwhile, self._meanwhile = self._meanwhile, nothing
        await meanwhile()
        return row


async def nothing() -> None:
    """Nothing else happens."""


async def test_what_another_writer_was_answered_while_one_looks_is_no_loss(story: Story, other: Any) -> None:
    assert not await story.answered(story.frame())
    await story.tip.check(Interrupted(story.conn, lambda: story.answered(story.frame(other))))
    assert (story.tip.seq, story.tip.generation, await story.rollbacks()) == (2, 0, [])
