"""Asks the venue what the plan wants and applies the answers, until every gap is closed.

Always holds: answers go through the same ``db.apply.apply`` as stream frames, on a connection of their own; a gap is
closed only after every question of its walk was answered; stopped anywhere, the gap is still open and the next walk
goes on where this one was: its steps move in the same transaction as the rows. An error is never read as "empty".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from ledger.db import apply, coverage, quarantine, reads
from ledger.db.apply import Applied, Entry, WalkStep
from ledger.db.coverage import Gap
from ledger.db.reads import Known
from ledger.db.rows import lay
from ledger.errors import KeyRefused, Unanswered, UnreadableAnswer, UnreadableFrame, VenueBusy, VenueError, VenueRefused
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Doubt, Fact, Fill, Order, Snapshot
from ledger.reconcile import check, holes, order_checks, plan, refusals
from ledger.reconcile.asking import Asker
from ledger.reconcile.checker import OrderChecker
from ledger.reconcile.explain import Explainer
from ledger.reconcile.holes import Holes
from ledger.reconcile.plan import Healing, Scope, Walk
from ledger.reconcile.probe import probe
from ledger.venue import capabilities, requests, rest_pages
from ledger.venue.capabilities import Capabilities
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page, Part
from ledger.wire.clock import Clock
from ledger.wire.http import VenueHttp
from ledger.wire.postgres import Writer, is_refusal, refusal, sqlstate_of

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""How often open gaps and provisional fills are looked for."""
PROBE_EVERY_S = 86_400.0
PROBE_AGAIN_S = 120.0
"""The same while anything of what the venue offers is unclear, or was found absent only once."""
VOTE_AFTER_S = 5.0
"""Two snapshots that must agree are at least this far apart, and no less than REST may trail."""
FAILURE_PAUSE_MAX_S = 60.0
KEY_PAUSE_S = 300.0
"""A refused key is tried again this seldom: a person must look."""
REREADS_MAX = 1000
"""How many times, for as many orders as one walk asks for, the trades of orders that lack some are asked for."""
ROWS_PER_CALL_MAX = 25
"""Rows of an answer that are applied at once: a live frame of the account waits no longer than these take."""
REQUESTS_PER_WALK_MAX = 1_000_000
UNREADABLE_ANSWERS_MAX = 3
LOOKS_MAX = 4
"""How often at most balances are looked at again before the next pass."""
BESIDE_PAUSE_TIMES = 4
"""Beside a backfill the periodic pass pauses at least so many times as long as the last one took."""
TELL_PROGRESS_S = 10.0
"""How often a long walk of the service says how far it is."""
RECHECK_AFTER_S = 2.0
"""An order the venue does not know is asked for once more before its gap closes: after this, or the lag of REST."""
RECHECK_MAX = 100
"""Of more orders than that the venue has taken leave at once, and means it."""
OUTAGE_PATIENCE_S = 5.0
"""How long no socket may be up before REST is walked without one: most outages are over sooner."""
HEAR_WITHIN_S = 5.0
"""What REST tells the stream tells within so long, or within SDX_REST_LAG_S where that is longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk is: questions answered and known to be asked still, rows read, symbols walked to their end of
    those known, guesses included; ``weight_used`` of ``weight_limit`` per minute. ``left_s``: see ``time_left_s``.
    """

    answered: int
    waiting: int
    rows: int
    symbols_done: int
    symbols: int
    weight_used: int
    weight_limit: int
    elapsed_s: float
    left_s: float | None


