"""Known mistakes, switched on one at a time: the simulation must catch every one of them.

A plant is a change of SQL text in an installed function (the snippet must be there exactly once) or of a Python
attribute (which must exist). One that no longer fits the program is an error, never a silent pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
from msgspec import structs

from ledger.db import coverage, order_checks, quarantine, reads, rows
from ledger.db.apply import WalkStep
from ledger.db.quarantine import Hole
from ledger.db.refusals import FRAMES_OVERLAP
from ledger.errors import VenueBusy
from ledger.facts.identity import SessionMemory
from ledger.reconcile import holes, plan, refusals, runner
from ledger.reconcile import order_checks as order_rules
from ledger.reconcile.checker import OrderChecker
from ledger.reconcile.course import Course, PageSize
from ledger.reconcile.plan import Walk
from ledger.reconcile.runner import Reconciler
from ledger.sandbox.dialects import DIALECTS
from ledger.stream import consumer
from ledger.stream.consumer import Consumer
from ledger.stream.lease import ListenKeyLease
from ledger.venue import capabilities, frames, stream_events
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page
from ledger.wire import postgres
from ledger.wire.budget import Budget
from ledger.wire.http import Answer, VenueHttp
from ledger.wire.offset import Offset, Reading
from ledger.wire.socket import Connection
from ledger.wire.tip import Tip
from tests.simulation.database import Server
from tests.simulation.scenario import choose

Patch = Callable[[], AbstractContextManager[Any]]


class DoesNotFit(Exception):
    """A plant's snippet or name is not in the program as it expects: the plant must be written anew."""


@dataclass(frozen=True, slots=True)
class Plant:
    """One mistake. ``sql``: function of schema ledger, snippet, replacement; ``python``: a patch while it lasts."""

    name: str
    sql: tuple[str, str, str] | None = None
    python: Patch | None = None
    needs: str | None = None
    """The kind of harm that reaches it, which its seeds get in any case."""
    dialects: tuple[str, ...] = ()
    """Those in which it can show; none named: in any."""

    def reaches(self, seed: int) -> bool:
        """Whether this seed has the harm that it needs, and a dialect in which it can show."""
        story = choose(seed, self.needs)
        return self.needs in {None, *story.kinds} and story.dialect.name in (self.dialects or DIALECTS)


@contextmanager
def planted(plant: Plant | None, server: Server) -> Iterator[None]:
    """The mistake is in the program and in this database meanwhile."""
    if plant is None:
        yield
        return
    with _sql(plant, server), plant.python() if plant.python else nullcontext():
        yield


@contextmanager
def _sql(plant: Plant, server: Server) -> Iterator[None]:
    if plant.sql is None:
        yield
        return
    function, snippet, replacement = plant.sql
    definition = server.run(
        server.own.fetch(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'ledger'::regnamespace"
            " AND p.proname = $1",
            function,
        )
    )
    found = sum(row[0].count(snippet) for row in definition)
    if len(definition) != 1 or found != 1:
        raise DoesNotFit(f"{plant.name}: {found} times in {len(definition)} functions {function}: {snippet!r}")
    whole = definition[0][0]
    wrong = whole.replace(snippet, replacement)
    if function == "apply":
        # Most frames come alone and would go around it.
        if wrong.count(_ALONE) != 1:
            raise DoesNotFit(f"{plant.name}: {wrong.count(_ALONE)} times in apply: {_ALONE!r}")
        wrong = wrong.replace(_ALONE, f"{_ALONE} false AND")
    server.run(server.own.execute(wrong))
    try:
        yield
    finally:
        server.run(server.own.execute(whole))


def _attribute(owner: Any, name: str, new: Any) -> Patch:
    return lambda: mock.patch.object(owner, name, new)


# --- the stream


def _one_memory() -> AbstractContextManager[Any]:
    """Ordinals are counted over all sessions, not within each."""
    shared: WeakKeyDictionary[Any, SessionMemory] = WeakKeyDictionary()

    def memory() -> SessionMemory:
        return shared.setdefault(asyncio.get_running_loop(), SessionMemory())

    return mock.patch.object(consumer, "SessionMemory", memory)


