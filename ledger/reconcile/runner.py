"""Asks the venue what the plan wants and applies the answers, until every gap is closed.

Always holds: answers go through the same ``db.apply.apply`` as stream frames, on a connection of their own; a gap is
closed only after every question of its walk was answered; stopped anywhere, the gap is still open and the next walk
repeats it without harm. An error is never read as "empty".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from ledger.db import apply, coverage, reads
from ledger.db.apply import Applied, Entry
from ledger.db.coverage import Gap
from ledger.db.reads import Known
from ledger.errors import KeyRefused, UnreadableFrame, VenueBusy, VenueError, VenueRefused
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Doubt, Fact, Snapshot
from ledger.reconcile import check, plan
from ledger.reconcile.plan import Scope, Walk
from ledger.reconcile.probe import FIRST_SYMBOL, probe
from ledger.venue import capabilities, requests, rest_pages
from ledger.venue.capabilities import Capabilities
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page
from ledger.wire.clock import Clock
from ledger.wire.http import VenueHttp
from ledger.wire.postgres import Writer, is_refusal, refusal

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""How often open gaps and provisional fills are looked for."""
PROBE_EVERY_S = 86_400.0
VOTE_AFTER_S = 5.0
"""Two snapshots that must agree are at least this far apart."""
FAILURE_PAUSE_MAX_S = 60.0
KEY_PAUSE_S = 300.0
"""A refused key is tried again this seldom: a person must look."""
REQUESTS_PER_WALK_MAX = 1_000_000
UNREADABLE_ANSWERS_MAX = 3

_UNKNOWN_SYMBOL = -1121
_TOO_WIDE = -1127
_UNKNOWN_ORDER = frozenset({-2013, -2026, -2011})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk is: questions answered and still to ask, rows read, symbols walked."""

    answered: int
    waiting: int
    rows: int
    symbols: int


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it came: what was asked, when (venue clock), and for the account the newest seq at that moment."""

    kind: str
    question: str
    asked_ms: int
    body: bytes
    asked_seq: int | None = None


@dataclass(slots=True)
class Outcome:
    """What a walk did."""

    rows: int = 0
    answers: int = 0
    fills_new: int = 0
    orders_changed: int = 0
    drifts: list[check.Drift] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of one account's reconciler; times in s, ``history_start_ms`` in ms (None: the first order there is)."""

    rest_lag_s: float
    every_s: float
    symbols: tuple[str, ...] = ()
    history_start_ms: int | None = None