def time_left_s(
    *, answers: int, elapsed_s: float, questions: float, weight: float, used: int, limit: int
) -> float | None:
    """An estimate of how long a walk goes on, in s; None before its first answer.

    ``questions`` still to ask, guessed pages included, at the pace of those answered so far; or, if that takes longer,
    the time in which a budget of ``limit`` per minute lets their ``weight`` through after what is ``used``.
    """
    if not answers:
        return None
    return max(questions * elapsed_s / answers, (weight + used - limit) * 60.0 / limit, 0.0)


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it came: what was asked, when (venue clock), and for the account the newest seq at that moment.

    ``parts``: the same in parts, each with what it says.
    """

    kind: str
    question: str
    asked_ms: int
    body: bytes
    asked_seq: int | None = None
    parts: tuple[tuple[Part, Page], ...] = ()


@dataclass(slots=True)
class Outcome:
    """What a walk did."""

    rows: int = 0
    answers: int = 0
    fills_new: int = 0
    orders_changed: int = 0
    drifts: list[check.Drift] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unknown: list[tuple[Request, VenueRefused]] = field(default_factory=list)
    """Questions for orders we know and the venue said it does not, with its answer."""
    read_whole: frozenset[str] = frozenset()
    """Markets whose every order was read: there is nothing to come of asking again."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One walk under way. ``quiet``: nothing is known to be missing, so what it finds the stream should have told."""

    walk: Walk
    gap: Gap | None
    quiet: bool
    started_s: float
    on_progress: Callable[[Progress], None] | None
    outcome: Outcome = field(default_factory=Outcome)
    waiting: deque[Request] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of one account's reconciler; times in s, ``history_start_ms`` in ms (None: the first order there is)."""

    rest_lag_s: float
    every_s: float
    symbols: tuple[str, ...] = ()
    history_start_ms: int | None = None
    assets_of: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Reconciler:
    """One account's reconciler. ``writer`` is its own connection; ``http`` is shared with the listen-key lease.

    ``on_missed`` is told since when (venue clock, ms) a stream that seemed live has not brought what REST told; at most
    once in a quiet pass.
    """

    def __init__(
        self,
        account: str,
        rules: Rules,
        http: VenueHttp,
        writer: Writer,
        clock: Clock,
        *,
        fence: int | None = None,
        on_missed: Callable[[int], None] | None = None,
    ) -> None:
        self._account = account
        self._fence = fence
        self._on_missed = on_missed
        self._rules = rules
        self._http = http
        self._asker = Asker(http)
        self._writer = writer
        self._clock = clock
        self._session = uuid4()
        self._memory = SessionMemory()
        self._frame_no = 0
        self._refused: dict[str, float] = {}
        """Guesses that the venue refused, and when (monotonic s)."""
        self._holes = Holes(account, writer, clock, tell=self._tell)
        self._heal_failed = False
        self._limits: dict[str, int] = {}
        """Rows a page is asked for by kind, where this process found the venue to refuse more."""
        self._capabilities: Capabilities | None = None
        self._probe_due_s = clock.monotonic_s()
        self._probed_s = self._probe_due_s
        self._mode: str | None = None
        """The mode the mirror was last in, as the database knows it."""
        self._rereads = False
        """Whether the venue tells its trades and did not before, so that what is missing can be asked for."""
        self._quiet_s = clock.monotonic_s()
        self._quiet_seq = 0
        self._quiet_no = 0
        self._quiet_took_s = 0.0
        self._vote_s: float | None = None
        self._compared_ms = 0
        self._explainer = Explainer(account, writer, clock, assets_of=rules.assets_of, fence=fence)
        self._looks_left = 0
        self._weight_told: int | None = None
        self._has_missed = False
        self._checker = OrderChecker(
            account, writer, clock, ask=self._ask_and_take, tell=self._tell, lag_ms=lambda: self._trail_ms
        )
        self._checked_s = clock.monotonic_s()
        self._outage_gap: int | None = None
        """The gap of the outage that goes on, to be walked from ``_outage_due_s`` (monotonic) on."""
        self._outage_due_s = 0.0
        self._healed_seq: int | None = None
        """Newest journal row when the last gap was closed; None before that."""

    @property
    def _lag_ms(self) -> int:
        """How far REST may trail the stream."""
        return int(self._rules.rest_lag_s * 1000)

    @property
    def _trail_ms(self) -> int:
        """How long before an instant of ours what the venue dates may be unknown to REST."""
        return self._clock.trail_ms(self._rules.rest_lag_s)

    @property
    def _vote_after_s(self) -> float:
        return max(VOTE_AFTER_S, self._trail_ms / 1000)

    async def run(self) -> None:
        """Close gaps, ask for orders that are due and look around quietly, until cancelled."""
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
                if asked_s is None and await self._pause(min(2.0**failures, FAILURE_PAUSE_MAX_S)):
                    failures = 0  # the venue has answered somebody else: it is there again
                pause_s = asked_s or 0.0
            await self._clock.sleep(pause_s)
            if pause_s == KEY_PAUSE_S:
                self._http.retry_key("signed")

    async def _pause(self, pause_s: float) -> bool:
        """Wait after a failure. True: not so long, since the venue has given a good answer to another call."""
        after = self._http.answers
        answered = asyncio.create_task(self._http.until_answered(after))
        passed = asyncio.create_task(self._clock.sleep(pause_s))
        try:
            await asyncio.wait((answered, passed), return_when=asyncio.FIRST_COMPLETED)
            return answered.done()
        finally:
            answered.cancel()
            passed.cancel()

    async def run_once(self) -> bool:
        """Do the most urgent thing there is to do. False: there was nothing.

        Raises VenueError when the venue did not answer; whatever was open is still open.
        """
        has_gaps, checked = await self._check_orders()
        gaps = await self._writer.run(lambda conn: coverage.open_gaps(conn, self._account)) if has_gaps else []
        now_s = self._clock.monotonic_s()
        ended = [gap for gap in gaps if gap.until_ms is not None]
        is_quiet_due = now_s - self._quiet_s >= self._rules.every_s
        # A gap that cannot be closed now leaves every other turn to the periodic pass.
        if ended and not (self._heal_failed and is_quiet_due):
            self._heal_failed = True
            await self.heal(ended)
            self._heal_failed = False
        elif gaps and not ended and await self._walk_outage(gaps[-1]):
            pass
        elif self._rereads:
            await self._reread()
        elif self._vote_s is not None and now_s >= self._vote_s:
            self._vote_s = None
            await self._compare(Outcome(), None)
            await self._judge()
            await self._listen_to_balances()
        elif is_quiet_due:
            self._heal_failed = False
            # Markets that were never walked are the open gap's.
            await self._look_around(known_only=bool(ended))
        elif self._capabilities is not None and now_s >= self._probe_due_s:
            await self._probed()
        elif symbols := await self._holes.due():
            await self.walk(Scope(self._clock.venue_now_ms(), symbols), gap=None, healing=Healing(covers=0))
        else:
            await self._tell_weight()
            return checked > 0
        await self._tell_weight()
        return True

    async def _check_orders(self) -> tuple[bool, int]:
        """Ask for some of the orders that are due. Returns whether a gap is open, and for how many it asked."""
        now_ms = self._clock.venue_now_ms()
        has_gaps, has_checks = await self._writer.run(
            lambda conn: reads.to_do(conn, self._account, now_ms=now_ms, longest_ms=order_checks.LONGEST_PAUSE_MS)
        )
        self._checked_s = self._clock.monotonic_s()
        trades = self._capabilities is not None and self._capabilities.mode == "trades"
        limit = order_checks.BESIDE_BACKFILL_MAX if has_gaps else order_checks.PER_TURN_MAX
        return has_gaps, await self._checker.turn(trades=trades, limit=limit) if has_checks else 0

    async def _check_meanwhile(self) -> None:
        """However long a backfill takes, orders that are due are asked for beside it."""
        if self._clock.monotonic_s() - self._checked_s >= POLL_S:
            await self._check_orders()

    async def _tell_weight(self) -> None:
        used = self._http.weight_used()
        if used != self._weight_told:
            await self._writer.run(lambda conn: coverage.set_weight(conn, self._account, used))
            self._weight_told = used

    async def _known(self, *, missing: bool, in_gap: bool = True) -> Known:
        return await self._writer.run(
            lambda conn: reads.known_state(conn, self._account, missing=missing, in_gap=in_gap)
        )

    async def _head_seq(self) -> int:
        return await self._writer.run(lambda conn: reads.head_seq(conn, self._account))

    async def heal(self, gaps: list[Gap], *, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
        """Walk what all these gaps, oldest first, span, and close them: gaps with an end, none that goes on."""
        ends_ms = [gap.until_ms for gap in gaps if gap.until_ms is not None]
        assert len(ends_ms) == len(gaps), "until an outage is over nobody can know all of it"
        # REST may trail the stream: what happened just before the stream was back must have reached it.
        # None of these gaps ends later than now, whatever a clock said when it was opened.
        fresh_ms = min(max(ends_ms), self._clock.venue_now_ms()) + self._lag_ms
        await self._wait_until(fresh_ms)
        if any(gap.cause == coverage.ASKED_FOR for gap in gaps):
            self._refused.clear()  # whoever asks for it wants all of it asked, what was no market until now too
        quiet_seq = await self._head_seq()
        steps = await self._writer.run(lambda conn: coverage.walked(conn, self._account, gaps[0].gap_id))
        covers = max(gap.gap_id for gap in gaps)
        outcome = await self.walk(
            Scope(self._from_ms(gaps)),
            gap=gaps[0],
            healing=Healing(gaps[0].gap_id, covers, fresh_ms, tuple(steps)),
            on_progress=on_progress or self._progress_teller(gaps[0]),
        )
        unknown = await self._recheck(outcome, gaps[0])
        await self._checker.keep_asking(unknown, uncovered_from_ms=self._from_ms(gaps) or 0)
        for gap in gaps:
            await self._writer.run(partial(self._close_gap, gap=gap))
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
        self._healed_seq = await self._head_seq()
        self._looks_left = LOOKS_MAX
        await self._judge()
        return outcome

    async def _walk_outage(self, gap: Gap) -> bool:
        """While no socket is up REST alone brings rows in: all that the gap spans so far, again at every periodic pass.

        Nothing tells which markets are active now, so every one is asked from where the walk before it came to. The gap
        stays open, and nothing counts as covered by this: it is walked to its end when it has one. False: there is
        nothing to do for it now.
        """
        now_s = self._clock.monotonic_s()
        if self._outage_gap != gap.gap_id:
            self._outage_gap, self._outage_due_s = gap.gap_id, now_s + OUTAGE_PATIENCE_S
        if now_s < self._outage_due_s:
            return False
        log.warning("no socket is up, going on by REST alone", account=self._account, gap=gap.gap_id)
        # A walk that was broken off goes on; markets it had walked to their end are not asked again at once.
        fresh_ms = self._clock.venue_now_ms() - int(self._rules.every_s * 500)
        steps = await self._writer.run(lambda conn: coverage.walked(conn, self._account, gap.gap_id))
        await self.walk(
            Scope(gap.from_ms),
            gap=gap,
            healing=Healing(gap.gap_id, 0, fresh_ms, tuple(steps)),
            on_progress=self._progress_teller(gap),
        )
        self._outage_due_s = self._quiet_s = self._clock.monotonic_s()
        self._outage_due_s += self._rules.every_s
        return True

    async def heal_symbols(
        self, symbols: tuple[str, ...], since_ms: int | None, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Outcome:
        """Walk these symbols alone, from ``since_ms`` (venue clock; None: the beginning). No gap is closed.

        The open gaps that lie in that time have no hole in these markets afterwards.
        """
        gaps = await self._writer.run(lambda conn: coverage.open_gaps(conn, self._account))
        covers, fresh_ms = 0, 0
        for gap in gaps:
            if since_ms is not None and (gap.from_ms is None or gap.from_ms - plan.OVERLAP_MS < since_ms):
                break  # never past a gap that is not walked here
            if gap.until_ms is None:
                break  # the newest, and it goes on
            covers, fresh_ms = gap.gap_id, max(fresh_ms, gap.until_ms + self._lag_ms)
        fresh_ms = min(fresh_ms, self._clock.venue_now_ms() + self._lag_ms)
        await self._wait_until(fresh_ms)
        scope = Scope(since_ms, symbols, strict=True)
        outcome = await self.walk(scope, gap=None, healing=Healing(covers=covers), on_progress=on_progress)
        unknown = await self._still_unclear(outcome.unknown)
        await self._checker.keep_asking(unknown, uncovered_from_ms=since_ms or 0 if covers else None)
        return outcome

    async def _recheck(self, outcome: Outcome, gap: Gap) -> list[tuple[Request, VenueRefused]]:
        """Ask once more for orders that the venue does not know although they were received: REST may trail behind
        itself. Returns those it still does not know."""
        unknown = await self._still_unclear(outcome.unknown)
        hopeful = [request for request, _ in unknown if request.symbol not in outcome.read_whole]
        if not hopeful or len(unknown) > RECHECK_MAX:
            return unknown
        await self._clock.sleep(max(self._rules.rest_lag_s, RECHECK_AFTER_S))
        for request in hopeful:
            try:
                told, page = await self._ask(request, gap)
            except VenueRefused as refused:
                if refusals.ends_walk(refused):
                    raise
            else:
                await self._take(told, page, outcome, gap)
        return await self._still_unclear(unknown)

    async def _still_unclear(self, unknown: list[tuple[Request, VenueRefused]]) -> list[tuple[Request, VenueRefused]]:
        """Those of these orders that neither a list of the venue nor the stream has made clear since, without those of
        which "there is none" agrees with what is known."""
        unknown = await self._checker.settle_agreeing(unknown)
        if not unknown:
            return []
        known = await self._known(missing=False)
        unclear = {*known.open_orders, *known.untold, *known.disputed}
        return [(request, why) for request, why in unknown if (request.symbol, request.order_id) in unclear]

    async def _close_gap(self, conn: Any, gap: Gap) -> bool:
        hidden = self._capabilities is None or self._capabilities.mode != "trades"
        return await coverage.close_gap(
            conn,
            self._account,
            gap.gap_id,
            complete_from_ms=self._rules.history_start_ms,
            moved_ms=gap.until_ms - self._trail_ms if hidden and gap.until_ms is not None else None,
            fence=self._fence,
        )

    async def walk(
        self,
        scope: Scope,
        *,
        gap: Gap | None,
        healing: Healing | None = None,
        quiet: bool = False,
        singly: bool = True,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Ask everything ``plan`` wants for ``scope`` and apply the answers; ends with one account snapshot.

        ``singly``: ask for the trades of each order that lacks some.
        """
        found = await self._probed()
        trades = found.mode == "trades"
        await self._checker.find()
        refused_from, paused = await self._holes.load(None if gap is None else scope.from_ms or 0)
        now_s = self._clock.monotonic_s()
        self._refused = {name: at_s for name, at_s in self._refused.items() if now_s - at_s < PROBE_EVERY_S}
        walk = Walk(
            scope,
            await self._known(missing=False, in_gap=not quiet),
            trades=trades,
            markets=found.has_exchange_info,
            configured=self._rules.symbols,
            now_ms=self._clock.venue_now_ms(),
            refused=frozenset(self._refused),
            holes=refused_from,
            paused=paused,
            healing=healing or Healing(),
            beginning_ms=self._rules.history_start_ms,
            limits=await self._writer.run(lambda conn: coverage.page_limits(conn, self._account)),
        )
        here = _Round(walk, gap, quiet, self._clock.monotonic_s(), on_progress)
        self._new_session()
        here.waiting.extend(walk.first())
        await self._drain(here)
        here.waiting.extend(walk.last(await self._known(missing=trades and singly, in_gap=not quiet)))
        await self._drain(here)
        here.outcome.stuck, here.outcome.read_whole = walk.stuck, walk.read_whole
        await self._holes.settle(walk)
        await self._compare(here.outcome, gap)
        await self._tell_weight()
        return here.outcome

    async def _drain(self, here: _Round) -> None:
        walk, waiting, outcome = here.walk, here.waiting, here.outcome
        while waiting:
            if outcome.answers >= REQUESTS_PER_WALK_MAX:
                raise VenueBusy(f"a walk of more than {REQUESTS_PER_WALK_MAX} answers; going on later")
            await self._check_meanwhile()
            await self._look_meanwhile(here)
            request = waiting.popleft()
            try:
                told, page = await self._ask(request, here.gap)
            except VenueRefused as refused:
                waiting.extend(await self._take_refusal(here, request, refused))
                await self._doubt(walk.doubts())
            else:
                await self._learn_limit(request, walk.limits)
                if here.quiet:
                    await self._listen(page)
                nexts = walk.answered(request, page)
                if request.kind == "openOrders":
                    # Orders that rest no more come first: no market is through as long as one of its own is unclear.
                    waiting.extendleft(reversed(nexts))
                else:
                    waiting.extend(nexts)
                doubts, step = walk.doubts(), walk.step(request, page, told.asked_ms)
                await self._take(told, page, outcome, here.gap, doubts=doubts, step=step)
                if request.symbol is None:
                    is_whole = walk.scope.symbols is None
                    since_ms = walk.scope.from_ms or 0 if is_whole else None
                    await self._holes.question_answered(request, since_ms=since_ms)
            if here.on_progress is not None:
                here.on_progress(self._progress(here))

    async def _learn_limit(self, request: Request, known: Mapping[str, int]) -> None:
        """An answer to a question for fewer rows than usual: the venue had refused to be asked for more."""
        rows = request.limit
        if rows is None or rows >= known.get(request.kind, requests.LIMIT_MAX) or rows >= requests.LIMIT_MAX:
            return
        if self._limits.get(request.kind) == rows:
            return
        self._limits[request.kind] = rows
        log.warning("the venue takes fewer rows a page", account=self._account, kind=request.kind, rows=rows)
        await self._writer.run(lambda conn: coverage.set_page_limit(conn, self._account, request.kind, rows))

    def _progress(self, here: _Round) -> Progress:
        used, limit = self._http.weight_used(), self._http.weight_limit
        elapsed_s = self._clock.monotonic_s() - here.started_s
        pages = here.walk.pages_left()
        return Progress(
            answered=here.outcome.answers,
            waiting=len(here.waiting),
            rows=here.outcome.rows,
            symbols_done=here.walk.symbols_done,
            symbols=len(here.walk.symbols),
            weight_used=used,
            weight_limit=limit,
            elapsed_s=elapsed_s,
            left_s=time_left_s(
                answers=here.outcome.answers,
                elapsed_s=elapsed_s,
                questions=len(here.waiting) + pages,
                weight=sum(request.weight for request in here.waiting) + pages * requests.PAGE_WEIGHT,
                used=used,
                limit=limit,
            ),
        )

    def _progress_teller(self, gap: Gap) -> Callable[[Progress], None]:
        """Says in the log how far a walk is, when it takes long."""
        told_s = 0.0

        def tell(progress: Progress) -> None:
            nonlocal told_s
            if progress.elapsed_s - told_s < TELL_PROGRESS_S:
                return
            told_s = progress.elapsed_s
            what = "first load goes on" if gap.from_ms is None else "walk goes on"
            log.info(what, account=self._account, gap=gap.gap_id, **asdict(progress))

        return tell

    async def _listen(self, page: Page) -> None:
        """Has the stream, live all the time, not told what this answer of a quiet pass tells?

        Looked at twice before the answer is applied: what happened a moment ago may be on its way.
        """
        if self._on_missed is None or self._has_missed or await self._missed_since_ms(page) is None:
            return
        await self._clock.sleep(max(self._rules.rest_lag_s, HEAR_WITHIN_S))
        since_ms = await self._missed_since_ms(page)
        if since_ms is not None:
            self._tell_missed(since_ms)

    async def _listen_to_balances(self) -> None:
        """A balance that moved a while ago and that REST alone told shows a deaf stream, also where no order does."""
        after_seq = self._healed_seq
        if self._on_missed is None or self._has_missed or after_seq is None:
            return
        until_ms = self._clock.venue_now_ms() - self._clock.trail_ms(max(self._rules.rest_lag_s, HEAR_WITHIN_S))
        since_ms = await self._writer.run(
            lambda conn: reads.balance_missed_since_ms(conn, self._account, after_seq=after_seq, until_ms=until_ms)
        )
        if since_ms is not None:
            self._tell_missed(since_ms)

    def _tell_missed(self, since_ms: int) -> None:
        self._has_missed = True
        log.warning("the stream did not bring what REST tells", account=self._account, since_ms=since_ms)
        if self._on_missed is not None:
            self._on_missed(since_ms)

    async def _missed_since_ms(self, page: Page) -> int | None:
        orders = [fact for fact in page.facts if isinstance(fact, Order)]
        fills = [fact for fact in page.facts if isinstance(fact, Fill)]
        if not orders and not fills:
            return None
        return await self._writer.run(lambda conn: reads.missed_since_ms(conn, self._account, orders, fills))

    async def _ask(self, request: Request, gap: Gap | None) -> tuple[Told, Page]:
        """Ask one question. Raises VenueError; an answer that stays unreadable is kept, then UnreadableAnswer."""
        asked_seq = await self._head_seq() if request.kind == "account" else None
        attempt = 1
        while True:
            try:
                answer = await self._asker.ask(request)
            except VenueError as error:
                await self._look_at(request, error)
                raise
            told = Told(request.kind, request.question, answer.asked_ms, answer.body, asked_seq)
            try:
                told = replace(told, parts=await _read(request, answer.body))
                return told, rest_pages.joined([said for _, said in told.parts])
            except UnreadableFrame as error:
                if attempt == UNREADABLE_ANSWERS_MAX:
                    await self._apply(told, (), str(error), gap)
                    raise UnreadableAnswer(f"{request.question}: {error}", status=200, code=None) from None
            attempt += 1

    async def _take(
        self,
        told: Told,
        page: Page,
        outcome: Outcome,
        gap: Gap | None,
        *,
        doubts: Sequence[Doubt] = (),
        step: WalkStep | None = None,
    ) -> None:
        """Apply an answer part by part, with what is to be doubted about it and how far it brings the walk.

        Live frames of the account go in between. Both come with the last part: broken off before, it is asked again.
        """
        for place, (part, said) in enumerate(told.parts, start=1):
            is_last = place == len(told.parts)
            set_aside = [holes.of_row(told.kind, part.question, row) for row in said.set_aside]
            applied = await self._apply(
                replace(told, question=part.question, body=part.body),
                (*said.facts, *set_aside, *(doubts if is_last else ())),
                f"{len(set_aside)} of {said.rows} rows set aside" if set_aside else said.remark,
                gap,
                step if is_last else None,
            )
            outcome.fills_new += applied.fills_new
            outcome.orders_changed += applied.orders_changed
        await self._learn(page)
        outcome.answers += 1
        outcome.rows += page.rows

    async def _apply(
        self,
        told: Told,
        facts: tuple[Fact, ...],
        problem: str | None,
        gap: Gap | None,
        step: WalkStep | None = None,
    ) -> Applied:
        self._frame_no += 1
        now_ms = self._clock.now_ms()
        entry = Entry(self._frame_no, now_ms, told.kind, told.asked_ms, told.body, problem, lay(facts))
        batch = apply.build(
            self._account,
            self._session,
            "rest",
            [entry],
            self._memory,
            gap_id=None if gap is None else gap.gap_id,
            asked_seq=told.asked_seq,
            question=told.question,
            lag_ms=self._trail_ms,
            walk=step,
        )
        try:
            return await self._writer.run(lambda conn: apply.apply(conn, batch, fence=self._fence), rows=batch.rows)
        except Exception as error:
            if not is_refusal(error) or batch.is_bare:
                raise
            problem, sqlstate = refusal(error), sqlstate_of(error)
        # One page must not stop the account: it is kept, listed in quarantine, and coverage ends at what it says.
        log.error("database refused a page", account=self._account, question=told.question, error=problem)
        if told.kind == "note":  # without bytes there is nothing that could be applied later
            bare = batch.without_facts(problem)
        else:
            where = quarantine.hole(facts, source="rest", at_ms=told.asked_ms)
            bare = quarantine.refused(batch, problem, sqlstate, where)
        applied = await self._writer.run(lambda conn: apply.apply(conn, bare, fence=self._fence))
        if told.kind != "note":
            await self._doubt([fact for fact in facts if isinstance(fact, Doubt)])
        return applied

    async def _take_refusal(self, here: _Round, request: Request, refused: VenueRefused) -> list[Request]:
        """What to ask instead. What is refused for good is noted as a hole, and every other question goes on.

        Raises the refusal itself where it concerns every question: the walk ends, its gap stays open.
        """
        walk = here.walk
        said = capabilities.offers(request, capabilities.Outcome(refused.status, refused.code))
        # Without such an endpoint the walk begins again.
        is_absent = said in ("absent", "denied") and not capabilities.proves_key(request)
        if refusals.ends_walk(refused) or is_absent:
            raise refused
        if request.order_id is not None and refused.code in order_checks.UNKNOWN_ORDER:
            log.info(
                "order not found at the venue, asking again later", account=self._account, question=request.question
            )
            here.outcome.unknown.append((request, refused))
            return []
        if (nexts := self._ask_otherwise(walk, request, refused)) is not None:
            return nexts
        await self._note_refusal(here, request, refused)
        return []

    def _ask_otherwise(self, walk: Walk, request: Request, refused: VenueRefused) -> list[Request] | None:
        """The same question in a form the venue may take; None: there is none."""
        if request.kind not in ("allOrders", "myTrades") or refused.code == refusals.UNKNOWN_SYMBOL:
            return None
        if refused.code == refusals.TOO_WIDE and request.order_id is None:
            return walk.too_wide(request)
        if refusals.may_be_about_limit(request, refused):
            if request.limit is not None and request.limit > plan.LIMIT_MIN:
                return walk.smaller(request)
            walk.usual_size(request.kind)
        if refusals.is_about_age(refused):
            nexts = walk.too_old(request, refusals.told_range_ms(refused), self._clock.venue_now_ms())
            if nexts is not None:
                log.warning("the venue does not go back so far", account=self._account, error=str(refused))
                return nexts
        return None

    async def _note_refusal(self, here: _Round, request: Request, refused: VenueRefused) -> None:
        """Keep what the venue would not tell as a hole: of the order, the market, or every market."""
        walk, words = here.walk, str(refused)
        since_ms = None if here.gap is None else walk.scope.from_ms or 0
        if request.order_id is not None:
            await self._holes.order_refused(request, words, uncovered_from_ms=since_ms)
        elif request.symbol is None:
            if request.kind != "exchangeInfo":
                await self._holes.question_refused(request, words, uncovered_from_ms=since_ms)
            log.warning("the venue refuses a question, going on without", account=self._account, error=words)
        elif refused.code == refusals.UNKNOWN_SYMBOL and request.symbol not in walk.known.symbols:
            is_named = request.symbol in self._rules.symbols
            if walk.refuse(request.symbol) or (not is_named and await self._holes.no_market(request.symbol)):
                self._refused[request.symbol] = self._clock.monotonic_s()
            else:
                await self._tell_doubt(Doubt("symbol_refused", request.symbol, None, words, symbol=request.symbol))
        elif isinstance(refused, Unanswered) and walk.is_guess(request.symbol):
            # That does not say that there is no such market.
            walk.refuse(request.symbol)
            await self._holes.market_refused(request.symbol, words, from_ms=walk.scope.from_ms or 0, ends_coverage=True)
        elif (from_ms := walk.refuse_market(request)) is None:
            self._refused[request.symbol] = self._clock.monotonic_s()
        else:
            is_hole = here.gap is not None or request.symbol in walk.holes or request.symbol not in walk.known.covered
            await self._holes.market_refused(request.symbol, words, from_ms=from_ms, ends_coverage=is_hole)

    async def _tell_doubt(self, doubt: Doubt) -> None:
        await self._doubt([doubt])

    async def _doubt(self, doubts: list[Doubt]) -> None:
        """Note what the venue would not tell: a journal row without a body, kept once per content."""
        for doubt in doubts:
            told = Told("note", f"note {doubt.kind} {doubt.subject}", self._clock.venue_now_ms(), b"")
            await self._apply(told, (doubt,), doubt.actual or doubt.subject, None)

    async def _compare(self, outcome: Outcome, gap: Gap | None) -> None:
        """Take one account snapshot and compare. A difference is looked at again, it never holds a gap open."""
        question = requests.account()
        try:
            told, page = await self._ask(question, gap)
        except VenueRefused as refused:
            if refusals.ends_walk(refused):
                raise
            await self._holes.question_refused(question, str(refused), uncovered_from_ms=None)
            return
        await self._take(told, page, outcome, gap)
        await self._holes.question_answered(question, since_ms=None)
        self._compared_ms = told.asked_ms
        ours = await self._writer.run(lambda conn: reads.balances(conn, self._account))
        for fact in page.facts:
            if isinstance(fact, Snapshot):
                outcome.drifts = check.compare(ours, fact)
        if await self._writer.run(lambda conn: reads.snapshot_in_doubt(conn, self._account)):
            self._vote_s = self._clock.monotonic_s() + self._vote_after_s
        if outcome.drifts:
            log.info(
                "balances differ from the venue's snapshot, looking again",
                account=self._account,
                assets=[drift.asset for drift in outcome.drifts],
            )

    async def _judge(self) -> None:
        """Explain the balances of the newest comparison; what is seen once is looked at again soon."""
        self._looks_left -= 1
        # By our own clock alone: the cut must lie after every gap, whose end is told by it too.
        if await self._explainer.judge(self._compared_ms - self._lag_ms, self._tell) and self._looks_left > 0:
            self._vote_s = self._clock.monotonic_s() + self._vote_after_s

    async def _tell(self, name: str, fact: Fact) -> None:
        """Write one fact that comes from no answer, with a journal row that says in words what it is."""
        told = Told("note", f"note {name}", self._clock.venue_now_ms(), b"")
        await self._apply(told, (fact,), name, None)

    async def _ask_and_take(self, request: Request) -> None:
        """Ask one question that belongs to no backfill, and apply its answer."""
        told, page = await self._ask(request, None)
        await self._take(told, page, Outcome(), None)
        if page.set_aside:
            raise UnreadableAnswer(f"{request.question}: {page.set_aside[0].problem}", status=200, code=None)

    async def _look_meanwhile(self, here: _Round) -> None:
        """However long a backfill takes, the periodic pass looks at what is known beside it, without holding it up."""
        since_s = max(self._quiet_s, here.started_s)
        pause_s = max(self._rules.every_s, BESIDE_PAUSE_TIMES * self._quiet_took_s)
        if here.gap is not None and self._clock.monotonic_s() - since_s >= pause_s:
            await self._look_around(known_only=True)

    async def _look_around(self, *, known_only: bool = False) -> None:
        """The quiet periodic pass over what was active lately and a share of everything else.

        ``known_only``: leave out what an open gap is walked for: markets that were never walked, which this would do
        from their first day on, and the trades of orders that lack some.
        """
        began_s = self._clock.monotonic_s()
        known = await self._known(missing=False)
        since_seq = self._quiet_seq
        active = await self._writer.run(lambda conn: reads.active_symbols(conn, self._account, since_seq=since_seq))
        names = plan.quiet_symbols(
            tuple(sorted({*known.symbols, *self._rules.symbols})),
            active,
            pass_no=self._quiet_no,
            every_s=self._rules.every_s,
        )
        if known_only:
            names = tuple(name for name in names if name in known.covered)
        self._quiet_no += 1
        from_ms = self._clock.venue_now_ms() - plan.QUIET_OVERLAP_MS + plan.OVERLAP_MS
        self._has_missed = False
        # A market that was never walked is walked from the beginning here, and known from then on.
        hole_ms = await self._answered_from_ms()
        scope = Scope(from_ms, names) if hole_ms is None else Scope(hole_ms or None)
        outcome = await self.walk(scope, gap=None, healing=Healing(covers=0), quiet=True, singly=not known_only)
        await self._checker.keep_asking(await self._still_unclear(outcome.unknown), uncovered_from_ms=None)
        self._quiet_seq = known.head_seq
        self._quiet_s = self._clock.monotonic_s()
        self._quiet_took_s = self._quiet_s - began_s
        self._looks_left = LOOKS_MAX
        await self._judge()
        await self._listen_to_balances()

    async def _answered_from_ms(self) -> int | None:
        """From where everything is to be walked, now that a question about the whole account is answered again that
        was refused in a gap (venue clock, ms; 0: the beginning). None: there is none."""
        starts = []
        for one in await self._holes.questions():
            if one.uncovered_from_ms is None:
                continue
            request = requests.account() if one.subject.endswith("/account") else requests.open_orders()
            try:
                await self._ask_and_take(request)
            except VenueRefused as refused:
                if refusals.ends_walk(refused):
                    raise
            else:
                starts.append(one.uncovered_from_ms)
        return min(starts, default=None)

    async def _probed(self) -> Capabilities:
        """What the venue offers, probed at start and daily, and soon again while that is not clear."""
        now_s = self._clock.monotonic_s()
        if self._capabilities is None or now_s >= self._probe_due_s:
            known = await self._known(missing=False)
            symbols = (*known.symbols, *self._rules.symbols)
            found = await probe(self._http, symbols, now_s=now_s, before=self._capabilities)
            await self._remember(found)
            self._probed_s = now_s
            self._probe_due_s = now_s + (PROBE_EVERY_S if found.is_sure else PROBE_AGAIN_S)
        assert self._capabilities is not None
        return self._capabilities

    async def _look_at(self, request: Request, error: VenueError) -> None:
        """A walk's question that fails is a look at its endpoint too: one that not every key may ask holds up nothing.

        The walk begins again without it where it is said to be absent, and where nothing is clear after a probe that
        finds no market with it. Raises VenueBusy then.
        """
        if capabilities.proves_key(request) or self._capabilities is None:
            return
        now_s, said = self._clock.monotonic_s(), None
        if isinstance(error, VenueRefused):
            said = capabilities.offers(request, capabilities.Outcome(error.status, error.code))
        if said is None:
            # One market without answers may stay so for days.
            self._probe_due_s = min(self._probe_due_s, max(now_s, self._probed_s + PROBE_AGAIN_S))
            is_trades = request.kind == "myTrades" and isinstance(error, Unanswered)
            if is_trades and (await self._probed()).mode != "trades":
                raise VenueBusy(f"{error}; going on without trades")
        elif said != "offered" and request.kind == "myTrades":
            seen = capabilities.look(self._capabilities.trades, said, now_s)
            await self._remember(replace(self._capabilities, trades=seen))
            self._probe_due_s = now_s + PROBE_AGAIN_S

    async def _learn(self, page: Page) -> None:
        """Order objects tell by their fields how much can be recovered, exchangeInfo which assets markets trade."""
        await self._explainer.learn(page.markets)
        if page.markets:
            for symbol in await self._holes.listed(market.symbol for market in page.markets):
                self._refused.pop(symbol, None)
        if self._capabilities is not None and page.fields - self._capabilities.order_fields:
            await self._remember(capabilities.learn(self._capabilities, page.fields))

    async def _remember(self, found: Capabilities) -> None:
        if self._mode is None:
            self._mode = await self._writer.run(lambda conn: reads.mode(conn, self._account))
        if self._capabilities is None or self._mode != found.mode:
            await self._writer.run(lambda conn: coverage.set_mode(conn, self._account, found.mode))
            log.info("recovery mode", account=self._account, mode=found.mode, sure=found.trades.is_sure)
        self._rereads = self._rereads or (found.mode == "trades" and self._mode not in (None, "trades"))
        self._mode, self._capabilities = found.mode, found

    async def _reread(self) -> None:
        """The venue tells its trades now and did not before: ask for those of every order that lacks some."""
        walk = Walk(Scope(None, (), strict=True), await self._known(missing=False), trades=True)
        here = _Round(walk, None, quiet=False, started_s=self._clock.monotonic_s(), on_progress=None)
        self._new_session()
        asked: set[tuple[str, int]] = set()
        for _ in range(REREADS_MAX):
            known = await self._known(missing=True)
            some = [key for key in known.missing if key not in asked][: plan.SINGLES_MAX]
            if not some:
                break
            asked.update(some)
            here.waiting.extend(requests.my_trades(symbol, order_id=order_id) for symbol, order_id in some)
            await self._drain(here)
        self._rereads = False
        log.info("missing executions asked for", account=self._account, fills_found=here.outcome.fills_new)

    def _from_ms(self, gaps: list[Gap]) -> int | None:
        starts = [gap.from_ms for gap in gaps if gap.from_ms is not None]
        return min(starts) if len(starts) == len(gaps) else None

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


async def _read(request: Request, body: bytes) -> tuple[tuple[Part, Page], ...]:
    """The answer in parts, each read; in between others have their turn. Raises UnreadableFrame."""
    read: list[tuple[Part, Page]] = []
    for part in rest_pages.parts(request, body, ROWS_PER_CALL_MAX):
        read.append((part, rest_pages.read_part(request, part)))
        await asyncio.sleep(0)
    return tuple(read)
