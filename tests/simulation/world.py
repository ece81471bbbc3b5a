"""One seed from its first event to its verdict: trouble, healing, and the question whether everything holds.

Always holds: the same seed makes the same events, to the last digit of the log's hash; the world ends, whatever the
program does: trouble is bounded, healing has a deadline, and a loop that turns in a circle is found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest import mock
from uuid import UUID

import structlog

from ledger import quarantine
from ledger.db import coverage
from ledger.reconcile import plan, refusals, runner
from ledger.sandbox import rest as sandbox_rest
from ledger.sandbox.books import Event, Movement, Report
from ledger.sandbox.market import Market, live_through
from ledger.sandbox.rest import DAY_MS
from ledger.stream import consumer
from ledger.venue import capabilities, requests
from ledger.wire.postgres import Writer
from tests.simulation import checks
from tests.simulation.checks import Broken
from tests.simulation.database import Database, Server
from tests.simulation.loop import SimLoop, Stuck
from tests.simulation.mirror import Mirror, asked_for_walk, rendered, wired
from tests.simulation.scenario import REFUSED_MARKETS, Harm, Scenario
from tests.simulation.venue import START_MS, YEAR_9999_MS, Spoilt, Venue, Wire

HEALED_WITHIN_S = 600.0
"""How long after the last harm everything must hold again, beside what the weight budget holds up."""
WALKS_TO_HEAL = 3
"""So often may all history be read until then: for a gap, by periodic passes beside it, for single orders."""
LOOK_EVERY_S = 3.0
PULSE_EVERY_S = 60.0
LINGER_S = 40.0
QUARANTINED_S = 30.0
"""How long after the last harm everything that had come is written, refused or not."""
WATCH_EVERY_S = 4.0
RESTART_S = 0.7
LOG_LINES_MAX = 400_000
COIN = "AIR"
OTHER_COIN = "DUST"
HOUR_MS = 3_600_000
MEANT = frozenset(
    {-1001, -1003, -1006, -1007, -1008, -1016, -1021, -1022, -1121, -1127, -2011, -2013, -2014, -2015, -2026, -5000}
)
"""Codes that say more than that a question is refused."""
NO_ANSWER = -1001
"""What the venue says when something inside it gave it no answer."""
MEMORY = Path("/dev/shm")
"""Where small files cost nothing, on systems that have it."""


@dataclass(slots=True)
class Outcome:
    """What became of a seed. ``failure`` None: everything held."""

    seed: int
    digest: str
    failure: Broken | None
    harm: Counter[str]
    kills: int
    events: int
    virtual_s: float
    healed_s: float
    touches: int
    lines: list[str] = field(default_factory=list, repr=False)


class World:
    """Everything there is in one seed. ``kill_at``: the first process is killed at that touch, and another started."""

    def __init__(
        self,
        scenario: Scenario,
        server: Server,
        account: str,
        *,
        keep_lines: bool = False,
        kill_at: int | None = None,
    ) -> None:
        self.scenario = scenario
        self.account = account
        self.loop = SimLoop()
        self.rng = Random(f"world {scenario.seed}")
        self.harm: Counter[str] = Counter()
        self.kills = 0
        self.healed_s = 0.0
        self.lines: list[str] = []
        self.events = 0
        self._keep_lines = keep_lines
        self._kill_at = kill_at
        self.data_dir = Path()
        self._hash = hashlib.blake2b(digest_size=8)
        self._clean: set[tuple[str, int]] = set()
        market = Market(scenario.seed)
        if scenario.history:
            live_through(market, scenario.history, START_MS - scenario.history_days * DAY_MS, START_MS)
        self.history_fills = frozenset(market.books.fills)
        self.twins = _twins(scenario)
        self.database = Database(server, self.loop, self._stream("database"), self.log, account)
        self.venue = Venue(
            self.loop,
            self._stream("venue"),
            self.log,
            market,
            scenario.dialect,
            key_ttl_s=scenario.settings.key_ttl_s,
            weight_per_minute=scenario.venue_weight,
            budget=scenario.settings.weight_per_minute,
            may_double=self._may_double,
        )
        self._cap_pages()
        self.served_from_ms = 0
        """Before that the venue tells nothing and does not say so."""
        self._cut_history()
        self._leave_out_a_market()
        self.listed_late = self.venue.rest.unlisted
        self.venue.rest.hides_rejected = scenario.hides_rejected
        self.venue.rest.archived_after_s = scenario.archived_after_s
        self.mirrors: list[Mirror] = []
        self.memory = checks.Memory()
        self.breach: Broken | None = None
        self.alone_since_s = 0.0
        """Since when, at each look, one and the same process ran undisturbed and no socket was up."""
        self.alone_fence = 0
        """Under which number that process led."""
        self._watched: Mirror | None = None
        self._asked: list[asyncio.Task[None]] = []
        """Walks that were asked for."""

    @property
    def may_trust_clock(self) -> bool:
        """Whether no clock of a process is far off, which only a refused question would tell it."""
        return abs(self.scenario.wall_off_ms) < 1000 and "jump" not in self.scenario.kinds

    @property
    def may_trust_coverage(self) -> bool:
        """Whether coverage can be honest: clocks are right, frames come within the time REST may lag, and no loss stays
        unnoticed for a while (which a gap that reaches back mends)."""
        hidden = {"late", "trade_before_frame", "lose_frames", "deafen", "pause", "silence", "expire_key"}
        return self.may_trust_clock and not self.scenario.kinds & hidden

    @property
    def guesses_doubles(self) -> bool:
        """Whether a doubled frame may pass for a lost fill of its size until the trades tell."""
        return bool(self.venue.done["frame_doubled"])

    def run(self) -> Outcome:
        """The whole story of the seed."""
        failure: Broken | None = None
        try:
            asyncio.set_event_loop(self.loop)
            with (
                tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as data_dir,
                uncollected(),
                seeded(self._stream("uuid")),
                at_scale(self.scenario),
                silence(),
                wired(self.database, self.venue, self._stream("consumers")),
            ):
                self.data_dir = Path(data_dir)
                try:
                    self.loop.run_until_complete(self._story())
                except Broken as broken:
                    failure = broken
                except Stuck as stuck:
                    failure = Broken("liveness: the world goes on", str(stuck))
                finally:
                    touches = self.mirrors[0].process.touches if self.mirrors else 0
                    virtual_s = self.loop.time()
                    self._keep_lines, digest = False, self._hash.hexdigest()
                    self.database.restore()
                    self.loop.bury([mirror.process for mirror in self.mirrors])
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()
        harm = self.harm + self.venue.done + self.database.done
        return Outcome(
            self.scenario.seed,
            digest,
            failure,
            harm,
            self.kills,
            self.events,
            virtual_s,
            self.healed_s,
            touches,
            self.lines,
        )

    def log(self, line: str) -> None:
        """One event of the world, which every run of the seed must repeat."""
        text = f"{self.loop.time():12.6f} {line}"
        self._hash.update(text.encode())
        self.events += 1
        if self._keep_lines and len(self.lines) < LOG_LINES_MAX:
            self.lines.append(text)

    # --- the story

    async def _story(self) -> None:
        first = self.start_mirror()
        if self._kill_at is not None:
            first.process.kill_at = self._kill_at
            first.process.on_killed.append(self._start_soon)
        trading = self.loop.create_task(self._trade())
        watching = self.loop.create_task(self._watch())
        for harm in self.scenario.harm:
            await self._until(harm.at_s)
            self.log(f"harm {harm.kind} {harm.count} {harm.seconds}")
            self._do_harm(harm)
        await self._until(self.scenario.duration_s)
        await trading
        self._heal()
        if "db_content" in self.scenario.kinds:
            await self._apply_quarantined()
        refused = frozenset(self.venue.rest.refused)
        if refused:
            await self._healed_but_for_the_refused()
        if self.venue.rest.history_days is not None:
            await self._healed_but_for_the_past(refused)
        if self.listed_late or "history_cut" in self.scenario.kinds:
            await self._ask_for_walk(START_MS - 2 * self.scenario.history_days * DAY_MS)
            self.served_from_ms = 0
        await self._healthy()
        watching.cancel()
        await self.database.ask(lambda conn: checks.verified(conn, self))
        if self.breach is not None:
            raise self.breach
        if self.scenario.lingers:
            await asyncio.sleep(LINGER_S)
            await self._judge()

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.loop.time()))

    async def _trade(self) -> None:
        coin_s = self.scenario.coin_s
        moves = [] if coin_s is None else [(coin_s[0], self._coin_comes), (coin_s[1], self._coin_goes)]
        for at_s, happen in sorted(
            [*((at_s, self.venue.trade) for at_s in self.scenario.actions), *moves], key=itemgetter(0)
        ):
            await self._until(at_s)
            happen()

    def _coin_comes(self) -> None:
        self.venue.move(COIN, Decimal("1234.50000000"))

    def _coin_goes(self) -> None:
        """All of it: an account snapshot does not list it any more."""
        self.venue.move(COIN, -self.venue.books.free(COIN))

    @property
    def _is_undisturbed(self) -> bool:
        """Whether a process runs that nothing keeps from telling how it is."""
        running = self._running()
        return len(running) == 1 and not running[0].process.paused and not self.database.is_harmed

    async def _watch(self) -> None:
        """While the trouble lasts: what must hold at any moment. A breach waits to be told at the end."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            is_up = self.venue.live() or self.loop.time() < self.venue.farewell_s
            if is_up or not self._is_undisturbed or self._running()[0] is not self._watched:
                self.alone_since_s = self.loop.time()
                self._watched = next(iter(self._running()), None)
            try:
                await self.database.ask(lambda conn: checks.always(conn, self))
            except Broken as broken:
                self.breach = self.breach or broken
                self.log(f"breach {broken.invariant}")

    def _heal(self) -> None:
        """No more harm; whoever is paused goes on, and if nobody runs somebody is started."""
        self.log("heal")
        self.venue.heal()
        self.database.heal()
        for mirror in self.mirrors:
            if self._kill_at is None:
                mirror.process.kill_at = None
            if mirror.process.paused:
                self.loop.resume(mirror.process)
        if not any(mirror.is_running() for mirror in self.mirrors):
            self.start_mirror()

    async def _apply_quarantined(self) -> None:
        """What was kept without its facts is taken now, and somebody asks for it, once all is written that had come."""
        await asyncio.sleep(QUARANTINED_S)

        class Direct:
            """A writer whose work is done at once."""

            def __init__(self, conn: Any) -> None:
                self._conn = conn

            async def run(self, work: Callable[[Any], Any], **_: int) -> Any:
                return await work(self._conn)

        now_ms = self.venue.now_ms()
        await self.database.ask(lambda conn: quarantine.retry(cast(Writer, Direct(conn)), self.account, now_ms=now_ms))

    async def _healthy(self) -> None:
        """Wait until everything holds. Raises Broken, with what did not, when the time is up."""
        began_s = self.loop.time()
        pulse_s = began_s + PULSE_EVERY_S
        if self.scenario.loses_silently:
            await self._ask_for_walk()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for mirror in self.mirrors:
                if mirror.failure is not None:
                    raise Broken("the mirror never fails by itself", rendered(mirror.failure))
            try:
                await self._judge()
                break
            except Broken:
                if self.loop.time() - began_s > self._healed_within_s:
                    raise
                if self.loop.time() > pulse_s and any(wire.deaf for wire in self.venue.live()):
                    # A deaf socket shows only by what it does not bring: without trade nobody could know.
                    self.venue.trade()
                    pulse_s = self.loop.time() + PULSE_EVERY_S
        self.healed_s = self.loop.time() - began_s

    async def _healed_but_for_the_refused(self) -> None:
        """Every gap closes though the venue goes on refusing to tell of a market; then it tells of that one too."""
        await self._gaps_closed("a refusal stops nothing but its question")
        refused = frozenset(self.venue.rest.refused)
        await self.database.ask(lambda conn: checks.covered_but_for(conn, self, refused))
        self.log("the venue tells of every market again")
        self.venue.rest.refused.clear()

    async def _healed_but_for_the_past(self, refused: frozenset[str]) -> None:
        """Every gap closes though the venue does not tell what is old, and nothing of it is claimed; then it tells.

        ``refused``: markets that it told nothing of until now.
        """
        await self._gaps_closed("what is too old to be served stops nothing")
        await self.database.ask(lambda conn: checks.covered_but_for_the_past(conn, self, refused))
        self.log("the venue tells of everything again")
        self.venue.rest.history_days = None

    async def _gaps_closed(self, invariant: str) -> None:
        """Wait until no gap is open. Raises Broken when the time is up.

        A socket that is up and hears nothing shows in no gap before it is found out: until then it is waited for too,
        and for the gap that it leaves. Where losses are silent for good nobody finds it out.
        """
        until_s = self.loop.time() + self._healed_within_s
        hears = self.venue.subscribed() or self.scenario.loses_silently
        while (gaps := await self.database.ask(lambda conn: coverage.open_gaps(conn, self.account))) or not hears:
            if self.loop.time() > until_s:
                raise Broken(invariant, f"gaps {[gap.gap_id for gap in gaps]} are open" if gaps else "no socket hears")
            hears = self.venue.subscribed() or self.scenario.loses_silently
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def _healed_within_s(self) -> float:
        """``HEALED_WITHIN_S`` and the time in which the weight budget lets those walks through.

        That is long where the budget is small and pages are short: every page repeats the last row of the one before.
        """
        books, rest = self.venue.books, self.venue.rest
        told = [*books.orders.values(), *(books.fills.values() if self.scenario.dialect.trades else ())]
        rows = max(1, min(self.scenario.page_rows, rest.rows_max) - 1)
        pages = sum(-(-count // rows) + 1 for count in Counter((type(row), row.symbol) for row in told).values())
        minutes = WALKS_TO_HEAL * pages * requests.PAGE_WEIGHT / self.scenario.settings.weight_per_minute
        return HEALED_WITHIN_S + 60 * minutes

    async def _ask_for_walk(self, since_ms: int = START_MS) -> None:
        """Frames a healthy socket never delivered are found when somebody asks for it, once the stream is up."""
        await asyncio.sleep(self.scenario.settings.key_ttl_s + self.scenario.settings.silence_s)
        await self.database.ask(lambda conn: asked_for_walk(conn, self.account, self.venue, since_ms))

    async def _judge(self) -> None:
        await self.database.ask(lambda conn: checks.in_the_end(conn, self))

    # --- processes

    def start_mirror(self) -> Mirror:
        mirror = Mirror(
            f"m{len(self.mirrors) + 1}",
            self.account,
            self.scenario.settings,
            self.data_dir,
            self.loop,
            self.venue,
            self._stream(f"mirror {len(self.mirrors)}"),
            self.scenario.wall_off_ms,
        )
        mirror.process.on_killed.append(self._killed)
        if self.may_trust_clock and self.database.silent_until_ms:
            self.venue.silent_until_s[mirror.process.name] = (self.database.silent_until_ms - START_MS) / 1000 - 1
        self.mirrors.append(mirror)
        self.log(f"start {mirror.process.name}")
        mirror.start()
        return mirror

    def _killed(self) -> None:
        if not self.loop.closing:
            self.kills += 1

    def _start_soon(self) -> None:
        self.loop.outside(RESTART_S, self._start_again)

    def _running(self) -> list[Mirror]:
        return [mirror for mirror in self.mirrors if mirror.is_running()]

    # --- harm

    def _do_harm(self, harm: Harm) -> None:
        chance = Random(harm.chance)
        if (spoil := _SPOILERS.get(harm.kind)) is not None:
            self.venue.spoilt += [spoil(chance) for _ in range(harm.count)]
            return
        if harm.kind in ("db_grants", "db_function", "db_content"):
            self.database.refuse(harm.kind.removeprefix("db_"), chance, harm.seconds)
            return
        if harm.kind.startswith("db_") and harm.kind not in ("db_away", "db_slow"):
            self.database.harm(harm.kind.removeprefix("db_"), min(harm.count, 2 if "lock" in harm.kind else 8))
            return
        self.harm[harm.kind] += 1
        getattr(self, f"_{harm.kind}")(harm, chance)

    def _cut(self, harm: Harm, chance: Random) -> None:
        """Often nobody is let in again at once."""
        _cut_all(self.venue.live())
        if chance.random() < 0.4:
            self.venue.refused_until_s = self.loop.time() + chance.uniform(0.5, 4.0)

    def _cut_one(self, harm: Harm, chance: Random) -> None:
        if wires := self.venue.live():
            chance.choice(wires).cut()

    def _hang_up(self, harm: Harm, chance: Random) -> None:
        code = chance.choice((1000, 1001, 1006 + 5, 1008, 1012, 3000))
        for wire in self.venue.live():
            wire.hang_up(code)

    def _shutdown(self, harm: Harm, chance: Random) -> None:
        self.venue.push(b'{"e":"serverShutdown","E":%d}' % self.venue.now_ms())
        doomed = self.venue.live()
        self.loop.outside(harm.seconds, _cut_all, doomed)

    def _silence(self, harm: Harm, chance: Random) -> None:
        for wire in self.venue.live():
            wire.silent = True

    def _deafen(self, harm: Harm, chance: Random) -> None:
        for wire in self.venue.live():
            wire.deaf = True

    def _refuse_sockets(self, harm: Harm, chance: Random) -> None:
        self.venue.refused_until_s = self.loop.time() + harm.seconds

    def _expire_key_told(self, harm: Harm, chance: Random) -> None:
        self.venue.expire_key(announce=True)

    def _expire_key(self, harm: Harm, chance: Random) -> None:
        self.venue.expire_key(announce=False)

    def _double(self, harm: Harm, chance: Random) -> None:
        self.venue.doubling = harm.count * 3

    def _unreadable(self, harm: Harm, chance: Random) -> None:
        self.venue.unreadable = harm.count

    def _empty_fields(self, harm: Harm, chance: Random) -> None:
        self.venue.empty_until_s = self.loop.time() + harm.seconds * 2

    def _amend(self, harm: Harm, chance: Random) -> None:
        for number in range(harm.count):
            self.loop.outside(0.01 + 0.3 * number, self.venue.amend, chance)

    def _lose_frames(self, harm: Harm, chance: Random) -> None:
        self.venue.losing = harm.count

    def _disorder(self, harm: Harm, chance: Random) -> None:
        self.venue.disorder_until_s = self.loop.time() + harm.seconds

    def _late(self, harm: Harm, chance: Random) -> None:
        """Frames come late, and then often the connection breaks with those still on their way."""
        self.venue.late_until_s = self.loop.time() + harm.seconds
        self.venue.late_s = chance.choice((0.3, 0.5 * self.scenario.overlap_s, 0.9 * self.scenario.overlap_s))
        if chance.random() < 0.7:
            wires = self.venue.live()
            self.loop.outside(harm.seconds, _cut_all, wires)

    def _garbage(self, harm: Harm, chance: Random) -> None:
        self.venue.spread_garbage("all")

    def _oversize(self, harm: Harm, chance: Random) -> None:
        self.venue.spread_garbage("oversize")

    def _rest_down(self, harm: Harm, chance: Random) -> None:
        self.venue.rest_down_until_s = self.loop.time() + harm.seconds

    def _deny_trades(self, harm: Harm, chance: Random) -> None:
        """The key has no permission for trades, or loses it for a while; everything else answers."""
        self.venue.denied_until_s = self.loop.time() + harm.seconds * 2

    def _no_key(self, harm: Harm, chance: Random) -> None:
        """No listen key is given any more, and often the sockets end with the one there was."""
        self.venue.no_key_until_s = self.loop.time() + harm.seconds * 3
        if chance.random() < 0.8:
            self.venue.rest.keys.key = None
            _cut_all(self.venue.live())

    def _rest_lag(self, harm: Harm, chance: Random) -> None:
        lag_s = self.scenario.settings.rest_lag_s * chance.choice((0.5, 0.9))
        self.venue.fall_behind(lag_s, partly=chance.random() < 0.5)

    def _not_found(self, harm: Harm, chance: Random) -> None:
        self.venue.rest.not_found = harm.count

    def _odd_endings(self, harm: Harm, chance: Random) -> None:
        self.venue.market.odd_endings = harm.count

    def _db_away(self, harm: Harm, chance: Random) -> None:
        self.database.go_away(harm.seconds)

    def _db_slow(self, harm: Harm, chance: Random) -> None:
        self.database.slowness = 300.0
        self.loop.outside(harm.seconds, self._db_fast_again)

    def _db_fast_again(self) -> None:
        self.database.slowness = 1.0

    def _kill(self, harm: Harm, chance: Random) -> None:
        """At one of the next touches with the outside world; somebody starts it again."""
        for mirror in self._running():
            mirror.process.kill_at = mirror.process.touches + chance.randint(1, 60)
        self.loop.outside(RESTART_S + chance.choice((0.0, 0.5, harm.seconds)), self._start_again)

    def _start_again(self) -> None:
        for mirror in self._running():
            if mirror.process.kill_at is not None:
                mirror.process.kill()
        if not self._running():
            self.start_mirror()

    def _stop(self, harm: Harm, chance: Random) -> None:
        async def stop() -> None:
            for mirror in self._running():
                await mirror.stop()
            await asyncio.sleep(harm.seconds)
            if not self._running():
                self.start_mirror()

        self.loop.create_task(stop())

    def _pause(self, harm: Harm, chance: Random) -> None:
        """SIGSTOP; often another starts meanwhile, and then both go on."""
        paused = [mirror for mirror in self._running() if not mirror.process.paused]
        for mirror in paused:
            mirror.process.paused = True
        if chance.random() < 0.6:
            self.start_mirror()

        def go_on() -> None:
            for mirror in paused:
                if mirror.process.paused:
                    self.loop.resume(mirror.process)

        self.loop.outside(harm.seconds, go_on)

    def _second(self, harm: Harm, chance: Random) -> None:
        """Two processes write one account for a while; one of them is killed then."""
        if len(self._running()) > 1:
            return
        self.start_mirror()

        def only_one() -> None:
            running = self._running()
            if len(running) > 1:
                chance.choice(running).process.kill()

        self.loop.outside(harm.seconds * 2, only_one)

    def _jump(self, harm: Harm, chance: Random) -> None:
        """The wall clock of every process jumps."""
        for mirror in self._running():
            mirror.clock.wall_off_ms += chance.choice((-90_000, 90_000, -1_000, 1_000))

    def _page_cap(self, harm: Harm, chance: Random) -> None:
        """In force from the first page on, see ``_cap_pages``: within a walk a venue's pages get no shorter."""

    def _limit_refused(self, harm: Harm, chance: Random) -> None:
        """Likewise."""

    def _refuse_market(self, harm: Harm, chance: Random) -> None:
        """For good, until everything else was seen to be healed; often while the stream is cut.

        Some markets' questions are not refused but never answered.
        """
        code = chance.choice([code for code in range(-9999, -999) if code not in MEANT])
        if Random(f"unanswered {harm.chance}").random() < 1 / 3:
            code = NO_ANSWER
        self.venue.rest.refused[chance.choice(REFUSED_MARKETS)] = code
        if chance.random() < 0.6:
            self._cut(harm, chance)

    def _odd_rows(self, harm: Harm, chance: Random) -> None:
        """Some rows of REST cannot be read for a while, often while the stream is cut."""
        self.venue.odd_until_s = self.loop.time() + harm.seconds + 8.0
        self.venue.odd_every = chance.choice((1, 2, 5))
        if chance.random() < 0.6:
            self._cut(harm, chance)

    def _cap_pages(self) -> None:
        """Pages are shorter than asked for, without a word or because the limit is refused."""
        harm = next((one for one in self.scenario.harm if one.kind in ("page_cap", "limit_refused")), None)
        if harm is not None:
            self.venue.rest.rows_max = max(2, self.scenario.page_rows // Random(harm.chance).choice((2, 10, 20)))
            self.venue.rest.refuses_limits = harm.kind == "limit_refused"

    def _history_cut(self, harm: Harm, chance: Random) -> None:
        """In force from the first question on, see ``_cut_history``, until everything else was seen to be healed."""

    def _cut_history(self) -> None:
        """Of what is older than some days nothing is served: a question for it is refused, or it is left out."""
        harm = next((one for one in self.scenario.harm if one.kind == "history_cut"), None)
        if harm is not None:
            chance = Random(harm.chance)
            days = chance.choice((2, 7, 14) if self.scenario.history_days < 90 else (7, 30, 90))
            self.venue.rest.history_days, self.venue.rest.refuses_age = days, chance.random() < 0.7
            if not self.venue.rest.refuses_age:
                self.served_from_ms = START_MS - days * DAY_MS + HOUR_MS

    def _leave_out_a_market(self) -> None:
        """exchangeInfo does not list one market, where orders may be; often the venue does not know it at all."""
        harm = next((one for one in self.scenario.harm if one.kind == "list_late"), None)
        if harm is not None:
            chance = Random(harm.chance)
            self.venue.rest.unlisted = frozenset({chance.choice(REFUSED_MARKETS)})
            self.venue.rest.denies_unlisted = chance.random() < 0.5

    def _list_late(self, harm: Harm, chance: Random) -> None:
        """The market is listed, see ``_leave_out_a_market``."""
        self.venue.rest.unlisted = frozenset()

    def _coin_unheard(self, harm: Harm, chance: Random) -> None:
        """An asset that nobody trades comes, and later all of it goes while no socket is up."""
        self.venue.move(OTHER_COIN, Decimal("77.70000000"))

        def go() -> None:
            self._unhear(1.0)
            if free := self.venue.books.free(OTHER_COIN):
                self.venue.move(OTHER_COIN, -free)

        self.loop.outside(harm.seconds, go)

    def _twin_in_lag(self, harm: Harm, chance: Random) -> None:
        """Two executions that differ in nothing but the trade id, of which REST does not know yet."""
        self.venue.fall_behind(0.9 * self.scenario.settings.rest_lag_s)
        if (key := self.venue.resting(3)) is not None:
            self.loop.outside(0.5, self.venue.hit, key, 3, 2)

    def _lost_then_canceled(self, harm: Harm, chance: Random) -> None:
        """The stream misses an execution of an order; later it tells the next one, and at once that it was canceled."""
        if (key := self.venue.resting(6)) is None:
            return

        def go_on() -> None:
            self.venue.hit(key, 3)
            self.venue.cancel(key)

        self._unhear(1.0)
        self.venue.hit(key, 3)
        self.loop.outside(6.0 + harm.seconds, go_on)

    def _trade_before_frame(self, harm: Harm, chance: Random) -> None:
        """A walk reads an execution before its frame comes, which later ones overtake, so that it comes alone."""
        if not self.venue.live() or (key := self.venue.resting(3)) is None:
            return
        self.venue.overtaken_s = self.scenario.settings.rest_lag_s + 3.0
        self.venue.hit(key, 3)
        self.venue.overtaken_s = 0.0
        walk = self.database.ask(lambda conn: asked_for_walk(conn, self.account, self.venue, START_MS))
        self._asked.append(self.loop.create_task(walk))

    def _unhear(self, for_s: float) -> None:
        """No socket is up for so long."""
        _cut_all(self.venue.live())
        self.venue.refused_until_s = max(self.venue.refused_until_s, self.loop.time() + for_s)

    def _begin_anew(self, harm: Harm, chance: Random) -> None:
        """Where no trades are offered nobody knows whether a late fill is part of an order that was over long ago."""
        if not self.scenario.dialect.trades:
            return
        self.venue.begin_anew(chance, harm.count + 2)

    def _wrong_date(self, harm: Harm, chance: Random) -> None:
        """For some seconds every answer's Date is hours off, or of the year 9999."""
        self.venue.date_off_ms = chance.choice((2 * HOUR_MS, -2 * HOUR_MS, YEAR_9999_MS))
        self.venue.date_wrong_until_s = self.loop.time() + harm.seconds

    def _went_back(self, harm: Harm, chance: Random) -> None:
        """The database fails over to a standby that has been behind since now."""
        self.database.remember()

        self.loop.outside(harm.seconds, self._fail_over)

    def _fail_over(self) -> bool:
        """True: the database went back. The row of an outage may be lost with it, and is found missing in a while."""
        if not self.database.go_back():
            return False
        self.memory = checks.Memory()
        self.alone_since_s = self.loop.time()
        self.log("database went back")
        return True

    def _went_back_away(self, harm: Harm, chance: Random) -> None:
        """Likewise, then nobody is connected for a while: the process is killed, or database or sockets are away."""
        self.database.remember()

        def fail_over() -> None:
            if self._fail_over():
                self.harm["database_went_back_and_away"] += 1
                away_s = chance.uniform(1.0, 12.0)
                how = chance.choice(("killed", "database", "sockets"))
                if how == "killed":
                    for mirror in self._running():
                        mirror.process.kill()
                    self.loop.outside(away_s, self._start_again)
                elif how == "database":
                    self.database.go_away(away_s)
                else:
                    _cut_all(self.venue.live())
                    self.venue.refused_until_s = self.loop.time() + away_s

        self.loop.outside(harm.seconds, fail_over)

    # --- what may be doubled

    def _may_double(self, event: Event) -> bool:
        if isinstance(event, Movement):
            return False  # two are two: nothing but the positions tells a doubled one
        if not isinstance(event, Report):
            return True
        key = event.order.key
        if event.execution == "NEW" and any(wire.open for wire in self.venue.wires):
            self._clean.add(key)
        if event.fill is None or event.order.status == "FILLED" or self.scenario.dialect.trades:
            return True
        # An amendment makes the market go another way than it was foreseen, and so do other actions from outside.
        moves = {"amend", "begin_anew", "twin_in_lag", "lost_then_canceled", "trade_before_frame"}
        foreseen = not self.scenario.kinds & moves and key not in self.twins
        return self.scenario.doubles_fills and key in self._clean and foreseen

    def _stream(self, name: str) -> Random:
        return Random(f"{name} {self.scenario.seed}")


def _cut_all(wires: list[Wire]) -> None:
    for wire in wires:
        wire.cut()


def _status(chance: Random) -> Spoilt:
    return Spoilt("status", chance.choice(("", "/order", "allOrders", "userDataStream")), chance.choice((500, 503)))


def _banned(chance: Random) -> Spoilt:
    return Spoilt("status", "", chance.choice((429, 429, 418)), retry_after=chance.choice((1, 5, 20)))


_OPTIONAL = ("myTrades", "exchangeInfo", "time")
"""Calls the venue does not document: what it says of them is a guess until it is clear."""
_SPOILERS: dict[str, Callable[[Random], Spoilt]] = {
    "rest_status": _status,
    "rest_html": lambda chance: Spoilt("html"),
    "rest_cut": lambda chance: Spoilt("cut", chance.choice(("", "allOrders", "account"))),
    "rest_slow": lambda chance: Spoilt("slow", slow_s=chance.choice((0.5, 3.0, 12.0))),
    "rest_lost": lambda chance: Spoilt(chance.choice(("lost", "broken"))),
    "rest_banned": _banned,
    "rest_odd": lambda chance: Spoilt("odd", chance.choice(_OPTIONAL), chance.choice((200, 403))),
}


def _twins(scenario: Scenario) -> frozenset[tuple[str, int]]:
    """Orders that will have two fills equal in everything the documented stream tells: the market acts by its seed."""
    market = Market(scenario.seed)
    if scenario.history:
        live_through(market, scenario.history, START_MS - scenario.history_days * DAY_MS, START_MS)
    seen: set[object] = set()
    twins: set[tuple[str, int]] = set()
    for number in range(len(scenario.actions)):
        for event in market.step(START_MS + number):
            if isinstance(event, Report) and event.fill is not None:
                fill = event.fill
                content = (fill.symbol, fill.order_id, event.order.status, fill.time_ms, fill.qty, fill.price, fill.fee)
                if content in seen:
                    twins.add(event.order.key)
                seen.add(content)
    return frozenset(twins)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """What nobody holds any more is cleaned up afterwards: the collector runs when it likes, and what it finalizes
    (generators, tasks) would run in the middle of the story."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        gc.collect()


@contextlib.contextmanager
def seeded(rng: Random) -> Iterator[None]:
    """Session ids come from the seed."""

    def uuid4() -> UUID:
        return UUID(int=rng.getrandbits(128), version=4)

    with contextlib.ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            if name.startswith("ledger.") and hasattr(module, "uuid4"):
                stack.enter_context(mock.patch.object(module, "uuid4", uuid4))
        yield


@contextlib.contextmanager
def at_scale(scenario: Scenario) -> Iterator[None]:
    """Sizes as small as the world is short: pages of few rows, batches of few frames, overlaps of seconds."""
    rows = scenario.page_rows
    limit: dict[str, Any] = {"limit": rows}
    with (
        mock.patch.object(plan, "OVERLAP_MS", int(plan.OVERLAP_MS * scenario.overlap_s / 60)),
        mock.patch.object(plan, "QUIET_OVERLAP_MS", int(plan.QUIET_OVERLAP_MS * scenario.overlap_s / 60)),
        mock.patch.object(consumer, "FRAMES_PER_CALL_MAX", scenario.batch_max),
        mock.patch.object(refusals, "FIRST_PAUSE_MS", 1_000),
        mock.patch.object(refusals, "LONGEST_PAUSE_MS", 30_000),
        mock.patch.object(requests, "LIMIT_MAX", rows),
        mock.patch.object(runner, "ROWS_PER_CALL_MAX", max(1, rows // 3)),
        mock.patch.object(runner, "PROBE_AGAIN_S", 6.0),
        mock.patch.object(runner, "OUTAGE_PATIENCE_S", 3.0),
        mock.patch.object(capabilities, "ABSENT_AFTER_S", 3.0),
        mock.patch.object(sandbox_rest, "ROWS_MAX", rows),
        mock.patch.object(sandbox_rest, "ROWS_DEFAULT", rows),
        mock.patch.dict(requests.all_orders.__kwdefaults__ or {}, limit),
        mock.patch.dict(requests.my_trades.__kwdefaults__ or {}, limit),
    ):
        yield


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """The program's logs are not what is looked at here."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent
