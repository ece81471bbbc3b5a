"""What to ask the venue, decided from values.

Pure: no clock, no I/O. A ``Walk`` is told every answer and says what to ask next; when it has nothing left to ask,
the stretch of time it was made for is complete in the mode at hand. Absence proves nothing: an order open here and
absent from openOrders is asked for by itself. Pages overlap on purpose (inclusive starts); merges make that free.

A market that was never walked before is walked from the beginning, whatever the stretch (a mere guess only once it
shows orders): so every market of ``coverage`` is known from one and the same day on. Every answer of a gap's walk comes
with a ``WalkStep``; a walk that is given the steps of one that was broken off goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ledger.db.apply import WalkStep
from ledger.db.reads import Known, OrderKey
from ledger.facts.types import Doubt, Fill, Order, Snapshot
from ledger.reconcile.course import DAY_MS, UNREACHABLE, Course, PageSize
from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page

OVERLAP_MS = 60_000
"""A walk reaches this far back before its gap: REST may have lagged when the stream was last heard."""
QUIET_OVERLAP_MS = 900_000
"""The quiet periodic pass asks for the last 15 minutes again."""
CANDIDATES_MAX = 60
"""Symbols guessed from the assets held that one walk may try."""
SINGLES_MAX = 100
"""Orders one walk asks for singly, and orders whose missing trades it asks for: the rest waits for the next walk."""
DAY_S = 86_400
LIMIT_MIN = 2
"""Rows of a page that are never halved further."""

_KINDS = ("allOrders", "myTrades")

# What assets are usually priced in, tried in this order when a symbol must be guessed from the assets held.
_QUOTES = ("USDT", "USDC", "BTC", "ETH", "BNB", "EUR", "USD")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a walk covers: from ``from_ms`` (None: the beginning) on; ``symbols`` None: every symbol there is.

    ``strict``: the user named the symbols, so not even one never seen before is walked beside them.
    """

    from_ms: int | None
    symbols: tuple[str, ...] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Healing:
    """What a walk is for. ``gap_id``: the oldest gap it heals, which remembers its steps (None: there is none).

    ``covers``: a market walked to its end is known over every gap up to this one (None: nothing is known by it).
    ``fresh_ms``: answers asked for since then (venue clock) tell everything that is to be healed. ``steps``: those of
    the walk that was broken off.
    """

    gap_id: int | None = None
    covers: int | None = None
    fresh_ms: int = 0
    steps: tuple[WalkStep, ...] = ()


