"""The journal told again: what is hard to reproduce, what differs when rows were changed, and how it is corrected."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from ledger import app, replay
from ledger.app import Database
from ledger.db import apply, decisions
from ledger.db.decisions import Decision
from ledger.db.rows import lay
from ledger.errors import DatabaseError, LedgerError
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Exact
from ledger.replay import SCRATCH, Difference, Result
from ledger.venue import requests
from ledger.wire import postgres
from ledger.wire.postgres import REFUSED, refusal
from tests.histories import ACCOUNT, T_MS, Frame, Socket, Venue, Walker, known, rows


def frame(**told: Any) -> Frame:
    """A trade in the ten-field form."""
    report = {"e": "executionReport", "s": "BTCUSDT", "S": "BUY", "i": 7, "X": "PARTIALLY_FILLED", "l": "1", "L": "100"}
    return Frame(msgspec.json.encode({**report, "n": "0.1", "N": "USDT", "T": T_MS, **told}))


def position(free: str, **told: Any) -> Frame:
    return Frame(
        b'{"e":"outboundAccountPosition","B":[{"a":"USDT","f":"%s","l":"0"}]%s}'
        % (free.encode(), b',"u":%d' % told["u"] if told else b"")
    )


@pytest.fixture
async def story(conn: Any) -> Any:
    """A venue's day, streamed twice and walked once; a superuser's connection."""
    await known(conn)
    venue = Venue(3, 60, "mixed")
    one, other, walk = Socket(), Socket(), Walker()
    for n in range(0, len(venue.frames), 7):
        await apply.apply(conn, one.received(venue.frames[n : n + 7]))
        if n % 3:
            await apply.apply(conn, other.received(venue.frames[n : n + 9]))
    for n, request in enumerate([*venue.walk(venue.truth), requests.account()]):
        seq = await conn.fetchval("SELECT head_seq FROM ledger.accounts")
        await apply.apply(conn, walk.answered(request, venue.answer(request, venue.truth), T_MS + n, seq))
    return conn


async def replayed(url: str, *, swap: bool = False) -> Result:
    (result,) = await app.replay_all(Database(url, url, url, embedded=False), ACCOUNT, swap=swap)
    return result


def differences(result: Result) -> list[Difference]:
    return [difference for table in result.tables for difference in table.first]


async def test_the_same_journal_gives_the_same_rows_every_time(story: Any, database_url: str) -> None:
    first, second = await replayed(database_url), await replayed(database_url)
    assert first.identical
    assert differences(first) == []
    assert first == second
    assert first.through_seq == await story.fetchval("SELECT max(seq) FROM ledger.inbox")
    assert {table.table: table.live_rows > 0 for table in first.tables} == {
        "orders": True,
        "order_amendments": False,
        "fills": True,
        "balances": True,
        "balance_history": True,
        "transfers": False,
    }


async def test_a_row_changed_here_is_named_with_both_values(story: Any, database_url: str) -> None:
    symbol, order_id, price = await story.fetchrow("SELECT symbol, order_id, price FROM ledger.orders LIMIT 1")
    await story.execute(
        "UPDATE ledger.orders SET price = price + 1 WHERE symbol = $1 AND order_id = $2", symbol, order_id
    )
    (wrong,) = differences(await replayed(database_url))
    assert wrong == Difference("orders", f"{symbol}/{order_id}", "price", f"{price + 1:f}", f"{price:f}")


async def test_another_scale_of_the_same_number_is_a_difference(story: Any, database_url: str) -> None:
    await story.execute("UPDATE ledger.balances SET free = free + 0.000000000 WHERE asset = 'USDT'")
    (wrong,) = differences(await replayed(database_url))
    assert (wrong.table, wrong.column, wrong.live) == ("balances", "free", f"{wrong.replayed}0")


async def test_rows_on_one_side_only_are_counted(story: Any, database_url: str) -> None:
    gone = await story.fetchval("SELECT count(*) FROM ledger.fills")
    await story.execute("DELETE FROM ledger.fills")
    await story.execute(
        "INSERT INTO ledger.transfers (account, asset, at_ms, kind, amount, source, seq)"
        f" VALUES ('main', 'USDT', {T_MS}, 'deposit', 5, 'stream', 1)"
    )
    result = await replayed(database_url)
    counts = {t.table: (t.only_live, t.only_replayed, t.changed) for t in result.tables if not t.identical}
    assert counts == {"fills": (0, gone, 0), "transfers": (1, 0, 0)}
    assert (
        differences(result)[-1].live
        == f"account=main asset=USDT at_ms={T_MS} kind=deposit amount=5 source=stream seq=1 ordinal=1"
    )


DAMAGE = """
    UPDATE ledger.orders SET price = 1, status = 'LOST' WHERE order_id % 2 = 0;
    DELETE FROM ledger.fills WHERE first_seq % 2 = 0;
    UPDATE ledger.balance_history SET free = free + 0.000 WHERE asset = 'USDT';
    INSERT INTO ledger.transfers (account, asset, at_ms, kind, amount, source, seq)
        VALUES ('main', 'USDT', 1, 'deposit', 5, 'stream', 1);
