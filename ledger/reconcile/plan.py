"""What to ask the venue, decided from values.

Pure: no clock, no I/O. A ``Walk`` is told every answer and says what to ask next; when it has nothing left to ask,
the stretch of time it was made for is complete in the mode at hand. Absence proves nothing: an order open here and
absent from openOrders is asked for by itself. Pages overlap on purpose (inclusive starts); merges make that free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ledger.db.reads import Known, OrderKey
from ledger.facts.types import Fill, Order, Snapshot
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
DAY_MS = DAY_S * 1000

_ASK = {"allOrders": requests.all_orders, "myTrades": requests.my_trades}

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


@dataclass(slots=True)
class Walk:
    """The state of one walk. ``trades``, ``markets``: the venue has myTrades, exchangeInfo. ``configured``: symbols
    the user named. ``now_ms``: when it began, venue clock."""

    scope: Scope
    known: Known
    trades: bool
    markets: bool = False
    configured: tuple[str, ...] = ()
    now_ms: int = 0
    refused: frozenset[str] = frozenset()
    """Symbols the venue does not know; guesses only, a symbol with orders is never in here."""
    _symbols: set[str] = field(default_factory=set)
    _guesses: set[str] = field(default_factory=set)
    _listed: frozenset[str] | None = None
    _asked: set[str] = field(default_factory=set)
    _confirmed: set[OrderKey] = field(default_factory=set)
    stuck: list[str] = field(default_factory=list)
    """What the venue's paging could not be made to tell, in words."""

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
            self._listed = frozenset(market.symbol for market in page.markets)
        elif request.kind in ("allOrders", "myTrades"):
            if page.rows >= requests.LIMIT_MAX:
                nexts += self._next_page(request, page)
            else:
                nexts += self._next_window(request)
            if request.kind == "allOrders" and page.rows and self.trades and request.symbol in self._guesses:
                nexts.append(requests.my_trades(request.symbol, start_ms=self._start_ms() or 0))
        return self._fresh(nexts)

    def too_wide(self, request: Request) -> list[Request]:
        """The venue takes no open end (-1127): ask day by day from where the walk starts.

        A walk from the beginning starts nowhere in particular and would be twenty thousand days: it gets the newest
        page, and says so.
        """
        assert request.symbol is not None
        start_ms = int(dict(request.params).get("startTime", 0))
        if start_ms == 0:
            self.stuck.append(
                f"{request.kind} {request.symbol}: the venue wants spans of a day; set SDX_HISTORY_START to read more "
                "than its newest rows"
            )
            return self._fresh([_ASK[request.kind](request.symbol)])
        return self._fresh([_ASK[request.kind](request.symbol, start_ms=start_ms, end_ms=start_ms + DAY_MS - 1)])

    def refuse(self, symbol: str) -> bool:
        """The venue does not know this symbol. True when that was only our guess."""
        self._symbols.discard(symbol)
        return symbol in self._guesses

    def last(self, known: Known) -> list[Request]:
        """What the walk itself turned up: orders disputed, still untold or unconfirmed; executions without a fill."""
        here = self.scope.symbols if self.scope.strict else None
        unsure = [key for key in (*known.untold, *known.open_orders) if key not in self._confirmed]
        singles = [key for key in dict.fromkeys((*known.disputed, *unsure)) if here is None or key[0] in here]
        lasts = [requests.query_order(symbol, order_id) for symbol, order_id in singles[:SINGLES_MAX]]
        if self.trades:
            missing = [key for key in known.missing if here is None or key[0] in here]
            lasts += [requests.my_trades(symbol, order_id=order_id) for symbol, order_id in missing[:SINGLES_MAX]]
        return self._fresh(lasts)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols walked so far."""
        return tuple(sorted(self._symbols))

    @property
    def _everywhere(self) -> bool:
        """Whether nobody named the symbols: then one that was first traded in the gap must be found too."""
        return self.scope.symbols is None

    def _wants(self, symbol: str) -> bool:
        if self.scope.strict:
            return self.scope.symbols is None or symbol in self.scope.symbols
        return self.scope.symbols is None or symbol not in self.known.symbols

    def _start_ms(self) -> int | None:
        return None if self.scope.from_ms is None else max(0, self.scope.from_ms - OVERLAP_MS)

    def _walk_symbols(self, names: Iterable[str]) -> Iterator[Request]:
        for symbol in names:
            if symbol in self._symbols or symbol in self.refused:
                continue
            self._symbols.add(symbol)
            # From the beginning means from the first millisecond: without a start the venue gives the newest page.
            start_ms = self._start_ms() or 0
            yield requests.all_orders(symbol, start_ms=start_ms)
            # A guess that turns out to have no orders has no trades either, and need not be asked.
            if self.trades and symbol not in self._guesses:
                yield requests.my_trades(symbol, start_ms=start_ms)

    def _next_page(self, request: Request, page: Page) -> list[Request]:
        assert request.symbol is not None
        cursor = dict(request.params)
        if request.order_id is not None:
            if page.last_id is None:
                return []
            return [requests.my_trades(request.symbol, order_id=request.order_id, from_id=page.last_id)]
        start_ms = int(cursor.get("startTime", 0))
        if page.first_ms is None or page.last_ms is None:
            return []
        if page.first_ms < start_ms:
            self.stuck.append(
                f"{request.kind} {request.symbol}: asked from {start_ms}, got rows from {page.first_ms}: "
                "the venue ignores startTime, so only its newest rows can be read"
            )
            return []
        next_ms = page.last_ms
        if next_ms <= start_ms:
            # A whole page within one millisecond: going on from the next one would skip what did not fit.
            self.stuck.append(
                f"{request.kind} {request.symbol}: {page.rows} rows within the millisecond {start_ms}, "
                "the venue cannot be asked for the rest"
            )
            next_ms = start_ms + 1
        if "endTime" in cursor:
            end_ms = int(cursor["endTime"])
            if next_ms > end_ms:
                return self._next_window(request)
            return [_ASK[request.kind](request.symbol, start_ms=next_ms, end_ms=end_ms)]
        return [_ASK[request.kind](request.symbol, start_ms=next_ms)]

    def _next_window(self, request: Request) -> list[Request]:
        """The day after a day that is told to its end; nothing where the question had no end, or that day is today."""
        assert request.symbol is not None
        end_ms = int(dict(request.params).get("endTime", self.now_ms))
        if end_ms >= self.now_ms:
            return []
        return [_ASK[request.kind](request.symbol, start_ms=end_ms + 1, end_ms=end_ms + DAY_MS)]

    def _candidates(self, snapshot: Snapshot) -> list[str]:
        """Symbols made of the assets held: nothing else points to orders that came and went unseen there."""
        assets = [balance.asset for balance in snapshot.balances]
        quotes = [quote for quote in _QUOTES if quote in assets]
        told = {*self.known.symbols, *self.configured}
        guesses = [f"{asset}{quote}" for quote in quotes for asset in assets if asset != quote]
        listed = [guess for guess in guesses if self._listed is None or guess in self._listed]
        return [guess for guess in listed if guess not in told][:CANDIDATES_MAX]

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
