"""The first load of a whole history: broken off and gone on with, live meanwhile, market by market, told as it goes."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from ledger import app
from ledger.db import coverage, reads
from ledger.reconcile import plan
from ledger.sandbox.rest import Answer, Call
from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import eventually, gap, gaps_closed, holds, mirroring, proof_of, settings_for, venue
from tests.flows.processes import FAST, bench, until
from tests.patience import stretched

DAY_MS = 86_400_000
OPEN_GAPS = "SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NULL"
STREAM_FRAMES = "SELECT stream_frames FROM ledger.accounts WHERE account = 'main'"
WALKED = "SELECT count(*) FROM ledger_v1.coverage WHERE symbol <> '*' AND complete_through_ms IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about history as the venue heard it; ``start_ms`` None where it names none."""

    kind: str
    symbol: str
    start_ms: int | None
    cursor_id: int | None


class Listening(Sandbox):
    """A venue that remembers what it was asked about history."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[Question] = []
        self.single_orders: list[str] = []
        """Orders whose trades alone were asked for."""
        self.passes: list[int] = []
        """How many of those had been asked each time that a walk began with the open orders."""

    async def _answer(self, call: Call) -> Answer:
        if call.path.endswith("/openOrders") and "symbol=" not in call.query:
            self.passes.append(len(self.asked))
        if call.path.endswith(("/allOrders", "/myTrades")):
            told = dict(parse_qsl(call.query))
            cursor = told.get("fromId") or (told.get("orderId") if call.path.endswith("/allOrders") else None)
            of_one_order = call.path.endswith("/myTrades") and "orderId" in told  # no page of a market's history
            if of_one_order:
                self.single_orders.append(told["orderId"])
            if told.get("limit") == "1000" and not of_one_order:  # a probe asks for one row
                start = told.get("startTime")
                self.asked.append(
                    Question(
                        call.path.rpartition("/")[2],
                        told["symbol"],
                        None if start is None else int(start),
                        None if cursor is None else int(cursor),
                    )
                )
        return await super()._answer(call)


@asynccontextmanager
async def listening(dialect: str, **options: Any) -> AsyncIterator[Listening]:
    sandbox = Listening(seed=7, dialect=dialect, **{"weight_per_minute": 120_000, **options})
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


async def slow_down(sandbox: Sandbox, path: str, each_s: float) -> None:
    """Every answer of this path comes late from now on; 0 ends it."""
    if each_s == 0:
        sandbox.faults._spoilt.clear()
        return
    await sandbox.fault({"do": "rest_delay", "s": each_s, "path": path, "count": 100_000})


def environment(sandbox: Sandbox, database_url: str) -> dict[str, str]:
    return {
        **FAST,
        "SDX_RECONCILE_EVERY_S": "300",  # what is watched is the load alone
        "SDX_DATABASE_URL": database_url,
        "SDX_REST_URL": sandbox.rest_url,
        "SDX_STREAM_URL": sandbox.stream_url,
        "SDX_API_KEY": sandbox.api_key,
        "SDX_API_SECRET": sandbox.api_secret,
    }


# --- broken off and gone on with ----------------------------------------------------------------------------------


async def test_reconcile_killed_twice_half_way_finishes_and_asks_no_finished_page_again(
    tmp_path: Path, database_url: str, conn: Any
) -> None:
    async with listening("full", history=6_000) as sandbox:
        with bench(tmp_path, environment(sandbox, database_url)) as programs:
            await slow_down(sandbox, "allOrders", 0.1)
            await slow_down(sandbox, "myTrades", 0.1)
            for pages in (6, 20):
                begin = len(sandbox.asked)
                steps = {(step.symbol, step.kind): step for step in await coverage.walked(conn, "main", 1)}
                program = programs.start("reconcile")
                await sandbox.until(lambda pages=pages: len(sandbox.asked) >= pages, stretched(60.0))  # type: ignore[misc]
                await program.killed()
                goes_on(sandbox.asked[begin:], steps)
                assert await conn.fetchval(OPEN_GAPS) >= 1
            await slow_down(sandbox, "", 0)
            begin = len(sandbox.asked)
            steps = {(step.symbol, step.kind): step for step in await coverage.walked(conn, "main", 1)}
            assert sum(step.done for step in steps.values()) >= 4, "the kills came too early to show anything"
            code, out, err = await programs.done("reconcile", within_s=60.0)
            assert (code, out.startswith("main: ")) == (0, True), err
        goes_on(sandbox.asked[begin:], steps)

        proof = await holds(conn, sandbox, gaps=3)
        assert proof.fills == proof.venue_fills > 6_000
        assert proof.missing == 0
        assert not [call for call in sandbox.calls if call[2] in (418, 429)]
        assert await conn.fetchval("SELECT count(*) FROM ledger.walks") == 0, "steps end with their gap"


def goes_on(asked: Sequence[Question], steps: dict[tuple[str, str], Any]) -> None:
    """Nothing before the step of its market and kind is asked; what was told to its end is asked for its end alone."""
    for question in asked:
        step = steps.get((question.symbol, question.kind))
        if step is not None and question.cursor_id is None:  # by id: within the millisecond it goes on from
            assert question.start_ms is not None
            assert question.start_ms >= step.start_ms, (question, step)
            assert not step.done or question.start_ms >= step.asked_ms - plan.OVERLAP_MS


async def test_an_error_half_way_leaves_the_steps_and_the_same_process_goes_on(database_url: str, conn: Any) -> None:
    async with listening("full", history=1_500) as sandbox:
        await slow_down(sandbox, "allOrders", 0.05)
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await sandbox.until(lambda: len(sandbox.asked) >= 6, stretched(30.0))
            await slow_down(sandbox, "", 0)
            await sandbox.fault({"do": "redirect", "path": "allOrders"})
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
        first = [question for question in sandbox.asked if question.start_ms == 0]
        assert len(first) <= len(set(first)) + 1, "only the page that failed is asked again"


async def test_windows_of_a_day_are_gone_on_with_too(database_url: str, conn: Any) -> None:
    async with listening("full", history=200, history_days=6, window_only=True) as sandbox:
        begin_ms = sandbox.now_ms() - 7 * DAY_MS
        settings = settings_for(sandbox, history_start=str(begin_ms), symbols="BTCUSDT")
        async with mirroring(settings, database_url):
            await sandbox.until(lambda: len(sandbox.asked) >= 40, stretched(30.0))
        steps = {(step.symbol, step.kind): step for step in await coverage.walked(conn, "main", 1)}
        assert any(step.end_ms is not None and not step.done for step in steps.values())
        begin = len(sandbox.asked)
        async with mirroring(settings, database_url):
            await gaps_closed(conn, 2)
            await holds(conn, sandbox, gaps=2)
        goes_on(sandbox.asked[begin:], {key: step for key, step in steps.items() if not step.done})
        assert await conn.fetchval("SELECT complete_from_ms FROM ledger_v1.coverage WHERE symbol = 'BTCUSDT'") == (
            begin_ms
        )


# --- where paging by time fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_a_millisecond_with_more_rows_than_a_page_is_read_by_id(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with listening(dialect, history=300, burst=2_500) as sandbox:
        async with mirroring(settings_for(sandbox, reconcile_every_s=300, symbols="BTCUSDT"), database_url):
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
        assert any(question.cursor_id for question in sandbox.asked)
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.discrepancies") == 0


async def test_a_venue_of_day_windows_is_read_by_id_when_nobody_says_where_to_start(
    database_url: str, conn: Any
) -> None:
    async with listening("full", history=2_600, window_only=True) as sandbox:
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
        assert len(sandbox.asked) < 90, "days were enumerated"
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.discrepancies") == 0


async def test_a_venue_that_ignores_its_filters_is_noticed_with_the_answer_that_shows_it(
    database_url: str, conn: Any
) -> None:
    async with listening("full", history=2_600, burst=1_500) as sandbox:
        await sandbox.fault({"do": "ignore_filters"})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
        told = await conn.fetch(
            "SELECT d.kind, d.subject, j.kind AS asked, j.question FROM ledger_v1.discrepancies d"
            " JOIN ledger.inbox j ON j.account = d.account AND j.seq = d.evidence_seq ORDER BY d.subject"
        )
        stuck = [row for row in told if row["kind"] == "history_unreachable"]
        assert {row["asked"] for row in stuck} == {"allOrders", "myTrades"}
        assert all("BTCUSDT: the venue ignores startTime" in row["subject"] for row in stuck)
        assert all(row["question"].startswith("GET#975-999/1000 ") for row in stuck), (
            "the evidence is the page, its end"
        )
        walked = await conn.fetch("SELECT symbol FROM ledger_v1.coverage WHERE symbol <> '*'")
        assert "BTCUSDT" not in {row["symbol"] for row in walked}, "coverage would go past a hole"
        assert "ETHUSDT" in {row["symbol"] for row in walked}


# --- live meanwhile, market by market -----------------------------------------------------------------------------


async def test_frames_are_written_during_a_first_load_and_a_gap_opened_meanwhile_is_healed_by_itself(
    database_url: str, conn: Any
) -> None:
    async with listening("full", history=3_000) as sandbox:
        await slow_down(sandbox, "allOrders", 0.15)
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await sandbox.until(lambda: len(sandbox.asked) >= 5, stretched(30.0))
            await sandbox.step(40)
            await eventually(conn, STREAM_FRAMES, lambda frames: frames >= sandbox.frames_sent > 0, within_s=2.0)
            assert await conn.fetchval(OPEN_GAPS) == 1, "the first load was over before it was looked at"

            await sandbox.fault({"do": "drop"})
            await sandbox.step(20)
            await eventually(conn, OPEN_GAPS, lambda count: count == 2)
            await slow_down(sandbox, "", 0)
            await gaps_closed(conn, 1)
            begin = len(sandbox.asked)
            await gaps_closed(conn, 2)
            second = await gap(conn, 2)
            await holds(conn, sandbox, gaps=2)
        after = [question.start_ms for question in sandbox.asked[begin:]]
        assert after, "the second gap was not walked by itself"
        assert all(start is not None and start >= second["from_ms"] - plan.QUIET_OVERLAP_MS for start in after)


async def test_the_periodic_pass_beside_a_first_load_does_not_hold_it_up(database_url: str, conn: Any) -> None:
    """It is due every second and takes longer than that: nevertheless most questions are those of the load, and none
    asks for the trades of an order that the load has not come to yet."""
    async with listening("full", history=1_000) as sandbox:
        for path, each_s in (("openOrders", 2.0), ("allOrders", 0.4), ("myTrades", 0.4)):
            await slow_down(sandbox, path, each_s)
        async with mirroring(settings_for(sandbox, reconcile_every_s=1), database_url):
            # The load itself asks for the open orders first, then each pass does.
            await sandbox.until(lambda: sandbox.passes[2:] != [], stretched(60.0))
            assert await conn.fetchval(OPEN_GAPS) == 1, "the first load was over before it was looked at"
        _, first, second, *_ = sandbox.passes
        assert second - first >= 10, "questions of the load in between"
        assert sandbox.single_orders == []


async def test_coverage_moves_market_by_market_while_the_first_load_goes_on(database_url: str, conn: Any) -> None:
    async with listening("full", history=600) as sandbox:
        await slow_down(sandbox, "myTrades", 0.2)
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await eventually(conn, WALKED, lambda count: count >= 2)
            rows = await conn.fetch("SELECT symbol, complete_from_ms, complete_through_ms FROM ledger_v1.coverage")
            (status,) = await reads.status(conn)
            assert await conn.fetchval(OPEN_GAPS) == 1
            through = {row["symbol"]: row["complete_through_ms"] for row in rows}
            assert through.pop("*") is None, "every market waits for the last one"
            assert all(ms is not None for ms in through.values())
            assert all(row["complete_from_ms"] is None for row in rows), "from the beginning"
            assert 2 <= status["markets_walked"] <= status["markets_known"] <= len(sandbox.books.orders)
            assert status["markets_walked"] < 12

            await slow_down(sandbox, "", 0)
            await gaps_closed(conn, 1)
            (status,) = await reads.status(conn)
            assert (status["markets_walked"], status["markets_known"]) == (None, None)
            known = {row["symbol"] for row in await conn.fetch("SELECT DISTINCT symbol FROM ledger_v1.orders")}
            rows = await conn.fetch("SELECT symbol FROM ledger_v1.coverage WHERE symbol <> '*'")
            assert {row["symbol"] for row in rows} == known, "a guess without orders is no market"


async def test_symbols_named_by_hand_are_covered_only_where_no_gap_is_skipped(database_url: str, conn: Any) -> None:
    async with listening("full", history=300) as sandbox:
        with_gap = settings_for(sandbox, rest_lag_s=1)
        async with _one_mirror(with_gap, database_url) as mirror:
            now_ms = sandbox.now_ms()
            for name, since_ms in (("BTCUSDT", None), ("ETHUSDT", now_ms - DAY_MS)):
                await mirror._admin.run(
                    lambda conn: coverage.open_gap(conn, "main", cause="test", until_ms=now_ms, live=False)
                )
                await mirror.heal_once(since_ms=since_ms, symbols=(name,), on_progress=None)
        rows = await conn.fetch("SELECT symbol, walked_gap FROM ledger.coverage WHERE symbol <> '*' ORDER BY symbol")
        assert [tuple(row) for row in rows] == [("BTCUSDT", 1), ("ETHUSDT", 0)]


@asynccontextmanager
async def _one_mirror(settings: Any, database_url: str) -> AsyncIterator[Any]:
    """A mirror that is registered and does nothing by itself."""
    db = app.Database(database_url, database_url, database_url, embedded=False)
    async with app.mirrors(settings, db) as (mirror,):
        yield mirror


# --- told as it goes ----------------------------------------------------------------------------------------------


async def test_progress_is_json_lines_where_there_is_no_terminal(tmp_path: Path, database_url: str) -> None:
    async with listening("full", history=1_200) as sandbox:
        await slow_down(sandbox, "allOrders", 0.15)
        with bench(tmp_path, environment(sandbox, database_url)) as programs:
            code, _, err = await programs.done("reconcile", within_s=60.0)
        assert code == 0, err
        lines = [line for line in map(json.loads, err.splitlines()) if "answered" in line and "event" not in line]
        assert len(lines) >= 2
        times = [line["elapsed_s"] for line in lines]
        assert all(round(after - before, 1) >= 1 for before, after in pairwise(times[:-1])), times  # told in tenths
        last = lines[-1]
        assert (last["account"], last["waiting"], last["symbols_done"]) == ("main", 0, last["symbols"])
        assert last["symbols"] >= 12
        assert last["rows"] > 1_200
        assert 0 < last["weight_used"] <= last["weight_limit"] == 100_000
        assert lines[0]["left_s"] > 0.0
        assert last["left_s"] == 0.0


async def test_progress_is_a_bar_on_a_terminal(tmp_path: Path, database_url: str) -> None:
    async with listening("full", history=100) as sandbox:
        with bench(tmp_path, environment(sandbox, database_url)) as programs:
            code, _, err = await programs.done(
                "reconcile", settings={"FORCE_COLOR": "1", "COLUMNS": "150"}, within_s=60.0
            )
        assert code == 0, err
        for words in ("main", "symbols", "pages", "rows", "weight", "/100000", "left"):
            assert words in err


async def test_the_service_says_how_far_its_first_load_is(tmp_path: Path, database_url: str) -> None:
    async with listening("full", history=100) as sandbox:
        await slow_down(sandbox, "allOrders", 2.0)
        with bench(tmp_path, environment(sandbox, database_url)) as programs:
            program = programs.start("run")
            await program.says("first load goes on")
            (line,) = [line for line in program.err.splitlines() if "first load goes on" in line][:1]
            await slow_down(sandbox, "", 0)
            assert await program.stopped(signal.SIGTERM) == 0
        told = json.loads(line)
        assert (told["level"], told["account"], told["gap"]) == ("info", "main", 1)
        assert told["elapsed_s"] >= 10
        assert {"answered", "waiting", "rows", "symbols_done", "symbols", "weight_used", "left_s"} <= told.keys()


# --- what the stream did not bring --------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_a_stream_that_pings_and_brings_nothing_is_found_out_by_what_rest_tells(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(10)
            await eventually(conn, STREAM_FRAMES, lambda frames: frames >= sandbox.frames_sent)
            await sandbox.fault({"do": "silence", "frames_only": True})
            deaf_ms = sandbox.now_ms()
            await sandbox.step(30)
            await gaps_closed(conn, 2)

            second = await gap(conn, 2)
            assert second["cause"] == "deaf"
            assert second["from_ms"] <= deaf_ms
            heard = await conn.fetchval(STREAM_FRAMES)
            await sandbox.step(10)
            await eventually(conn, STREAM_FRAMES, lambda frames: frames > heard)
            await holds(conn, sandbox, gaps=2)


async def test_a_stream_that_brings_everything_is_never_doubted(database_url: str, conn: Any) -> None:
    passes = "SELECT count(DISTINCT session_id) FROM ledger_v1.journal WHERE source = 'rest'"
    async with venue("documented") as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox, reconcile_every_s=1), database_url):
            await gaps_closed(conn, 1)
            before = await conn.fetchval(passes)
            for _ in range(60):
                await sandbox.step(2)
                if await conn.fetchval(passes) >= before + 4:
                    break
                await eventually(conn, STREAM_FRAMES, lambda frames: frames >= sandbox.frames_sent)
            await eventually(conn, passes, lambda count: count >= before + 4)
            await holds(conn, sandbox, gaps=1)


# --- nonsense -----------------------------------------------------------------------------------------------------


NONSENSE: list[tuple[str, str, str, Callable[[str], bool]]] = [
    ("negative_qty", "allOrders", "rest_row", lambda subject: "allOrders" in subject),
    ("nan_price", "allOrders", "rest_row", lambda subject: "allOrders" in subject),
    ("negative_qty", "myTrades", "rest_row", lambda subject: "myTrades" in subject),
    ("nan_price", "myTrades", "rest_row", lambda subject: "myTrades" in subject),
    ("shrinking_order", "allOrders", "order_conflict", lambda subject: subject.endswith("orig_qty")),
    ("id_reuse", "allOrders", "order_conflict", lambda subject: "side" in subject),
    ("other_terminal", "allOrders", "terminal_conflict", lambda subject: subject.count("/") == 1),
    ("changed_fill", "myTrades", "fill_conflict", lambda subject: "/t" in subject),
]


@pytest.mark.parametrize(("lie", "path", "kind", "names"), NONSENSE, ids=[f"{one[0]} {one[1]}" for one in NONSENSE])
async def test_nonsense_over_rest_leaves_the_truth_and_names_its_evidence(
    lie: str, path: str, kind: str, names: Callable[[str], bool], database_url: str, conn: Any
) -> None:
    async with venue("full") as sandbox:
        await sandbox.step(80)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            told = f"SELECT count(*) FROM ledger_v1.discrepancies WHERE kind = '{kind}'"
            assert await conn.fetchval(told) == 0
            await sandbox.fault({"do": "nonsense", "kind": lie, "path": path})
            await eventually(conn, told, lambda count: count >= 1)

            proof = await proof_of(conn, sandbox)
            assert proof.differences == []
        rows = await conn.fetch(
            "SELECT d.subject, j.kind AS asked FROM ledger_v1.discrepancies d"
            " JOIN ledger_v1.journal j ON j.account = d.account AND j.seq = d.evidence_seq WHERE d.kind = $1",
            kind,
        )
        assert [row["asked"] for row in rows] == [path]
        assert all(names(row["subject"]) for row in rows)


async def test_the_reconcile_command_goes_on_until_every_gap_is_closed(
    tmp_path: Path, database_url: str, conn: Any
) -> None:
    """A gap left open by a service that was killed, and the one until now."""
    async with listening("full", history=200) as sandbox:
        with bench(tmp_path, environment(sandbox, database_url)) as programs:
            await slow_down(sandbox, "allOrders", 0.3)
            service = programs.start("run")
            await until(lambda: len(sandbox.asked) >= 3, "a first load that goes on")
            await service.killed()
            await slow_down(sandbox, "", 0)
            assert (await programs.done("reconcile", within_s=60.0))[0] == 0
        assert await conn.fetchval(OPEN_GAPS) == 0
        await holds(conn, sandbox, gaps=2)