@dataclass(slots=True)
class Walk:
    """The state of one walk. ``trades``, ``markets``: the venue has myTrades, exchangeInfo. ``configured``: symbols
    the user named. ``now_ms``: when it began, venue clock. ``beginning_ms``: how far back to go at all; None: to the
    first order there is."""

    scope: Scope
    known: Known
    trades: bool
    markets: bool = False
    configured: tuple[str, ...] = ()
    now_ms: int = 0
    refused: frozenset[str] = frozenset()
    """Guesses that the venue refused lately: not guessed again, walked like any other once something names them."""
    holes: Mapping[str, int] = field(default_factory=dict)
    """Markets it refused to tell of and that are asked for again, each with the start of its hole (venue clock, ms)."""
    paused: frozenset[str] = frozenset()
    """Markets it refused to tell of and that are left alone in this walk."""
    healing: Healing = field(default_factory=Healing)
    beginning_ms: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    """Rows to ask for by kind of question, where the venue refused to be asked for LIMIT_MAX."""
    stuck: list[str] = field(default_factory=list)
    """What the venue's paging could not be made to tell or told askew, in words."""
    _courses: dict[tuple[str, str], Course] = field(default_factory=dict)
    _sizes: dict[str, PageSize] = field(default_factory=dict)
    _symbols: set[str] = field(default_factory=set)
    _untold: set[str] = field(default_factory=set)
    _guesses: set[str] = field(default_factory=set)
    _listed: dict[str, None] | None = None
    _asked: set[str] = field(default_factory=set)
    _confirmed: set[OrderKey] = field(default_factory=set)
    _doubts: list[Doubt] = field(default_factory=list)

    def first(self) -> list[Request]:
        """What to ask before anything is known: the resting orders, the account, then symbol by symbol."""
        firsts = [requests.open_orders()]
        if self.markets and self._everywhere:
            firsts.append(requests.exchange_info())
        firsts.append(requests.account())
        if self.scope.symbols is None:
            firsts += self._walk_symbols((*self.known.symbols, *self.configured))
        else:
            firsts += self._walk_symbols(self.scope.symbols)
        return self._fresh(firsts)

    def answered(self, request: Request, page: Page) -> list[Request]:
        """What an answer makes necessary, without what was asked before."""
        nexts: list[Request] = []
        for fact in page.facts:
            if isinstance(fact, Order):
                self._confirmed.add((fact.symbol, fact.order_id))
            if isinstance(fact, Order | Fill) and self._wants(fact.symbol):
                nexts += self._walk_symbols((fact.symbol,))
            if isinstance(fact, Snapshot) and self._everywhere:
                guesses = self._candidates(fact)
                self._guesses.update(guesses)
                nexts += self._walk_symbols(guesses)
        if request.kind == "openOrders":
            absent = [key for key in self.known.open_orders if key not in self._confirmed]
            nexts += [requests.query_order(symbol, order_id) for symbol, order_id in absent]
        elif request.kind == "exchangeInfo":
            self._listed = dict.fromkeys(market.symbol for market in page.markets)
        elif request.kind in _KINDS:
            nexts += self._next_page(request, page)
        return self._fresh(nexts)

    def step(self, request: Request, page: Page, asked_ms: int) -> WalkStep | None:
        """How far the walk has come with the answer that was just told; to be kept along with its rows, or None."""
        course = self._course(request)
        if course is None or course.has_holes:
            return None  # a walk that starts again must meet the hole again
        covers = self.healing.covers if self._is_through(course.symbol) else None
        if self.healing.gap_id is None and covers is None:
            return None
        # REST may lag: rows of the last minute before the question may have been left out.
        sure_ms = max(0, min(asked_ms, course.end_ms or asked_ms) - OVERLAP_MS)
        served = [one.served_from_ms for one in self._courses_of(course.symbol) if one.served_from_ms is not None]
        return WalkStep(
            gap_id=self.healing.gap_id,
            symbol=course.symbol,
            kind=course.kind,
            start_ms=sure_ms if course.done else min(course.start_ms, sure_ms),
            end_ms=None if course.done else course.end_ms,
            asked_ms=asked_ms,
            done=course.done,
            rows=page.rows,
            covers=covers,
            from_ms=self.scope.from_ms if self.scope.strict and self.scope.from_ms is not None else self.beginning_ms,
            served_from_ms=max(served, default=None),
        )

    def doubts(self) -> list[Doubt]:
        """What is to be doubted since this was last asked."""
        doubts, self._doubts = self._doubts, []
        return doubts

    def too_wide(self, request: Request) -> list[Request]:
        """The venue takes no open end (-1127)."""
        course = self._course(request)
        assert course is not None, "only a course asks with an open end"
        self._doubt(course.too_wide())
        return [] if course.done else [course.question]

    def too_old(self, request: Request, range_ms: int | None, now_ms: int) -> list[Request] | None:
        """What to ask where the venue goes back ``range_ms`` (None: it did not say) and no further; None: nothing."""
        course = self._course(request)
        if course is None or course.question != request or not course.too_old(range_ms, now_ms):
            return None
        return [course.question]

    def smaller(self, request: Request) -> list[Request]:
        """Ask with half the rows, here and in every question of this kind: that may be what the venue refused."""
        assert request.limit is not None, "only pages have limits"
        size = self._size(request.kind)
        size.limit = min(size.limit, max(LIMIT_MIN, request.limit // 2))
        return self._fresh([request.with_limit(size.limit)])

    def usual_size(self, kind: str) -> None:
        """It was not the number of rows that the venue refused."""
        self._size(kind).limit = self._usual_limit(kind)

    def _usual_limit(self, kind: str) -> int:
        return min(self.limits.get(kind, requests.LIMIT_MAX), requests.LIMIT_MAX)

    def refuse(self, symbol: str) -> bool:
        """The venue does not know this symbol. True when that was only our guess."""
        self._symbols.discard(symbol)
        for kind in _KINDS:
            self._courses.pop((symbol, kind), None)
        return symbol in self._guesses

    def is_guess(self, symbol: str) -> bool:
        """Whether nothing but the assets held, or the list of all markets, speaks for this one."""
        return symbol in self._guesses

    def refuse_market(self, request: Request) -> int | None:
        """The venue refused a question about a market: start of what it does not tell (venue clock, ms).

        None: the market was a mere guess, which is dropped.
        """
        course = self._course(request)
        if request.symbol is None or request.symbol in self._guesses or course is None:
            self.refuse(request.symbol or "")
            return None
        course.done, course.has_holes = True, True
        self._untold.add(course.symbol)
        return max(0, course.start_ms)

    def told_from_ms(self) -> dict[str, int]:
        """Markets asked for in this walk of which no question was refused and none is left, each with the latest start
        of its questions (venue clock, ms)."""
        undone = {course.symbol for course in self._courses.values() if not course.done}
        told: dict[str, int] = {}
        for course in self._courses.values():
            if course.symbol not in undone | self._untold | self._guesses:
                told[course.symbol] = max(told.get(course.symbol, 0), course.begin_ms)
        return told

    def read_from_ms(self) -> dict[tuple[str, str], int]:
        """(symbol, kind) of what was told without a hole, with the start from where (venue clock, ms)."""
        ended = {key: course for key, course in self._courses.items() if course.done and not course.has_holes}
        return {key: course.begin_ms for key, course in ended.items()}

    def last(self, known: Known) -> list[Request]:
        """What the walk itself turned up: orders disputed, still untold or unconfirmed; executions without a fill."""
        here = self.scope.symbols if self.scope.strict else None
        unsure = [key for key in (*known.untold, *known.open_orders) if key not in self._confirmed]
        singles = [key for key in dict.fromkeys((*known.disputed, *unsure)) if here is None or key[0] in here]
        lasts = [requests.query_order(symbol, order_id) for symbol, order_id in singles[:SINGLES_MAX]]
        if self.trades:
            missing = [key for key in known.missing if here is None or key[0] in here]
            limit = self._size("myTrades").limit
            lasts += [
                requests.my_trades(symbol, order_id=order_id, limit=limit) for symbol, order_id in missing[:SINGLES_MAX]
            ]
        return self._fresh(lasts)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols walked so far, guesses included."""
        return tuple(sorted(self._symbols))

    @property
    def symbols_done(self) -> int:
        """How many of them are walked to their end."""
        return len(self._symbols - {course.symbol for course in self._courses.values() if not course.done})

    def pages_left(self) -> float:
        """Pages of history still to come beyond the questions that are known, as far as anybody can tell.

        A course that has begun goes on at its pace: as many pages per stretch of time as so far. One that has not is
        taken for as long as the average of those that have ended.
        """
        ended = [course.pages for course in self._courses.values() if course.done and course.pages]
        usual = sum(ended) / len(ended) if ended else 1.0
        told = [course.pages_left() for course in self._courses.values() if not course.done]
        return sum(max(0.0, (usual if pages is None else pages) - 1.0) for pages in told)

    @property
    def _everywhere(self) -> bool:
        """Whether nobody named the symbols: then one that was first traded in the gap must be found too."""
        return self.scope.symbols is None

    def _wants(self, symbol: str) -> bool:
        if self.scope.strict:
            return self.scope.symbols is None or symbol in self.scope.symbols
        return self.scope.symbols is None or symbol not in self.known.symbols

    def _course(self, request: Request) -> Course | None:
        """The course a question belongs to; trades of a single order belong to none."""
        if request.symbol is None or request.order_id is not None:
            return None
        return self._courses.get((request.symbol, request.kind))

    def _size(self, kind: str) -> PageSize:
        return self._sizes.setdefault(kind, PageSize(self._usual_limit(kind)))

    def _walk_symbols(self, names: Iterable[str]) -> Iterator[Request]:
        for symbol in names:
            if symbol in self._symbols or symbol in self.paused:
                continue
            self._symbols.add(symbol)
            yield from self._begin(symbol, "allOrders")
            # A guess that turns out to have no orders has no trades either, and need not be asked.
            if self.trades and symbol not in self._guesses:
                yield from self._begin(symbol, "myTrades")

    def _begin(self, symbol: str, kind: str) -> Iterator[Request]:
        """Begin a course, or go on with it where an earlier walk was broken off."""
        if (symbol, kind) in self._courses:
            return
        is_new = not (symbol in self.known.covered or symbol in self._guesses or self.scope.strict)
        if is_new or self.scope.from_ms is None:
            # From the beginning means from the first millisecond: without a start the venue gives the newest page.
            start_ms = self.beginning_ms or 0
        else:
            start_ms = max(0, self.scope.from_ms - OVERLAP_MS)
        from_first = is_new or self.scope.from_ms is None
        if symbol in self.holes:
            start_ms = max(0, min(start_ms, self.holes[symbol] - OVERLAP_MS))
            from_first = from_first or start_ms <= (self.beginning_ms or 0)
        course = Course(symbol, kind, start_ms, self.now_ms, from_first=from_first, size=self._size(kind))
        before = next((one for one in self.healing.steps if (one.symbol, one.kind) == (symbol, kind)), None)
        if before is not None:
            course.start_ms, course.end_ms, course.rows = before.start_ms, before.end_ms, before.rows
            course.served_from_ms = before.served_from_ms
            if course.end_ms is not None:
                course.end_ms = min(course.end_ms, course.start_ms + DAY_MS - 1)
            course.done = before.done and before.asked_ms >= self.healing.fresh_ms
        self._courses[symbol, kind] = course
        if not course.done:
            yield course.question

    def _courses_of(self, symbol: str) -> list[Course]:
        return [course for course in self._courses.values() if course.symbol == symbol]

    def _is_through(self, symbol: str) -> bool:
        """Whether everything of this market is told. A guess without orders is no market of this account."""
        courses = self._courses_of(symbol)
        if any(not course.done or course.has_holes for course in courses):
            return False
        # An order that rests here and is in no list yet may have ended in the gap. Where every order was listed, from
        # the first on, it is none of the venue's, and nothing would ever come of waiting for it.
        listed = any(course.kind == "allOrders" and course.from_first for course in courses)
        resting = (key for key in self.known.open_orders if key[0] == symbol)
        if not listed and any(key not in self._confirmed for key in resting):
            return False
        return symbol not in self._guesses

    @property
    def read_whole(self) -> frozenset[str]:
        """Markets whose every order was read, from the first there is: an order that was not among them is none."""
        if self.beginning_ms:
            return frozenset()
        ended = (one for one in self._courses.values() if one.kind == "allOrders" and one.done and not one.has_holes)
        return frozenset(course.symbol for course in ended if course.from_first)

    def _next_page(self, request: Request, page: Page) -> Iterator[Request]:
        course = self._course(request)
        if course is None:
            yield from self._next_of_order(request, page)
            return
        self._doubt(course.take(page))
        if course.rows and course.symbol in self._guesses:
            # A guess that has orders is a market, to be walked as one: from the beginning, and its trades too.
            self._guesses.discard(course.symbol)
            if not course.from_first:
                del self._courses[course.symbol, course.kind]
            for kind in _KINDS if self.trades else _KINDS[:1]:
                yield from self._begin(course.symbol, kind)
        if self._course(request) is course and not course.done:
            yield course.question

    def _next_of_order(self, request: Request, page: Page) -> Iterator[Request]:
        """The next trades of a single order, by trade id; from the first if there may be more than the page had, since
        without an id the venue gives the newest."""
        if request.kind != "myTrades" or request.symbol is None or request.order_id is None:
            return
        size = self._size(request.kind)
        is_full = size.may_be_full(page.rows)
        size.see(page.rows)
        if not is_full:
            return
        if page.last_id is None:
            subject = f"{request.kind} {request.symbol}/{request.order_id}: a full page tells no ids"
            since_ms = self.scope.from_ms or 0
            self._doubt(
                [
                    Doubt(
                        UNREACHABLE,
                        subject,
                        None,
                        None,
                        symbol=request.symbol,
                        order_id=request.order_id,
                        uncovered_from_ms=since_ms,
                    )
                ]
            )
            return
        start_id = page.last_id if request.from_id is not None else 0
        yield requests.my_trades(
            request.symbol, order_id=request.order_id, from_id=start_id, limit=self._size(request.kind).limit
        )

    def _doubt(self, doubts: Iterable[Doubt]) -> None:
        for doubt in doubts:
            self._doubts.append(doubt)
            told = doubt.actual and f": expected {doubt.expected}, got {doubt.actual}"
            self.stuck.append(f"{doubt.subject}{told or ''}")

    def _candidates(self, snapshot: Snapshot) -> list[str]:
        """Symbols made of the assets held: nothing else points to orders that came and went unseen there.

        Where the venue lists its markets, a walk from the beginning tries every one of them after those.
        """
        assets = [balance.asset for balance in snapshot.balances]
        quotes = [quote for quote in _QUOTES if quote in assets]
        told = {*self.known.symbols, *self.configured}
        guesses = [f"{asset}{quote}" for quote in quotes for asset in assets if asset != quote]
        listed = [guess for guess in guesses if self._listed is None or guess in self._listed]
        likely = [guess for guess in listed if guess not in told and guess not in self.refused][:CANDIDATES_MAX]
        if self._listed is None or self.scope.from_ms is not None:
            return likely
        rest = (symbol for symbol in self._listed if symbol not in told and symbol not in self.refused)
        return list(dict.fromkeys((*likely, *rest)))

    def _fresh(self, wanted: Iterable[Request]) -> list[Request]:
        fresh = []
        for request in wanted:
            # The account is asked twice on purpose: before the walk for its assets, after it for its balances.
            if request.kind == "account" or request.question not in self._asked:
                self._asked.add(request.question)
                fresh.append(request)
        return fresh


def quiet_symbols(
    all_known: tuple[str, ...], active: Iterable[str], *, pass_no: int, every_s: float
) -> tuple[str, ...]:
    """Symbols of one quiet pass: those active since the last, and a share of the rest so that each comes up daily."""
    wanted = set(active)
    idle = [symbol for symbol in all_known if symbol not in wanted]
    if idle:
        share = -(-len(idle) * int(every_s) // DAY_S)
        wanted.update(idle[(pass_no * share + k) % len(idle)] for k in range(share))
    return tuple(sorted(wanted))
