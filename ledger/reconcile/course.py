"""The pages of one kind of question in one market, one after the other: where the next one starts. Pure.

Always holds: one question of a course is under way at a time; every answer brings it nearer to its end, so it ends;
what lies between its start and its end is read, or a doubt says what could not be. Starts are inclusive: merges make
rows that come twice free.

Pages follow each other by time: the last row's instant is the next start. Where that cannot go on (a full page within
one millisecond, a venue that tells no times, ignores the start or wants a day at a time) they follow by id, if the
venue turns out to honour ids.

How many rows fill a page is the venue's to say: it may give fewer than were asked for, without a word. So a page is
known to be the last only if it has one row at most, or if another page of its kind had more; after any other the course
asks on from the last row. Taken for granted: a page holds at least two rows, and no fewer later in a walk than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ledger.facts.types import Doubt, Fill, Order
from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page

DAY_MS = 86_400_000
AGES_MS = tuple(days * DAY_MS - DAY_MS // 24 for days in (730, 365, 180, 90, 60, 30, 14, 7, 3, 2, 1))
"""How far back is tried, one after the other, where the venue refuses to go so far and does not say how far."""
AGE_SPARE_MS = 60_000
"""By so much later than the venue says begins what it is asked for: the question must still fit when it arrives."""

UNREACHABLE = "history_unreachable"
"""Kind of the discrepancy that says what the venue could not be made to tell."""
OFF_WINDOW = "rest_window"
"""Kind of the discrepancy that says that an answer was not the one to its question; nothing need be missing."""


@dataclass(slots=True)
class PageSize:
    """How many rows the pages of one kind of question hold. ``limit``: asked for; ``seen``: the most one has had."""

    limit: int
    seen: int = 0

    def may_be_full(self, rows: int) -> bool:
        """Whether rows may follow a page of so many: not if another page had more."""
        return rows > 1 and rows >= min(self.seen, self.limit)

    def see(self, rows: int) -> None:
        """A page had so many rows."""
        self.seen = max(self.seen, rows)


def _default_size() -> PageSize:
    return PageSize(requests.LIMIT_MAX)


@dataclass(frozen=True, slots=True)
class _ById:
    """Pages by id from ``cursor_id`` on (inclusive), within one millisecond or (None) to the end.

    ``otherwise``: what cannot be read if the venue does not honour ids. It does if the page begins with the cursor,
    which was told before, or, where it is no real id, below ``below_id``, which the newest page began with.
    """

    cursor_id: int
    otherwise: str
    within_ms: int | None = None
    below_id: int | None = None

    def is_honoured(self, page: Page) -> bool:
        if page.first_id is None:
            return False
        return page.first_id == self.cursor_id if self.below_id is None else page.first_id < self.below_id


@dataclass(slots=True)
class Course:
    """``kind`` allOrders or myTrades of ``symbol`` from ``start_ms`` to ``end_ms`` (None: open end), venue clock.

    ``now_ms``: when the walk began. ``from_first``: everything is wanted, so ids may be tried from the first one on.
    """

    symbol: str
    kind: str
    start_ms: int
    now_ms: int
    end_ms: int | None = None
    from_first: bool = False
    size: PageSize = field(default_factory=_default_size)
    """Shared by all courses of this kind in a walk."""
    served_from_ms: int | None = None
    """Start of what the venue tells, where it refused to go back further; None: it did not."""
    done: bool = False
    has_holes: bool = False
    """The venue could not be made to tell everything."""
    pages: int = 0
    rows: int = 0
    begin_ms: int = field(init=False)
    """Where it began."""
    _ages_tried: int = 0
    _newest_only: bool = False
    _by_id: _ById | None = None
    _first_ms: int | None = None
    _said: set[Doubt] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.begin_ms = self.start_ms

    @property
    def question(self) -> Request:
        """What to ask next."""
        cursor_id = None if self._by_id is None else self._by_id.cursor_id
        start_ms = None if self._by_id or self._newest_only else self.start_ms
        end_ms = None if self._by_id else self.end_ms
        limit = self.size.limit
        if self.kind == "myTrades":
            return requests.my_trades(self.symbol, from_id=cursor_id, start_ms=start_ms, end_ms=end_ms, limit=limit)
        return requests.all_orders(self.symbol, order_id=cursor_id, start_ms=start_ms, end_ms=end_ms, limit=limit)

    def take(self, page: Page) -> list[Doubt]:
        """Move on past the answer to ``question``. Returns what is to be doubted about it, each doubt once."""
        self.pages += 1
        self.rows += page.rows
        if self._first_ms is None:
            self._first_ms = page.first_ms
        doubts = [*self._oddities(page), *self._move(page)]
        self.size.see(page.rows)
        fresh = [doubt for doubt in dict.fromkeys(doubts) if doubt not in self._said]
        self._said.update(fresh)
        return fresh

    def too_wide(self) -> list[Doubt]:
        """The venue refused the question for its span (-1127): ask day by day from where the course is.

        From the beginning that would be twenty thousand days: then the newest page, and by id if there is more.
        """
        if self.end_ms is not None:
            self.done = True
            return [self._hole("the venue refuses even the span of a day")]
        if self.start_ms == 0:
            self._newest_only = True
        else:
            self.end_ms = self.start_ms + DAY_MS - 1
        return []

    def too_old(self, range_ms: int | None, now_ms: int) -> bool:
        """The venue refused the question for its age: begin later, ``range_ms`` ago where it said how far it goes.

        False: no later start is left to try, or the question names none.
        """
        if self._by_id is not None or self._newest_only or self._ages_tried >= len(AGES_MS):
            return False
        # Each refusal uses up a span, also where the venue said how far it goes: it may go on saying so.
        spans_ms = (range_ms - AGE_SPARE_MS,) if range_ms is not None else AGES_MS[self._ages_tried :]
        later = next((ms for span in spans_ms if (ms := now_ms - span) > self.start_ms), None)
        if later is None:
            return False
        self._ages_tried = self._ages_tried + 1 if range_ms is not None else 1 + AGES_MS.index(now_ms - later)
        self.start_ms = self.served_from_ms = later
        if self.end_ms is not None:
            self.end_ms = self.start_ms + DAY_MS - 1
        return True

    def pages_left(self) -> float | None:
        """How many pages are still to come, by the share of time read so far; None where nothing tells."""
        if self.done:
            return 0.0
        if self._first_ms is None or not self._first_ms < self.start_ms < self.now_ms:
            return None
        return self.pages * (self.now_ms - self.start_ms) / (self.start_ms - self._first_ms)

    # --- where the next page starts

    def _move(self, page: Page) -> Iterator[Doubt]:
        if self._by_id is not None:
            yield from self._move_by_id(page, self._by_id)
        elif not self.size.may_be_full(page.rows):
            self._end_window()
        elif self._newest_only:
            yield from self._try_first_id(
                page, "the venue wants spans of a day; set SDX_HISTORY_START to read more than its newest rows"
            )
        elif page.first_ms is None or page.last_ms is None:
            yield from self._try_id(page, None, "a full page tells no times, so the venue cannot be asked for more")
        elif page.first_ms < self.start_ms:
            yield from self._past_ignored_start(page)
        elif page.last_ms <= self.start_ms:
            # Going on from the next millisecond would skip what did not fit.
            crowded = f"{page.rows} rows within the millisecond {self.start_ms}, the venue cannot be asked for the rest"
            yield from self._try_id(page, self.start_ms, crowded)
        elif self.end_ms is not None and page.last_ms > self.end_ms:
            self._end_window()
        else:
            self.start_ms = page.last_ms
            if page.last_ms == self.end_ms:
                # A start that is the end as well is refused by some venues of this family.
                self.end_ms = self.start_ms + DAY_MS - 1

    def _past_ignored_start(self, page: Page) -> Iterator[Doubt]:
        if self.from_first or page.rows >= self.size.limit:
            yield from self._try_first_id(page, "the venue ignores startTime, so only its newest rows can be read")
        else:
            # Its newest rows reach back before the start, so they hold everything since.
            self._end_window()

    def _try_id(self, page: Page, within_ms: int | None, otherwise: str) -> Iterator[Doubt]:
        """Go on by id from the last row of this page."""
        if page.last_id is None and page.rows < self.size.limit:
            self._end_window()  # rows without times and ids are set aside, each a hole of its own
        elif page.last_id is None:
            yield self._hole(otherwise)
            self._go_past(within_ms)
        else:
            self._by_id = _ById(page.last_id, otherwise, within_ms=within_ms)

    def _try_first_id(self, page: Page, otherwise: str) -> Iterator[Doubt]:
        """Go by id from the first there is; only where everything is wanted, or every gap would read it all again."""
        self._newest_only = False
        if page.first_id is None and page.rows < self.size.limit:
            self._end_window()
        elif page.first_id is None or not self.from_first:
            yield self._hole(otherwise)
            self.done = True
        else:
            # A page shorter than asked for may begin with the first row there is.
            below_id = page.first_id + (page.rows < self.size.limit)
            self._by_id = _ById(0, otherwise, below_id=below_id)

    def _move_by_id(self, page: Page, by: _ById) -> Iterator[Doubt]:
        is_past = by.within_ms is not None and page.last_ms is not None and page.last_ms > by.within_ms
        brings_none = page.last_id is None or page.last_id <= by.cursor_id
        is_last = not self.size.may_be_full(page.rows)
        if not by.is_honoured(page) or (brings_none and not is_last and not is_past):
            yield self._hole(by.otherwise)
            self._go_past(by.within_ms)
        elif is_last:
            self._by_id = None
            self._end_window()
        elif is_past:
            self._go_past(by.within_ms)
        else:
            assert page.last_id is not None, "brings_none has seen it"
            self._by_id = replace(by, cursor_id=page.last_id, below_id=None)
            if by.within_ms is None and page.last_ms is not None:
                # Ids go up with time: a walk that is broken off goes on by time from here.
                self.start_ms = max(self.start_ms, page.last_ms)

    def _go_past(self, within_ms: int | None) -> None:
        """By time again, after that millisecond; None: there is no way on."""
        self._by_id = None
        if within_ms is None:
            self.done = True
        elif self.end_ms is not None and within_ms >= self.end_ms:
            self._end_window()
        else:
            self.start_ms = within_ms + 1

    def _end_window(self) -> None:
        """On to the day after a day told to its end; done where the question had no end, or that day is today."""
        self._newest_only = False
        if self.end_ms is None or self.end_ms >= self.now_ms:
            self.done = True
        else:
            self.start_ms, self.end_ms = self.end_ms + 1, self.end_ms + DAY_MS

    # --- what is odd

    def _hole(self, why: str) -> Doubt:
        self.has_holes = True
        subject = f"{self.kind} {self.symbol}: {why}"
        since_ms = 0 if self._newest_only else max(0, self.start_ms - 1)
        return Doubt(UNREACHABLE, subject, None, None, symbol=self.symbol, uncovered_from_ms=since_ms)

    def _oddities(self, page: Page) -> Iterator[Doubt]:
        """Rows the question did not ask for. The words hold no numbers: the same oddity is told once, not per page."""
        by_time = self._by_id is None and not self._newest_only
        if by_time and page.first_ms is not None and page.first_ms < self.start_ms:
            yield self._off("rows from startTime on", "rows from before it")
        if by_time and self.end_ms is not None and page.last_ms is not None and page.last_ms > self.end_ms:
            yield self._off("rows up to endTime", "rows from after it")
        others = {fact.symbol for fact in page.facts if isinstance(fact, Order | Fill)} - {self.symbol}
        if others:
            self.has_holes = True  # what was asked for may have been left out
            yield self._off(f"rows of {self.symbol}", f"rows of {min(others)}")
        if any(after < before for before, after in pairwise(_times_ms(page))):
            # Of a whole answer the order does not matter; a full page in another order may be any rows.
            self.has_holes = self.has_holes or page.rows >= self.size.limit
            yield self._off("oldest rows first", "another order")

    def _off(self, expected: str, actual: str) -> Doubt:
        return Doubt(OFF_WINDOW, f"{self.kind} {self.symbol}", expected, actual, symbol=self.symbol)


def _times_ms(page: Page) -> list[int]:
    """When the rows came to be, in their order, of those that tell it."""
    told = [
        fact.executed_ms if isinstance(fact, Fill) else fact.created_ms
        for fact in page.facts
        if isinstance(fact, Order | Fill)
    ]
    return [ms for ms in told if ms is not None]
