"""What the venue would not tell: one open discrepancy each, which ends coverage, and which an answer settles.

Always holds: a hole is a row before its walk ends, so no gap closes over it unseen; it is settled only after the answer
that fills it was applied; what is asked for again is kept in the database, so a restart knows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog

from ledger.db import reads
from ledger.db import refused_markets as table
from ledger.db.refused_markets import RefusedMarket, Waiting
from ledger.facts.types import Doubt, Fact, Resolution
from ledger.reconcile import refusals
from ledger.reconcile.course import UNREACHABLE
from ledger.reconcile.plan import OVERLAP_MS, Walk
from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.rest_pages import SetAside
from ledger.wire.clock import Clock
from ledger.wire.postgres import Writer

log = structlog.get_logger(__name__)

Tell = Callable[[str, Fact], Awaitable[None]]

MARKET = "symbol_refused"
ORDER = "order_refused"
QUESTION = "question_refused"
NEWS_EVERY_S = 10.0
"""How often is looked whether a refused market moved, and what was refused may be answered."""


def of_row(kind: str, question: str, row: SetAside) -> Doubt:
    """The discrepancy of a row that could not be read; coverage of its market ends right before its own time.

    Where it tells none, at the start of what was asked for, which may be the beginning. What it is about names it,
    so that the same row told again in another page is the same discrepancy.
    """
    asked = requests.from_question(kind, question)
    symbol = row.symbol or asked.symbol
    order_id = row.order_id if row.order_id is not None else asked.order_id
    start_ms = next((int(value) for name, value in asked.params if name == "startTime"), 0)
    numbers = [str(number) for number in (order_id, row.trade_id) if number is not None]
    named = f"{symbol}/{'/'.join(numbers)}" if symbol and numbers else f"{question} row {row.index}"
    return Doubt(
        "rest_row",
        f"{kind.removesuffix('_settle')} {named}" if symbol and numbers else named,
        None,
        row.problem,
        symbol=symbol,
        order_id=order_id,
        trade_id=row.trade_id if kind == "myTrades" else None,
        uncovered_from_ms=None if kind in ("account", "exchangeInfo") else max(0, (row.at_ms or start_ms) - 1),
    )


class Holes:
    """One account's. ``tell`` writes one fact with a journal row of its own."""

    def __init__(self, account: str, writer: Writer, clock: Clock, *, tell: Tell) -> None:
        self._account = account
        self._writer = writer
        self._clock = clock
        self._tell = tell
        self._asked_once = False
        self._looked_s: float | None = None
        self._markets: list[RefusedMarket] = []
        self._due: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()
        self._unread: dict[str, tuple[int, int]] = {}
        """Markets that were never read, each with how often it was asked for and when it is again (venue clock, ms)."""
        self._questions: list[Waiting] | None = None

    async def load(self, gap_from_ms: int | None) -> tuple[dict[str, int], frozenset[str]]:
        """For a walk: the refused markets to ask for, each with the start of its hole, and those to leave alone.

        The first time after a start everything is asked for: what was refused then may be answered now. So is a market
        whose hole does not reach back to the gap to be walked (``gap_from_ms``, 0: the beginning; None: no gap).
        """
        self._markets = await self._writer.run(lambda conn: table.markets(conn, self._account))
        due = {one.symbol for one in self._markets} if not self._asked_once else await self._find_due()
        self._asked_once = True
        if gap_from_ms is not None and self._markets:
            open_ones = await self._writer.run(lambda conn: table.waiting(conn, self._account, (MARKET,)))
            covering = {
                one.symbol
                for one in open_ones
                if one.uncovered_from_ms is not None and one.uncovered_from_ms <= gap_from_ms
            }
            due |= {one.symbol for one in self._markets} - covering
        return (
            {one.symbol: one.from_ms for one in self._markets if one.symbol in due},
            frozenset(one.symbol for one in self._markets if one.symbol not in due),
        )

    async def due(self) -> tuple[str, ...]:
        """Markets to ask for now: refused ones again, and those that the stream has only just named."""
        if not self._asked_once:
            return ()
        now_s = self._clock.monotonic_s()
        unread: set[str] = set()
        if self._looked_s is None or now_s - self._looked_s >= NEWS_EVERY_S:
            self._looked_s = now_s
            self._markets = await self._writer.run(lambda conn: table.markets(conn, self._account))
            self._due = frozenset(await self._find_due())
            unread = await self._find_unread()
        return tuple(sorted(self._due | unread))

    async def _find_unread(self) -> set[str]:
        """Each is due at once, and should a walk not read it through, with growing pauses."""
        now_ms = self._clock.venue_now_ms()
        names = await self._writer.run(lambda conn: reads.unread_markets(conn, self._account))
        before = {name: self._unread.get(name, (0, now_ms)) for name in names}
        due = {name for name, (_, due_ms) in before.items() if due_ms <= now_ms}
        self._unread = {
            name: (tries + 1, now_ms + refusals.pause_ms(tries + 1)) if name in due else (tries, due_ms)
            for name, (tries, due_ms) in before.items()
        }
        return due

    async def _find_due(self) -> set[str]:
        now_ms = self._clock.venue_now_ms()
        if not self._markets:
            return set()
        since_seq = min(one.refused_seq for one in self._markets)
        moved = await self._writer.run(lambda conn: reads.active_symbols(conn, self._account, since_seq=since_seq))
        return {
            one.symbol
            for one in self._markets
            if one.due_ms <= now_ms
            or (one.symbol in moved and one.due_ms - refusals.pause_ms(one.tries) + refusals.FIRST_PAUSE_MS <= now_ms)
        }

    async def listed(self, symbols: Iterable[str]) -> frozenset[str]:
        """The venue lists these markets. Returns those it did not list before; refused ones among them are due."""
        now = frozenset(symbols)
        fresh = now - self._listed
        if now:
            self._listed = now
        again = [one for one in self._markets if one.symbol in fresh]
        self._due |= {one.symbol for one in again}
        return fresh

    async def market_refused(self, symbol: str, words: str, *, from_ms: int, ends_coverage: bool) -> None:
        """Of this market nothing is told from ``from_ms`` on (venue clock; 0: from the beginning)."""
        open_ones = await self._writer.run(lambda conn: table.waiting(conn, self._account, (MARKET,)))
        mine = [one for one in open_ones if one.symbol == symbol]
        hole_ms = from_ms if ends_coverage else None
        if not any(
            hole_ms is None or (one.uncovered_from_ms is not None and one.uncovered_from_ms <= hole_ms) for one in mine
        ):
            doubt = Doubt(
                MARKET, symbol, f"its history from {from_ms}", words, symbol=symbol, uncovered_from_ms=hole_ms
            )
            await self._tell(f"{MARKET} {symbol}", doubt)
            for one in mine:
                await self._settle(one.discrepancy_id, MARKET, "refused again, for a longer time")
        tries = next((one.tries for one in self._markets if one.symbol == symbol), 0) + 1
        due_ms = self._clock.venue_now_ms() + refusals.pause_ms(tries)
        await self._writer.run(lambda conn: table.refused(conn, self._account, symbol, from_ms=from_ms, due_ms=due_ms))
        self._due -= {symbol}
        log.warning("the venue refuses to tell of a market, asking again later", account=self._account, error=words)

    async def no_market(self, symbol: str) -> bool:
        """The venue says that there is none of that name. True: something else that it said before was a hole of it,
        which this settles."""
        open_ones = await self._writer.run(lambda conn: table.waiting(conn, self._account, (MARKET,)))
        mine = [one for one in open_ones if one.symbol == symbol]
        for one in mine:
            await self._settle(one.discrepancy_id, MARKET, "the venue has no such market")
        await self._writer.run(lambda conn: table.answered(conn, self._account, symbol))
        return bool(mine)

    async def order_refused(self, request: Request, words: str, *, uncovered_from_ms: int | None) -> None:
        """No answer about this order (or its trades)."""
        subject = f"{request.symbol}/{request.order_id}"
        doubt = Doubt(
            ORDER,
            subject,
            f"an answer about it{'' if uncovered_from_ms is None else f' since {uncovered_from_ms}'}",
            words,
            symbol=request.symbol,
            order_id=request.order_id,
            uncovered_from_ms=uncovered_from_ms,
        )
        await self._tell(f"{ORDER} {subject}", doubt)

    async def question_refused(self, request: Request, words: str, *, uncovered_from_ms: int | None) -> None:
        """No answer to a question about the whole account."""
        since = "" if uncovered_from_ms is None else f" since {uncovered_from_ms}"
        doubt = Doubt(QUESTION, request.question, f"an answer{since}", words, uncovered_from_ms=uncovered_from_ms)
        await self._tell(f"{QUESTION} {request.question}", doubt)
        self._questions = None

    async def questions(self) -> list[Waiting]:
        """Questions about the whole account that were refused and not answered since."""
        if self._questions is None:
            self._questions = await self._writer.run(lambda conn: table.waiting(conn, self._account, (QUESTION,)))
        return self._questions

    async def question_answered(self, request: Request, *, since_ms: int | None) -> None:
        """An answer to a question about the whole account was applied, in a walk over everything since then (venue
        clock, ms, 0: the beginning; None: over some markets, which fills no hole)."""
        for one in await self.questions():
            hole_ms = one.uncovered_from_ms
            if one.subject == request.question and (
                hole_ms is None or (since_ms is not None and since_ms - OVERLAP_MS <= hole_ms)
            ):
                await self._settle(one.discrepancy_id, QUESTION, "the venue answered")
                self._questions = None

    async def settle(self, walk: Walk) -> None:
        """What this walk was told in full is no hole any more."""
        open_ones = await self._writer.run(lambda conn: table.waiting(conn, self._account, (MARKET, UNREACHABLE)))
        whole, told = walk.read_from_ms(), walk.told_from_ms()
        for one in open_ones:
            if one.symbol is None:
                continue
            starts = {kind: ms for (symbol, kind), ms in whole.items() if symbol == one.symbol}
            hole_ms = one.uncovered_from_ms
            if one.kind == MARKET:
                if one.symbol in told and (hole_ms is None or told[one.symbol] <= hole_ms):
                    await self._settle(one.discrepancy_id, MARKET, "the venue told of the market")
            elif one.kind == UNREACHABLE and one.order_id is None and hole_ms is not None:
                kind = one.subject.split(" ", 1)[0]
                if kind in starts and starts[kind] <= hole_ms + 1:
                    await self._settle(one.discrepancy_id, UNREACHABLE, "the venue told it")
        for symbol in walk.holes:
            if symbol in told:
                await self._writer.run(partial(table.answered, account=self._account, symbol=symbol))

    async def _settle(self, number: int, kind: str, why: str) -> None:
        await self._tell(f"resolve {kind} {number}", Resolution(number, why))