def _one_session() -> AbstractContextManager[Any]:
    """All sockets of a process count as one session, each with frame numbers of its own."""
    begin = Connection.__init__

    def init(self: Connection, wire: Any, buffer: Any, clock: Any, silence_s: float) -> None:
        begin(self, wire, buffer, clock, silence_s)
        first = getattr(clock, "first_session", None) or self.session_id
        clock.first_session = self.session_id = first

    return mock.patch.object(Connection, "__init__", init)


def _covered_to_now() -> AbstractContextManager[Any]:
    """What REST may not know yet counts as covered."""
    through = Consumer._through_ms

    def early(self: Consumer) -> int | None:
        told = through(self)
        return told if not told else told + int(self._rules.rest_lag_s * 1000) + 2000

    return mock.patch.object(Consumer, "_through_ms", early)


def _covered_before_written() -> AbstractContextManager[Any]:
    """Time counts as covered though frames of it still wait to be written."""
    through = Consumer._through_ms

    def early(self: Consumer) -> int | None:
        with mock.patch.object(self, "_buffer", ()):
            return through(self)

    return mock.patch.object(Consumer, "_through_ms", early)


def _one_date_is_believed() -> AbstractContextManager[Any]:
    """Any single answer moves the venue's clock."""

    def hear(self: Offset, reading: Reading, **_: Any) -> None:
        if not reading.agrees(self.ms):
            self.set(reading.offset_ms, reading.error_ms, reading.at_s)

    return mock.patch.object(Offset, "hear", hear)


@contextmanager
def _lost_tail_unnoticed() -> Iterator[None]:
    """A database that lost what it had confirmed is taken as it is."""
    with (
        mock.patch.object(Tip, "check", _at_once),
        mock.patch.object(Tip, "lost_by", _says_no),
        mock.patch.object(Tip, "expect", _says_no),
    ):
        yield


def _gap_after_the_beat() -> AbstractContextManager[Any]:
    """The stream counts as live before the gap over the lost tail is opened."""
    went_back = Tip._went_back

    async def late(self: Tip, conn: Any, found_seq: int, not_after_ms: int) -> None:
        now_ms = self._clock.venue_now_ms()
        await conn.fetchval("SELECT ledger.beat($1, $2)", self._account, now_ms)
        await went_back(self, conn, found_seq, now_ms)

    return mock.patch.object(Tip, "_went_back", late)


def _sessions_go_on() -> AbstractContextManager[Any]:
    """Frames keep their numbers although those before them were lost with the database's tail."""

    def go_on(self: Consumer) -> None:
        self._writer.go_on()

    return mock.patch.object(Consumer, "_begin_sessions_anew", go_on)


async def _never(*_: Any) -> None:
    await asyncio.get_running_loop().create_future()


# --- reconciling


def _closed_first() -> AbstractContextManager[Any]:
    """A gap is closed before it is walked."""
    heal = Reconciler.heal

    async def early(self: Reconciler, gaps: Any, **options: Any) -> Any:
        for gap in gaps:
            await self._writer.run(partial(self._close_gap, gap=gap))
        return await heal(self, gaps, **options)

    return mock.patch.object(Reconciler, "heal", early)


def _errors_are_empty() -> AbstractContextManager[Any]:
    """An error of the venue is read as a page without rows."""
    send = VenueHttp.send

    async def patient(self: VenueHttp, request: Request, **_: Any) -> Answer:
        try:
            return await send(self, request)
        except VenueBusy:
            now_ms = self._clock.venue_now_ms()
            return Answer(200, b"[]", {}, now_ms, now_ms)

    return mock.patch.object(VenueHttp, "send_patiently", patient)


def _starts_are_exclusive() -> AbstractContextManager[Any]:
    """The next page starts after the last row's millisecond."""

    move = Course._move

    def after(self: Course, page: Page) -> Iterator[Any]:
        start_ms = self.start_ms
        yield from move(self, page)
        if self.start_ms != start_ms:
            self.start_ms += 1

    return mock.patch.object(Course, "_move", after)


def _only_first_page(self: Course, _page: Page) -> Iterator[Any]:
    self._end_window()
    return iter(())


def _nothing_is_a_hole() -> AbstractContextManager[Any]:
    """A row that cannot be read is noted, and ends no coverage."""
    of_row = holes.of_row

    def noted(kind: str, question: str, row: Any) -> Any:
        return structs.replace(of_row(kind, question, row), uncovered_from_ms=None)

    return mock.patch.object(holes, "of_row", noted)


def _whole_history() -> AbstractContextManager[Any]:
    """That the venue refused to go back further is forgotten."""
    step = Walk.step

    def bold(self: Walk, *args: Any) -> WalkStep | None:
        told = step(self, *args)
        return told and replace(told, served_from_ms=None)

    return mock.patch.object(Walk, "step", bold)


def _is_full_as_asked(self: PageSize, rows: int) -> bool:
    return rows >= self.limit


def _says_no(*_: Any) -> bool:
    return False


def _says_yes(*_: Any) -> bool:
    return True


def _names_none(*_: Any) -> list[str]:
    return []


@contextmanager
def _symbols_of_yesterday() -> Iterator[None]:
    """Only symbols known before are walked."""
    with (
        mock.patch.object(Walk, "_wants", _says_no),
        mock.patch.object(Walk, "_candidates", _names_none),
    ):
        yield


def _spend(self: Budget, weight: int, now_s: float, *, spare: int = 0, paced: bool = True) -> float:
    """Only the pace is kept."""
    if paced and (pace_s := self._pace_s(now_s)) > 0:
        return pace_s
    self._in_flight += weight
    if paced:
        self._sent.append(now_s)
    return float(spare * 0)


def _broken_walks_are_done() -> AbstractContextManager[Any]:
    """What an earlier walk began counts as walked."""
    walked = coverage.walked

    async def all_done(conn: Any, account: str, gap_id: int) -> list[WalkStep]:
        return [replace(step, done=True, asked_ms=2**60) for step in await walked(conn, account, gap_id)]

    return mock.patch.object(coverage, "walked", all_done)


def _lag_ignored() -> AbstractContextManager[Any]:
    """Orders are asked for though REST may not know of their newest move yet."""
    due = order_checks.due

    async def early(conn: Any, account: str, *, now_ms: int, **options: Any) -> Any:
        return await due(conn, account, **options | {"now_ms": now_ms + 3_600_000, "lag_ms": 0})

    return mock.patch.object(order_checks, "due", early)


def _checks_forgotten() -> AbstractContextManager[Any]:
    """A process that starts asks for nothing that the one before it had to ask for."""
    turn, find = OrderChecker.turn, OrderChecker.find
    started: WeakSet[OrderChecker] = WeakSet()

    async def forget(self: OrderChecker) -> None:
        if self not in started:
            started.add(self)
            await self._writer.run(
                lambda conn: conn.execute(
                    "UPDATE ledger.order_checks SET due_ms = NULL WHERE account = $1", self._account
                )
            )

    async def forgetful(self: OrderChecker, **options: Any) -> int:
        await forget(self)
        return await turn(self, **options)

    async def finding(self: OrderChecker) -> None:
        await forget(self)
        await find(self)

    return mock.patch.multiple(OrderChecker, turn=forgetful, find=finding)


def _is_archived(code: int | None, *_: Any) -> bool:
    return code == order_rules.ARCHIVED


async def _nothing(*_: Any, **__: Any) -> list[Any]:
    return []


async def _none(*_: Any, **__: Any) -> None:
    return None


async def _at_once(*_: Any) -> None:
    return None


def _fees_dropped() -> AbstractContextManager[Any]:
    """Fills without their fee."""
    row = rows._fill

    def poor(index: int, fill: Any) -> Any:
        return row(index, structs.replace(fill, fee="0"))

    return mock.patch.object(rows, "_fill", poor)


@contextmanager
def _errors_are_content() -> Iterator[None]:
    """Whatever the database says against the work is taken for a word about its content, unless it is away."""
    passing = (*postgres.AWAY, *postgres.CONFLICT)

    def refuses(error: BaseException) -> bool:
        return (
            isinstance(error, asyncpg.PostgresError)
            and not isinstance(error, passing)
            and error.sqlstate not in (postgres.FENCED, FRAMES_OVERLAP)
        )

    with (
        mock.patch.object(postgres, "is_refusal", refuses),
        mock.patch.object(consumer, "is_refusal", refuses),
        mock.patch.object(runner, "is_refusal", refuses),
    ):
        yield