"""


async def test_a_swap_makes_the_rows_what_the_journal_says_and_readers_see_them_again(
    story: Any, database_url: str
) -> None:
    before = await rows(story, "SELECT account, symbol, order_id, price, status FROM ledger.orders ORDER BY 1, 2, 3")
    head = await story.fetchval("SELECT head_seq FROM ledger.accounts")
    await story.execute(DAMAGE)
    swapped = await replayed(database_url, swap=True)
    assert not swapped.identical, "it tells what it found"
    assert swapped.swap_seq == head + 1
    after = await rows(story, "SELECT account, symbol, order_id, price, status FROM ledger.orders ORDER BY 1, 2, 3")
    assert after == before
    for table, changed in {t.table: t.changed + t.only_replayed for t in swapped.tables}.items():
        seen = await story.fetchval(f"SELECT count(*) FROM ledger_v1.{table} WHERE seq > $1", head)
        assert seen == changed, "whoever follows seq sees every row that was corrected, and no other"
    assert await story.fetchval("SELECT count(*) FROM ledger.transfers") == 0
    again = await replayed(database_url)
    assert differences(again) == []
    assert again.identical
    assert await rows(story, "SELECT * FROM ledger.broken_chain('main')") == []
    assert (await replayed(database_url, swap=True)).swap_seq is None, "where nothing differs nothing is written"


async def test_the_story_goes_on_after_a_swap(story: Any, database_url: str) -> None:
    await story.execute(DAMAGE)
    await replayed(database_url, swap=True)
    late = Socket()
    await apply.apply(story, late.received([frame(), frame(X="FILLED"), position("5", u=T_MS + 99_999_999)]))
    assert (await replayed(database_url)).identical


# --- what is hard to reproduce ---


async def test_a_session_silent_while_many_others_came_and_went_is_remembered(conn: Any, database_url: str) -> None:
    """Its second equal frame is its second, though the sessions in between told the same one."""
    await known(conn)
    quiet = Socket()
    await apply.apply(conn, quiet.received([frame(), position("1", u=T_MS)]))
    for _ in range(replay.SESSIONS_REMEMBERED_MAX + 3):
        await apply.apply(conn, Socket().received([frame(T=T_MS + 5000), position("1", u=T_MS)]))
    await apply.apply(conn, quiet.received([frame(), position("2", u=T_MS)]))
    assert await rows(conn, "SELECT stream_ordinal, state FROM ledger.fills WHERE stream_ms = $1 ORDER BY 1", T_MS) == [
        (1, "confirmed"),
        (2, "provisional"),
    ]
    assert await rows(conn, "SELECT k FROM ledger.balances") == [(2,)]
    assert differences(await replayed(database_url)) == []


async def test_positions_that_an_older_socket_tells_stay_left_out(conn: Any, database_url: str) -> None:
    await known(conn)
    older, younger = Socket(), Socket()
    await apply.apply(conn, older.received([position("1")]))
    one = younger.received([position("9")])
    bare = apply.build(ACCOUNT, one.header[1], "stream", [], SessionMemory(), clockless=True)
    await apply.apply(conn, type(one)(bare.header, one.frames, (), (), (), {}))
    assert await rows(conn, "SELECT free::text FROM ledger.balances") == [("1",)]
    assert differences(await replayed(database_url)) == []


async def test_a_frame_the_database_refused_is_counted_and_not_told(conn: Any, database_url: str) -> None:
    """As the service does it: the batch is refused, then sent frame by frame, the guilty one without its facts."""
    await known(conn)
    await conn.execute("ALTER TABLE ledger.fills ADD CONSTRAINT guilty CHECK (qty <> 13)")
    socket = Socket()
    batch = socket.received([frame(), frame(l="13"), frame(l="13", X="FILLED"), frame()])
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await apply.apply(conn, batch)
    problem = refusal(refused.value)
    singles = batch.split()
    for n, single in enumerate(singles):
        await apply.apply(conn, single.without_facts(problem) if n in (1, 2) else single)
    await conn.execute("ALTER TABLE ledger.fills DROP CONSTRAINT guilty")
    await apply.apply(conn, socket.received([frame(l="13")]))
    assert problem.startswith(REFUSED)
    assert await rows(conn, "SELECT qty::text, stream_ordinal FROM ledger.fills ORDER BY first_seq") == [
        ("1", 1),
        ("1", 2),
        ("13", 2),
    ]
    assert differences(await replayed(database_url)) == []


async def test_a_page_that_could_not_be_read_or_was_refused_says_nothing(conn: Any, database_url: str) -> None:
    await known(conn)
    walk = Walker()
    question = requests.all_orders("BTCUSDT").question
    good = b'[{"orderId": 1, "status": "NEW", "symbol": "BTCUSDT"}]'
    for raw, problem in ((b"<html>", "expected JSON"), (good, f"{REFUSED}: no"), (b"", "note")):
        entry = walk.entry(raw=raw, kind="allOrders", problem=problem)
        await apply.apply(conn, walk.batch(entry, question=question))
    note = walk.entry(raw=b"", kind="note", problem="so it is")
    await apply.apply(conn, walk.batch(note, question="note history_unreachable BTCUSDT"))
    assert await conn.fetchval("SELECT count(*) FROM ledger.orders") == 0
    result = await replayed(database_url)
    assert (differences(result), result.through_seq) == ([], 4)


async def test_a_decision_is_told_again(conn: Any, database_url: str) -> None:
    await known(conn)
    decided = Decision(1, "unexplained_balance", "USDT", "deposit", Exact("5.50"), T_MS, "seen at the bank", "anna")
    entry = apply.Entry(1, T_MS, decisions.KIND, None, decisions.encode(decided), None, lay(decisions.facts(decided)))
    await apply.apply(conn, apply.build(ACCOUNT, UUID(int=9), "operator", [entry], SessionMemory()))
    assert await rows(conn, "SELECT asset, amount::text, kind, source FROM ledger.transfers") == [
        ("USDT", "5.50", "deposit", "operator")
    ]
    assert differences(await replayed(database_url)) == []


async def test_rows_from_before_the_chain_are_told_session_by_session(story: Any, database_url: str) -> None:
    """The upgrade sealed them as one batch, whoever had written them: what they tell is the same but for the seq."""
    await story.execute("SET session_replication_role = replica")
    await story.execute(
        "UPDATE ledger.batches SET first_seq = 1 WHERE last_seq = (SELECT max(last_seq) FROM ledger.batches)"
    )
    await story.execute(
        "DELETE FROM ledger.batches WHERE first_seq > 1 OR last_seq < (SELECT max(seq) FROM ledger.inbox)"
    )
    result = await replayed(database_url)
    assert {difference.column for difference in differences(result)} <= {"seq"}
    assert all((table.only_live, table.only_replayed) == (0, 0) for table in result.tables)


# --- what it refuses ---


@pytest.mark.parametrize(
    ("sql", "seq"),
    [
        ("DELETE FROM ledger.inbox WHERE seq = 5", 5),
        ("DELETE FROM ledger.batches WHERE first_seq <= 5 AND last_seq >= 5", 1),
        ("UPDATE ledger.accounts SET head_seq = head_seq + 1", -1),
    ],
    ids=["a row is gone", "a batch is gone", "the end is gone"],
)
async def test_a_journal_that_is_not_whole_is_named_and_nothing_is_left_behind(
    sql: str, seq: int, story: Any, database_url: str
) -> None:
    await story.execute("SET session_replication_role = replica")
    await story.execute(sql)
    end = await story.fetchval("SELECT max(seq) + 1 FROM ledger.inbox")
    with pytest.raises(LedgerError, match=f"not whole at seq {end if seq < 0 else seq};"):
        await replayed(database_url)
    assert await story.fetchval("SELECT to_regnamespace($1)", SCRATCH) is None


async def test_what_a_killed_run_left_behind_is_no_hindrance(story: Any, database_url: str) -> None:
    await story.execute(f"CREATE SCHEMA {SCRATCH}; CREATE TABLE {SCRATCH}.orders (left_over text)")
    assert (await replayed(database_url)).identical
    assert await story.fetchval("SELECT to_regnamespace($1)", SCRATCH) is None


async def test_two_at_once_are_refused(story: Any, database_url: str) -> None:
    async with postgres.reading(database_url, writes=True) as owner, replay.scratch(owner):
        with pytest.raises(DatabaseError, match="another replay is at work"):
            await replayed(database_url)


async def test_who_does_not_own_the_schema_is_told_what_to_set(story: Any) -> None:
    role = f"{await story.fetchval('SELECT current_database()')}_guest"
    await story.execute(f"CREATE ROLE {role}")
    try:
        await story.execute(f"GRANT USAGE ON SCHEMA ledger TO {role}; SET ROLE {role}")
        with pytest.raises(DatabaseError, match="set SDX_OWNER_DATABASE_URL"):
            async with replay.scratch(story):
                pass
    finally:
        await story.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_nobody_hears_of_a_replay_and_nothing_live_is_touched(
    story: Any, server_url: str, database_url: str
) -> None:
    heard: list[str] = []
    for channel in ("ledger_changed", "ledger_gaps"):
        await story.add_listener(channel, lambda _conn, _pid, name, _text: heard.append(name))
    state = "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE schemaname = 'ledger'"
    await story.execute("SELECT pg_stat_force_next_flush()")
    before = await rows(story, state + " ORDER BY 1")
    assert (await replayed(database_url)).identical
    await story.execute("SELECT pg_stat_force_next_flush()")
    assert await rows(story, state + " ORDER BY 1") == before
    assert heard == []
