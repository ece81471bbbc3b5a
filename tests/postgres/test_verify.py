"""Every check of ``verify`` holds over a sound mirror, and each is broken by what it is there to find."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ledger.db.accounts import named
from ledger.db.coverage import close_gap, open_gap
from ledger.errors import ConfigError, LedgerError
from ledger.facts.types import Doubt, Exact, Transfer
from ledger.verify import SHOWN_MAX, Report, checks, verify
from ledger.wire import heads
from ledger.wire.heads import Head
from tests.histories import (
    ACCOUNT,
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    fill,
    held,
    known,
    order,
    read_over_rest,
    rest,
    snapshot,
)

NOW_MS = T_MS + 10_000
HOUR_MS = 3_600_000


@pytest.fixture
async def told(conn: Any) -> Any:
    """A small sound mirror, as superuser: a gap walked and closed, two orders, a fill, balances, a deposit."""
    await known(conn)
    stream, walk = Session(), rest()
    gap = await open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS, not_after_ms=None)
    await walk.tell(
        conn, snapshot(held("USDT", "1000"), held("BTC", "1"), at_ms=0), question="GET /account", asked_seq=0
    )
    await walk.tell(conn, order("NEW", 1, orig_qty="2", price="9"), question="GET /allOrders", gap_id=gap.gap_id)
    await close_gap(conn, ACCOUNT, gap.gap_id, complete_from_ms=None)
    await read_over_rest(conn, SYMBOL)
    filled = order("FILLED", orig_qty="1", executed_qty="1", executed_quote="100", side="BUY", updated_ms=T_MS + 1)
    await stream.tell(conn, filled, fill(1, status="FILLED"))
    await stream.tell(conn, held("USDT", "899.9", at_ms=1), held("BTC", "2", at_ms=1))
    await stream.tell(conn, Transfer("USDT", Exact("5"), "deposit", T_MS + 2), held("USDT", "904.9", at_ms=2))
    await stream.tell_nothing(conn, T_MS + 5)
    return conn


async def verified(conn: Any, *, head: Head | None = None, strict: bool = False, now_ms: int = NOW_MS) -> Report:
    return await verify(conn, ACCOUNT, now_ms=now_ms, head=head, strict=strict)


async def broken(conn: Any, **options: Any) -> dict[str, list[tuple[str, int | None]]]:
    """Check -> (key, seq) of the rows that break it."""
    report = await verified(conn, **options)
    return {v.name: [(row.key, row.seq) for row in v.first] for v in report.verdicts if not v.holds}


async def by_force(conn: Any, sql: str) -> None:
    """What a superuser can do who switches every guard off."""
    await conn.execute("SET session_replication_role = replica")
    await conn.execute(sql)
    await conn.execute("SET session_replication_role = origin")


async def test_over_a_sound_mirror_every_check_holds(told: Any) -> None:
    report = await verified(told, strict=True)
    assert report.holds
    assert (report.account, report.head_seq) == (ACCOUNT, 5)
    assert [verdict.name for verdict in report.verdicts] == [*(check.name for check in checks()), "head_is_kept"]


def test_every_check_says_in_one_sentence_what_it_means() -> None:
    assert len(checks()) > 20
    for check in checks():
        assert re.fullmatch(r"[A-Z0-9][^\n]+\.", check.meaning), check.name
        assert check.sql.startswith(("SELECT", "--")), check.name
    assert [check.name for check in checks() if check.strict] == ["nothing_is_missing"]


FILL = "fill 3-2"
ORDER = f"{SYMBOL}/{ORDER_ID}"
DOUBT = (
    "INSERT INTO ledger.discrepancies (account, discrepancy_id, kind, subject, residual, digest, evidence_seq,"
    " opened_at, seq) VALUES ('main', 1, '{}', 'USDT', 5, '', 4, now(), 4)"
)
UNCHECKED = "ALTER TABLE ledger.{0} DROP CONSTRAINT {0}_amounts_are_real; "
BROKEN = [
    ("journal_is_gapless", "UPDATE ledger.accounts SET head_seq = 7", [("newest row", 5)]),
    ("journal_is_gapless", "DELETE FROM ledger.inbox WHERE seq = 2", [("after row 1", 3)]),
    ("chain_is_whole", "UPDATE ledger.inbox SET raw = '[]' WHERE seq = 4", [("row 4", 4)]),
    ("frames_are_complete", "DELETE FROM ledger.inbox WHERE seq = 4", [("*", 5)]),
    ("frames_are_complete", "UPDATE ledger.inbox SET frame_no = 1 WHERE seq = 4", [("*", 5)]),
    ("frames_are_counted", "UPDATE ledger.accounts SET stream_frames = 4", [("stream frames", 5)]),
    ("answers_are_kept", "UPDATE ledger.answers SET seq = 3 WHERE seq = 2", [("GET /allOrders", 3)]),
    ("answers_are_kept", "UPDATE ledger.inbox SET raw = '[1]' WHERE seq = 1", [("GET /account", 1)]),
    ("rows_have_evidence", "UPDATE ledger.fills SET first_seq = 9", [("fill 9-2", 9)]),
    ("rows_have_evidence", "UPDATE ledger.orders SET seq = 9 WHERE order_id = 1", [(f"order {SYMBOL}/1", 9)]),
    ("rows_have_evidence", "UPDATE ledger.balances SET seq = 9 WHERE asset = 'BTC'", [("balance BTC", 9)]),
    ("transfers_were_told", "UPDATE ledger.transfers SET source = 'operator'", [(f"USDT at {T_MS + 2}", 5)]),
    (
        "keys_are_unique",
        "DROP INDEX ledger.fills_stream_key; INSERT INTO ledger.fills SELECT account, 4, first_index, symbol, order_id,"
        " trade_id, stream_key, stream_ordinal, stream_ms, side, price, qty, quote_qty, quote_derived, fee, fee_asset,"
        " is_maker, executed_ms, source, state, doubt_executed, seq FROM ledger.fills",
        [("*", 3)],
    ),
    ("amounts_are_real", UNCHECKED.format("fills") + "UPDATE ledger.fills SET price = 'NaN'", [(FILL, 3)]),
    ("amounts_are_real", UNCHECKED.format("fills") + "UPDATE ledger.fills SET fee = '-Infinity'", [(FILL, 3)]),
    (
        "amounts_are_real",
        UNCHECKED.format("balances") + "UPDATE ledger.balances SET locked = -1 WHERE asset = 'BTC'",
        [("balance BTC", 4)],
    ),
    ("fills_have_orders", f"DELETE FROM ledger.orders WHERE order_id = {ORDER_ID}", [(FILL, 3)]),
    ("fills_add_up", "UPDATE ledger.orders SET fills_qty = 3 WHERE order_id = 1", [(f"{SYMBOL}/1", 2)]),
    ("fills_add_up", "UPDATE ledger.fills SET state = 'voided'", [(ORDER, 3)]),
    ("fills_add_up", "UPDATE ledger.fills SET quote_qty = 101", [(ORDER, 3)]),
    (
        "fills_are_not_too_many",
        "UPDATE ledger.orders SET venue_executed_qty = 0.5, status_executed = 0.5",
        [(ORDER, 3)],
    ),
    ("executed_is_ordered", "UPDATE ledger.orders SET orig_qty = 0.9", [(ORDER, 3)]),
    ("filled_is_filled", "UPDATE ledger.orders SET orig_qty = 4", [(ORDER, 3)]),
    ("balances_are_newest", "UPDATE ledger.balances SET free = 3 WHERE asset = 'BTC'", [("BTC", 4)]),
    ("balances_are_newest", "DELETE FROM ledger.balance_history WHERE asset = 'BTC'", [("BTC", 4)]),
    ("balances_are_explained", DOUBT.format("unexplained_balance"), [("discrepancy 1: USDT", 4)]),
    ("locks_are_explained", DOUBT.format("unexplained_lock"), [("discrepancy 1: USDT", 4)]),
    ("nothing_contradicts", DOUBT.format("fill_conflict"), [("discrepancy 1: fill_conflict USDT", 4)]),
    ("nothing_contradicts", DOUBT.format("order_shrank"), [("discrepancy 1: order_shrank USDT", 4)]),
    ("nothing_is_set_aside", DOUBT.format("rest_row"), [("discrepancy 1: rest_row USDT", 4)]),
    ("nothing_is_set_aside", DOUBT.format("whatever_comes"), [("discrepancy 1: whatever_comes USDT", 4)]),
    (
        "nothing_is_quarantined",
        "UPDATE ledger.inbox SET problem = 'refused by the database: no' WHERE seq = 4",
        [("journal row 4", 4)],
    ),
    (
        "nothing_is_quarantined",
        "UPDATE ledger.inbox SET problem = 'refused by the database (23514): no' WHERE seq = 4;"
        " INSERT INTO ledger.quarantine VALUES ('main', 4, 'no', '23514', 3, now())",
        [("journal row 4", 4)],
    ),
    ("gaps_are_in_order", "UPDATE ledger.gaps SET gap_id = 2", [("gap 2", None)]),
    ("gaps_are_in_order", f"UPDATE ledger.gaps SET from_ms = {T_MS + 1}", [("gap 1", None)]),
    (
        "gaps_are_in_order",
        "INSERT INTO ledger.gaps (account, gap_id, cause, until_ms, opened_at, closed_at)"
        " SELECT account, 2, cause, until_ms, opened_at, closed_at FROM ledger.gaps;"
        " UPDATE ledger.gaps SET closed_at = NULL WHERE gap_id = 1",
        [("gap 2", None)],
    ),
    (
        "gaps_do_not_last",
        "UPDATE ledger.gaps SET closed_at = NULL, opened_at = '2024-06-01 23:59:00+00'",
        [("gap 1", None)],
    ),
    (
        "coverage_is_honest",
        f"UPDATE ledger.coverage SET live_through_ms = {NOW_MS + HOUR_MS}",
        [("*", None), (SYMBOL, None)],
    ),
    (
        "coverage_ends_at_holes",
        DOUBT.format("rest_row") + f"; UPDATE ledger.discrepancies SET symbol = '{SYMBOL}'",
        [("rest_row USDT", 4)],
    ),
    (
        "coverage_ends_at_holes",
        DOUBT.format("symbol_refused")
        + "; UPDATE ledger.discrepancies SET uncovered_from_ms = 0;"
        + " CREATE OR REPLACE VIEW ledger_v1.coverage AS SELECT account, symbol, complete_from_ms,"
        + " to_timestamp(live_through_ms / 1000.0) AS complete_through, live_through_ms AS complete_through_ms, live"
        + " FROM ledger.coverage",
        [("*", 4)],
    ),
    ("doubts_do_not_last", f"UPDATE ledger.fills SET state = 'provisional', stream_ms = {T_MS - HOUR_MS}", [(FILL, 3)]),
]


@pytest.mark.parametrize(
    ("name", "sql", "wanted"), BROKEN, ids=[f"{n}-{name}" for n, (name, _, _) in enumerate(BROKEN)]
)
async def test_what_somebody_did_to_the_rows_is_named(
    name: str, sql: str, wanted: list[tuple[str, int | None]], told: Any
) -> None:
    await by_force(told, sql)
    found = (await broken(told))[name]
    assert [seq for _, seq in found] == [seq for _, seq in wanted]
    assert all(key in ("*", mine) for (mine, _), (key, _) in zip(found, wanted, strict=True)), found


def test_every_check_has_a_case_that_breaks_it() -> None:
    assert {name for name, _, _ in BROKEN} == {check.name for check in checks() if not check.strict}


async def test_no_check_cries_wolf_while_rest_is_behind_the_stream(told: Any) -> None:
    """Fills that the stream told, and REST, which trails, does not count yet."""
    stream = Session()
    await rest().tell(told, order("NEW", 7, orig_qty="3", executed_qty="0", updated_ms=T_MS))
    await stream.tell(told, order("PARTIALLY_FILLED", 7), fill(3, order_id=7))
    await stream.tell(told, order("FILLED", 7), fill(4, order_id=7, qty="2", status="FILLED"))
    await rest().tell(told, order("NEW", 7, orig_qty="3", executed_qty="0", updated_ms=T_MS))
    assert await broken(told, strict=True) == {}


async def test_missing_executions_count_only_when_asked_for_strictly(told: Any) -> None:
    await rest().tell(
        told, order("FILLED", 8, orig_qty="3", executed_qty="3", executed_quote="30", updated_ms=T_MS + 9)
    )
    assert await broken(told) == {}
    assert await broken(told, strict=True) == {"nothing_is_missing": [(f"{SYMBOL}/8", 6)]}


async def test_all_offending_rows_are_counted_and_the_first_are_shown(told: Any) -> None:
    doubts = [Doubt("rest_row", f"row {n}", None, "unreadable") for n in range(8)]
    await rest().tell(told, *doubts)
    (verdict,) = [v for v in (await verified(told)).verdicts if v.name == "nothing_is_set_aside"]
    assert (verdict.count, len(verdict.first)) == (8, SHOWN_MAX)
    assert verdict.first[0].found == "unreadable"


async def test_an_account_is_checked_by_name_and_an_unknown_one_is_refused(told: Any) -> None:
    await known(told, "other")
    assert await named(told, None) == [ACCOUNT, "other"]
    assert await named(told, "other") == ["other"]
    with pytest.raises(ConfigError, match="account 'nobody' is not mirrored in this database; there is: main, other"):
        await named(told, "nobody")
    assert (await verify(told, "other", now_ms=NOW_MS, head=None)).holds


# --- the head outside the database ---


async def kept(conn: Any, folder: Path) -> Head | None:
    await heads.Keeper(folder, ACCOUNT).follow(conn, NOW_MS)
    return await heads.read(conn, folder, ACCOUNT)


async def test_the_head_of_a_journal_is_kept_in_a_file_of_its_owner(told: Any, tmp_path: Path) -> None:
    assert await heads.read(told, tmp_path, ACCOUNT) is None
    head = await kept(told, tmp_path)
    digest = await told.fetchval("SELECT encode(head_digest, 'hex') FROM ledger.accounts")
    assert head == Head(ACCOUNT, 5, digest, NOW_MS)
    (file,) = (tmp_path / "heads").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    await Session().tell(told, order("NEW", 9))
    assert await broken(told, head=head) == {}, "the journal has grown since, which is what it should"
    assert (await kept(told, tmp_path)) != head


async def test_a_missing_head_is_a_note_and_no_failure(told: Any) -> None:
    report = await verified(told, head=None)
    assert report.holds
    assert report.verdicts[-1].note == "no head was kept outside the database yet"


CUT = (
    "DELETE FROM ledger.inbox WHERE seq > 4; DELETE FROM ledger.batches WHERE last_seq > 4; UPDATE ledger.accounts"
    " SET stream_frames = 2, head_seq = 4, head_digest = (SELECT digest FROM ledger.batches WHERE last_seq = 4)"
)
REWRITTEN = (
    "UPDATE ledger.inbox SET raw = '[]' WHERE seq = 5; UPDATE ledger.batches b SET marks = substring(x.digest FOR 8),"
    " digest = ledger.chain(b.account, (SELECT digest FROM ledger.batches WHERE last_seq = 4), 5, false, b.lag_ms,"
    " x.digest)"
    " FROM (SELECT ledger.row_digest(source, session_id, frame_no, received_at, kind, venue_ms, asked_seq, question,"
    " raw, problem) AS digest FROM ledger.inbox WHERE seq = 5) x WHERE b.last_seq = 5;"
    " UPDATE ledger.accounts SET head_digest = (SELECT digest FROM ledger.batches WHERE last_seq = 5)"
)


@pytest.mark.parametrize(
    ("sql", "found"),
    [(CUT, "the journal ends at row 4, it had 5 rows"), (REWRITTEN, "the digest up to row 5 was {}, now it is")],
    ids=["cut", "rewritten"],
)
async def test_a_journal_made_whole_again_by_force_is_found_by_its_head(
    sql: str, found: str, told: Any, tmp_path: Path
) -> None:
    head = await kept(told, tmp_path)
    assert head is not None
    await by_force(told, sql)
    report = await verified(told, head=head)
    assert "chain_is_whole" not in {v.name for v in report.verdicts if not v.holds}, "it hides from all but the head"
    (verdict,) = [v for v in report.verdicts if v.name == "head_is_kept"]
    assert verdict.first[0].found.startswith(found.format(head.digest))
    assert await kept(told, tmp_path) == head, "evidence is not overwritten"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"account": "main", "seq": "x", "digest": "", "at_ms": 1}'])
async def test_a_file_that_is_no_head_is_told_and_left_alone(content: str, told: Any, tmp_path: Path) -> None:
    await kept(told, tmp_path)
    (file,) = (tmp_path / "heads").iterdir()
    file.write_text(content)
    with pytest.raises(LedgerError, match="expected the head of a journal"):
        await kept(told, tmp_path)
    assert file.read_text() == content


async def test_every_database_has_a_head_of_its_own(told: Any, tmp_path: Path) -> None:
    await kept(told, tmp_path)
    there = heads.file_of(tmp_path, "another/database", ACCOUNT)
    assert not there.exists()
    assert len({there, *(tmp_path / "heads").iterdir()}) == 2