TRADELESS = tuple(name for name, dialect in DIALECTS.items() if not dialect.trades)
_ALONE = "v_alone boolean :="
_CONFIRMED = "CASE WHEN u.trade_id IS NULL AND u.ordinal > 1 THEN 'provisional' ELSE 'confirmed' END"
_MERGED = "o.symbol = coalesce(f.symbol, s.symbol) AND "
_NEWEST = "(excluded.as_of_ms, excluded.k, excluded.free, excluded.locked) > (t.as_of_ms, t.k, t.free, t.locked)"

PLANTS = {
    plant.name: plant
    for plant in (
        # identity
        Plant("key without the symbol", ("apply", _MERGED, "")),
        Plant("ordinal dropped", python=_attribute(SessionMemory, "ordinal", lambda *_, **__: 1)),
        Plant("ordinal over all sessions", python=_one_memory),
        Plant("two sockets share a session", python=_one_session),
        Plant(
            "provisional fills count at once",
            ("apply", _CONFIRMED, "'confirmed'"),
            needs="double",
            dialects=TRADELESS,
        ),
        Plant(
            "a twin that comes alone counts at once",
            ("land_alone", "p_fill.ordinal > 1", "false"),
            needs="double",
            dialects=TRADELESS,
        ),
        Plant(
            "a frame that comes alone claims no trade",
            ("land_alone", "f.trade_id IS NOT NULL", "false"),
            needs="trade_before_frame",
            dialects=("mixed",),
        ),
        Plant(
            "a resent batch is new",
            ("apply", "IF v_frame_no = p_frame_no AND last_seq - first_seq + 1 >= v_frames THEN", "IF false THEN"),
        ),
        Plant("trades never claim stream fills", ("land_fill", "IF NOT FOUND THEN", "IF true THEN")),
        Plant("claims are forgotten", ("land_fill", "v_displaced := c;", "RETURN false;")),
        Plant("fees are dropped", python=_fees_dropped),
        # merging
        Plant("last arrival wins balances", ("apply", f"WHERE {_NEWEST}", "WHERE true")),
        Plant("a snapshot overwrites newer", ("bring_snapshot", "v_ms IS NOT NULL AND v_ms > s.as_of_ms", "true")),
        Plant("an absent asset is not zeroed", ("bring_snapshot", "FULL JOIN", "LEFT JOIN"), needs="coin_unheard"),
        Plant(
            "the last status wins",
            ("apply", "o.account IS NULL OR coalesce(\n                       f.top >", "true OR coalesce(\n f.top >"),
        ),
        Plant(
            "a frame that comes alone has the last word",
            ("move_alone", "WHERE t.status_rank < 3\n      AND (", "WHERE true OR ("),
        ),
        Plant(
            "executed is the last told",
            ("apply", "greatest(o.venue_executed_qty, f.executed)", "coalesce(f.executed, o.venue_executed_qty)"),
        ),
        Plant(
            "a late fill on a closed order is ignored",
            (
                "apply",
                "WHERE u.ordinality = ANY (v_fresh)\n",
                "WHERE u.ordinality = ANY (v_fresh) AND NOT EXISTS (SELECT FROM ledger.orders z"
                " WHERE z.account = p_account AND z.symbol = u.symbol AND z.order_id = u.order_id"
                " AND z.status_rank = 3)\n",
            ),
        ),
        Plant(
            "settled before REST knows",
            ("apply", "o.updated_ms > v_venue_ms[(s ->> 'frame')::integer] - p_lag_ms", "false"),
            _lag_ignored,
            needs="twin_in_lag",
            dialects=TRADELESS,
        ),
        Plant(
            "orders that lost fills are not asked again",
            (
                "find_order_checks",
                "'missing_fills', o.updated_ms FROM ledger.orders o\n        WHERE o.account = p_account AND",
                "'missing_fills', o.updated_ms FROM ledger.orders o\n        WHERE false AND o.account = p_account AND",
            ),
            needs="lost_then_canceled",
            dialects=TRADELESS,
        ),
        Plant("order checks are forgotten at a restart", python=_checks_forgotten),
        Plant("a rejected order is expected of REST", python=_attribute(order_rules, "agrees", _is_archived)),
        Plant("one look is enough", ("observe", "RETURN NULL;", "RETURN true;"), needs="rest_lag"),
        Plant("the pace is ignored", python=_attribute(Budget, "_pace_s", lambda *_: 0.0)),
        Plant("order checks are never due", python=_attribute(order_checks, "due", _nothing)),
        # gaps and coverage
        Plant("no overlap", python=_attribute(plan, "OVERLAP_MS", 0)),
        Plant("a walk broken off counts as done", python=_broken_walks_are_done),
        Plant(
            "a gap starts where the stream is back",
            ("open_gap", "least(v_mark, v_until_ms, p_not_after_ms)", "coalesce(v_until_ms, p_now_ms)"),
        ),
        Plant("a gap is closed before it is walked", python=_closed_first),
        Plant("a gap is walked before REST knows", python=_attribute(Reconciler, "_wait_until", _at_once)),
        Plant("coverage runs ahead of REST", python=_covered_to_now),
        Plant("coverage runs ahead of the rows", python=_covered_before_written),
        Plant("the fence is not compared", ("lock_account", "p_fence <> v_fence", "false")),
        # reconciling
        Plant("an error is an empty page", python=_errors_are_empty),
        Plant("only the first page", python=_attribute(Course, "_move", _only_first_page)),
        Plant("pages start after the last row", python=_starts_are_exclusive),
        Plant("symbols are not discovered", python=_symbols_of_yesterday),
        # the listen key, silence, manners
        Plant("a lost key goes unnoticed", python=_attribute(ListenKeyLease, "_lose", lambda *_: None)),
        Plant("a deaf socket goes unnoticed", python=_attribute(Consumer, "doubt", lambda *_: None)),
        Plant("silence goes unnoticed", python=_attribute(Connection, "_watch", _never)),
        Plant("Retry-After is ignored", python=_attribute(Budget, "block", lambda *_: False), needs="rest_banned"),
        Plant(
            "a ban is forgotten at a restart", python=_attribute(reads, "blocked_until_ms", _none), needs="rest_banned"
        ),
        Plant("the weight budget is ignored", python=_attribute(Budget, "reserve", _spend)),
        # never claim what is not known
        Plant(
            "a refusal ends the walk", python=_attribute(refusals, "ends_walk", lambda *_: True), needs="refuse_market"
        ),
        Plant("coverage passes over what was set aside", python=_nothing_is_a_hole, needs="odd_rows"),
        Plant("history that is cut counts as whole", python=_whole_history, needs="history_cut"),
        Plant("ids that begin anew are merged", ("anew_after_ms", "86400000", "8640000000000"), needs="begin_anew"),
        Plant(
            "a short page is the last", python=_attribute(PageSize, "may_be_full", _is_full_as_asked), needs="page_cap"
        ),
        Plant(
            "no gap row until a socket is up",
            python=_attribute(Consumer, "_is_lasting", lambda *_: None),
            needs="no_key",
        ),
        Plant(
            "401 anywhere refuses the key",
            python=_attribute(capabilities, "proves_key", _says_yes),
            needs="deny_trades",
        ),
        Plant(
            "an unreadable report is not followed up",
            python=_attribute(stream_events, "left_open", lambda *_: []),
            needs="unreadable",
        ),
        Plant(
            "a describing field costs the row",
            python=_attribute(frames, "_DESCRIBING", frozenset()),
            needs="empty_fields",
        ),
        Plant(
            "the first quantity wins",
            ("apply", "o.orig_qty <> f.new_orig AND v.newer THEN f.new_orig", "false THEN f.new_orig"),
            needs="amend",
        ),
        # clocks
        Plant("one Date is believed", python=_one_date_is_believed, needs="wrong_date"),
        Plant("any error of the database is about content", python=_errors_are_content, needs="db_grants"),
        Plant(
            "what is quarantined is no hole",
            python=_attribute(quarantine, "hole", lambda *_, **__: Hole()),
            needs="db_content",
        ),
        # a database that went back
        Plant("the lost tail goes unnoticed", python=_lost_tail_unnoticed, needs="went_back"),
        Plant("the gap over the lost tail starts at the beat after", python=_gap_after_the_beat, needs="went_back"),
        Plant("sessions go on after the lost tail", python=_sessions_go_on, needs="went_back"),
    )
}