class Reconciler:
    """One account's reconciler. ``writer`` is its own connection; ``http`` is shared with the listen-key lease."""

    def __init__(
        self,
        account: str,
        rules: Rules,
        http: VenueHttp,
        writer: Writer,
        clock: Clock,
        *,
        fence: int | None = None,
    ) -> None:
        self._account = account
        self._fence = fence
        self._rules = rules
        self._http = http
        self._writer = writer
        self._clock = clock
        self._session = uuid4()
        self._memory = SessionMemory()
        self._frame_no = 0
        self._refused: set[str] = set()
        self._capabilities: Capabilities | None = None
        self._probed_s = 0.0
        self._quiet_s = clock.monotonic_s()
        self._quiet_seq = 0
        self._quiet_no = 0
        self._vote_s: float | None = None

    async def run(self) -> None:
        """Heal gaps, settle provisional fills and look around quietly, until cancelled."""
        failures = 0
        while True:
            try:
                await self.run_once()
                failures = 0
                pause_s = POLL_S
            except KeyRefused as error:
                await self._report(error)
                pause_s = KEY_PAUSE_S
            except VenueError as error:
                failures += 1
                await self._report(error)
                asked_s = error.retry_after_s if isinstance(error, VenueBusy) else None
                pause_s = max(asked_s or 0.0, min(2.0**failures, FAILURE_PAUSE_MAX_S))
            await self._clock.sleep(pause_s)
            if pause_s == KEY_PAUSE_S:
                self._http.retry_key()

    async def run_once(self) -> bool:
        """Do the most urgent thing there is to do. False: there was nothing.

        Raises VenueError when the venue did not answer; whatever was open is still open.
        """
        gaps = await self._writer.run(lambda conn: coverage.open_gaps(conn, self._account))
        now_s = self._clock.monotonic_s()
        if gaps:
            await self.heal(gaps)
        elif await self._settle():
            pass
        elif self._vote_s is not None and now_s >= self._vote_s:
            self._vote_s = None
            await self._compare(Outcome(), None)
        elif now_s - self._quiet_s >= self._rules.every_s:
            await self._look_around()
        else:
            await self._tell_weight()
            return False
        await self._tell_weight()
        return True

    async def _tell_weight(self) -> None:
        used = self._http.weight_used()
        await self._writer.run(lambda conn: coverage.set_weight(conn, self._account, used))

    async def _known(self, *, missing: bool) -> Known:
        return await self._writer.run(lambda conn: reads.known_state(conn, self._account, missing=missing))

    async def _head_seq(self) -> int:
        return await self._writer.run(lambda conn: reads.head_seq(conn, self._account))

    async def heal(self, gaps: list[Gap], *, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
        """Walk what all these gaps span and close them."""
        until_ms = max(gap.until_ms for gap in gaps)
        # REST may trail the stream: what happened just before the stream was back must have reached it.
        await self._wait_until(until_ms + int(self._rules.rest_lag_s * 1000))
        quiet_seq = await self._head_seq()
        outcome = await self.walk(Scope(self._from_ms(gaps)), gap=gaps[0], on_progress=on_progress)
        for gap in gaps:
            await self._writer.run(partial(self._close_gap, gap_id=gap.gap_id))
        log.info(
            "gap closed",
            account=self._account,
            gaps=[gap.gap_id for gap in gaps],
            cause=gaps[0].cause,
            answers=outcome.answers,
            rows=outcome.rows,
            fills_found=outcome.fills_new,
            orders_changed=outcome.orders_changed,
        )
        self._quiet_s, self._quiet_seq = self._clock.monotonic_s(), quiet_seq
        return outcome

    async def _close_gap(self, conn: Any, gap_id: int) -> bool:
        return await coverage.close_gap(
            conn, self._account, gap_id, complete_from_ms=self._rules.history_start_ms, fence=self._fence
        )

    async def walk(
        self, scope: Scope, *, gap: Gap | None, on_progress: Callable[[Progress], None] | None = None
    ) -> Outcome:
        """Ask everything ``plan`` wants for ``scope`` and apply the answers; ends with one account snapshot."""
        found = await self._probed()
        trades = found.mode == "trades"
        known = await self._known(missing=False)
        walk = Walk(
            scope,
            known,
            trades=trades,
            markets=found.has_exchange_info,
            configured=self._rules.symbols,
            now_ms=self._clock.venue_now_ms(),
            refused=frozenset(self._refused),
        )
        outcome = Outcome()
        self._new_session()
        waiting = deque(walk.first())
        await self._drain(walk, waiting, outcome, gap, on_progress)
        waiting.extend(walk.last(await self._known(missing=trades)))
        await self._drain(walk, waiting, outcome, gap, on_progress)
        outcome.stuck = walk.stuck
        if walk.stuck:
            await self._doubt([Doubt("history_unreachable", text, None, None) for text in walk.stuck])
        await self._compare(outcome, gap)
        await self._tell_weight()
        return outcome

    async def _drain(
        self,
        walk: Walk,
        waiting: deque[Request],
        outcome: Outcome,
        gap: Gap | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        while waiting:
            if outcome.answers >= REQUESTS_PER_WALK_MAX:
                raise VenueBusy(f"a walk of more than {REQUESTS_PER_WALK_MAX} answers; going on later")
            request = waiting.popleft()
            try:
                page = await self._ask(request, outcome, gap)
            except VenueRefused as refused:
                waiting.extend(await self._take_refusal(walk, request, refused))
                continue
            waiting.extend(walk.answered(request, page))
            if on_progress is not None:
                on_progress(Progress(outcome.answers, len(waiting), outcome.rows, len(walk.symbols)))

    async def _ask(self, request: Request, outcome: Outcome, gap: Gap | None) -> Page:
        """Ask one question and apply its answer. Raises VenueError; an unreadable answer is kept, then VenueBusy."""
        asked_seq = await self._head_seq() if request.kind == "account" else None
        for attempt in range(1, UNREADABLE_ANSWERS_MAX + 1):
            answer = await self._http.send_patiently(request)
            told = Told(request.kind, request.question, answer.asked_ms, answer.body, asked_seq)
            try:
                page = rest_pages.read(request, answer.body)
                break
            except UnreadableFrame as error:
                if attempt == UNREADABLE_ANSWERS_MAX:
                    await self._apply(told, (), str(error), gap)
                    raise VenueBusy(f"{request.question}: {error}") from None
        doubts = tuple(
            Doubt("rest_row", f"{request.question} row {row.index}", None, row.problem) for row in page.set_aside
        )
        problem = f"{len(doubts)} of {page.rows} rows set aside" if doubts else None
        applied = await self._apply(told, (*page.facts, *doubts), problem, gap)
        await self._learn(page)
        outcome.answers += 1
        outcome.rows += page.rows
        outcome.fills_new += applied.fills_new
        outcome.orders_changed += applied.orders_changed
        return page

    async def _apply(self, told: Told, facts: tuple[Fact, ...], problem: str | None, gap: Gap | None) -> Applied:
        self._frame_no += 1
        now_ms = self._clock.now_ms()
        entry = Entry(self._frame_no, now_ms, told.kind, told.asked_ms, told.body, problem, facts)
        batch = apply.build(
            self._account,
            self._session,
            "rest",
            [entry],
            self._memory,
            gap_id=None if gap is None else gap.gap_id,
            asked_seq=told.asked_seq,
            question=told.question,
        )
        try:
            return await self._writer.run(lambda conn: apply.apply(conn, batch, fence=self._fence))
        except Exception as error:
            if not is_refusal(error) or batch.is_bare:
                raise
            problem = refusal(error)
        # One page must not stop the account: it is kept, and a person sees that its rows are not in.
        log.error("database refused a page", account=self._account, question=told.question, error=problem)
        bare = batch.without_facts(problem)
        applied = await self._writer.run(lambda conn: apply.apply(conn, bare, fence=self._fence))
        await self._doubt([Doubt("rest_page", told.question, None, problem)])
        return applied

    async def _take_refusal(self, walk: Walk, request: Request, refused: VenueRefused) -> list[Request]:
        """What to ask instead. An unknown order stays open here, an unknown symbol was a guess or is noted.

        Raises the refusal itself where nothing else can be done: the walk ends, its gap stays open.
        """
        if isinstance(refused, KeyRefused):
            raise refused
        if request.order_id is not None and refused.code in _UNKNOWN_ORDER:
            log.info(
                "order not found at the venue, asking again later", account=self._account, question=request.question
            )
            return []
        if request.symbol is not None and refused.code == _UNKNOWN_SYMBOL:
            if walk.refuse(request.symbol):
                self._refused.add(request.symbol)
            else:
                await self._doubt([Doubt("symbol_refused", request.symbol, None, str(refused))])
            return []
        if request.kind in ("allOrders", "myTrades") and refused.code == _TOO_WIDE and request.order_id is None:
            return walk.too_wide(request)
        if request.kind == "myTrades" and refused.status == 404:
            self._capabilities = None
        raise refused

    async def _doubt(self, doubts: list[Doubt]) -> None:
        """Note what the venue would not tell: a journal row without a body, kept once per content."""
        for doubt in doubts:
            told = Told("note", f"note {doubt.kind} {doubt.subject}", self._clock.venue_now_ms(), b"")
            await self._apply(told, (doubt,), doubt.actual or doubt.subject, None)

    async def _compare(self, outcome: Outcome, gap: Gap | None) -> None:
        """Take one account snapshot and compare. A difference is looked at again, it never holds a gap open."""
        page = await self._ask(requests.account(), outcome, gap)
        ours = await self._writer.run(lambda conn: reads.balances(conn, self._account))
        for fact in page.facts:
            if isinstance(fact, Snapshot):
                outcome.drifts = check.compare(ours, fact)
        if await self._writer.run(lambda conn: reads.snapshot_in_doubt(conn, self._account)):
            self._vote_s = self._clock.monotonic_s() + VOTE_AFTER_S
        if outcome.drifts:
            log.info(
                "balances differ from the venue's snapshot, looking again",
                account=self._account,
                assets=[drift.asset for drift in outcome.drifts],
            )

    async def _settle(self) -> bool:
        """Ask GET order where the stream alone leaves a doubt, late enough for REST to know.

        Orders with provisional fills are asked twice, which makes a judgement; orders that lost fills once are asked
        again whenever they have moved on.
        """
        until_ms = self._clock.venue_now_ms() - int(self._rules.rest_lag_s * 1000)
        provisional = await self._writer.run(
            lambda conn: reads.provisional_orders(conn, self._account, until_ms=until_ms)
        )
        wounded = await self._writer.run(lambda conn: reads.wounded_orders(conn, self._account, until_ms=until_ms))
        questions = [requests.query_order(symbol, order_id, settle=True) for symbol, order_id in provisional]
        questions += [requests.query_order(symbol, order_id) for symbol, order_id in wounded]
        for question in questions:
            try:
                await self._ask(question, Outcome(), None)
            except VenueRefused as refused:
                if isinstance(refused, KeyRefused) or refused.code not in _UNKNOWN_ORDER:
                    raise
        return bool(questions)

    async def _look_around(self) -> None:
        """The quiet periodic pass over what was active lately and a share of everything else."""
        known = await self._known(missing=False)
        since_seq = self._quiet_seq
        active = await self._writer.run(lambda conn: reads.active_symbols(conn, self._account, since_seq=since_seq))
        names = plan.quiet_symbols(
            tuple(sorted({*known.symbols, *self._rules.symbols})),
            active,
            pass_no=self._quiet_no,
            every_s=self._rules.every_s,
        )
        self._quiet_no += 1
        from_ms = self._clock.venue_now_ms() - plan.QUIET_OVERLAP_MS + plan.OVERLAP_MS
        await self.walk(Scope(from_ms, names), gap=None)
        self._quiet_seq = known.head_seq
        self._quiet_s = self._clock.monotonic_s()

    async def _probed(self) -> Capabilities:
        """What the venue offers, probed at start and daily."""
        now_s = self._clock.monotonic_s()
        if self._capabilities is None or now_s - self._probed_s >= PROBE_EVERY_S:
            known = await self._known(missing=False)
            symbol = next(iter((*known.symbols, *self._rules.symbols)), FIRST_SYMBOL)
            seen = frozenset() if self._capabilities is None else self._capabilities.order_fields
            await self._remember(await probe(self._http, symbol, seen))
            self._probed_s = now_s
        assert self._capabilities is not None
        return self._capabilities

    async def _learn(self, page: Page) -> None:
        """Order objects tell by their fields how much can be recovered."""
        if self._capabilities is not None and page.fields - self._capabilities.order_fields:
            await self._remember(capabilities.learn(self._capabilities, page.fields))

    async def _remember(self, found: Capabilities) -> None:
        if self._capabilities is None or self._capabilities.mode != found.mode:
            await self._writer.run(lambda conn: coverage.set_mode(conn, self._account, found.mode))
            log.info("recovery mode", account=self._account, mode=found.mode)
        self._capabilities = found

    def _from_ms(self, gaps: list[Gap]) -> int | None:
        starts = [gap.from_ms for gap in gaps if gap.from_ms is not None]
        if len(starts) < len(gaps):
            start = self._rules.history_start_ms
            return None if start is None else start + plan.OVERLAP_MS
        return min(starts)

    async def _wait_until(self, venue_ms: int) -> None:
        while (missing_ms := venue_ms - self._clock.venue_now_ms()) > 0:
            await self._clock.sleep(min(missing_ms / 1000, 60.0))

    def _new_session(self) -> None:
        self._session = uuid4()
        self._memory = SessionMemory()
        self._frame_no = 0

    async def _report(self, error: VenueError) -> None:
        log.error("reconcile cannot go on now", account=self._account, error=str(error))
        await self._writer.run(lambda conn: coverage.set_error(conn, self._account, str(error)))
