"""Asks for the orders that are due by their order checks (``ledger.order_checks``), a few in each turn.

Always holds: an answer is applied before its check is taken out, so a crash in between asks once more; a check that
the venue has no answer to is put off with growing pauses, and kept over restarts; one order's refusal stops no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

import structlog

from ledger.db import order_checks as table
from ledger.db.order_checks import OrderCheck
from ledger.db.reads import OrderKey
from ledger.errors import KeyRefused, VenueRefused
from ledger.facts.types import Doubt, Fact, Resolution
from ledger.reconcile import order_checks as rules
from ledger.venue import requests
from ledger.venue.reading import LAST_MS
from ledger.venue.requests import Request
from ledger.wire.clock import Clock
from ledger.wire.http import CLOCK_OFF
from ledger.wire.postgres import Writer

log = structlog.get_logger(__name__)

Ask: TypeAlias = Callable[[Request], Awaitable[None]]
"""Asks one question and applies its answer; raises VenueError."""
Tell: TypeAlias = Callable[[str, Fact], Awaitable[None]]
"""Writes one fact with a journal row of its own; the text names the row."""

Unknown: TypeAlias = list[tuple[Request, VenueRefused]]
"""Questions for orders, with the venue's answer that there is no such order."""

_SHOWN_BY_ROWS = frozenset(
    {
        table.PROVISIONAL_FILL,
        table.MISSING_FILLS,
        table.QUANTITY_DIFFERS,
        table.UNKNOWN_STATUS,
        table.REFUSED,
    }
)
"""Reasons that stand as long as rows show them, whatever was answered."""


class OrderChecker:
    """One account's order checks. ``lag_ms`` tells how far REST may trail the stream now."""

    def __init__(
        self, account: str, writer: Writer, clock: Clock, *, ask: Ask, tell: Tell, lag_ms: Callable[[], int]
    ) -> None:
        self._account = account
        self._writer = writer
        self._clock = clock
        self._ask = ask
        self._tell = tell
        self._lag_ms = lag_ms

    async def find(self) -> None:
        """Enter what the rows themselves show."""
        await self._writer.run(lambda conn: table.find(conn, self._account, lag_ms=self._lag_ms()))

    async def turn(self, *, trades: bool, limit: int = rules.PER_TURN_MAX) -> int:
        """Ask for at most ``limit`` orders that are due; returns for how many. ``trades``: the venue has
        myTrades. Raises VenueError where the venue as a whole did not answer."""
        await self.find()
        now_ms, lag_ms = self._clock.venue_now_ms(), self._lag_ms()
        checks = await self._writer.run(
            lambda conn: table.due(
                conn,
                self._account,
                now_ms=now_ms,
                lag_ms=lag_ms,
                longest_ms=rules.LONGEST_PAUSE_MS,
                limit=limit,
            )
        )
        asked = 0
        for key, its_checks in groupby(sorted(checks, key=attrgetter("key", "reason")), key=attrgetter("key")):
            await self._check(key, list(its_checks), quiet_ms=now_ms - lag_ms, trades=trades)
            asked += 1
        if asked:
            await self.find()
        return asked

    async def settle_agreeing(self, unknown: Unknown) -> Unknown:
        """Of these orders the venue says that there are none. Where that agrees with what is known they are settled;
        the others are returned."""
        states = await self._states(unknown)
        others: Unknown = []
        for request, refused in unknown:
            key = _key(request)
            if rules.agrees(refused.code, states[key].status, states[key].executed_qty):
                await self._settle_as_absent(key, str(refused))
            else:
                others.append((request, refused))
        return others

    async def keep_asking(self, unknown: Unknown, *, uncovered_from_ms: int | None) -> None:
        """Ask again for these orders, of which the venue says that there are none.

        ``uncovered_from_ms``: since when (venue clock) nobody but REST could tell what became of them: a discrepancy
        of each ends coverage there until the venue knows it. None: the stream has been live.
        """
        states = await self._states(unknown)
        ends_coverage = uncovered_from_ms is not None
        for request, refused in unknown:
            key = _key(request)
            if ends_coverage and not states[key].ends_coverage:
                doubt = _unknown(key, str(refused), states[key].status, uncovered_from_ms)
                await self._tell(f"order_unknown {doubt.subject}", doubt)
            await self._add(key, table.UNKNOWN_TO_VENUE, due=True, ends_coverage=ends_coverage)

    async def _states(self, unknown: Unknown) -> dict[OrderKey, OrderCheck]:
        keys = [_key(request) for request, _ in unknown]
        return await self._writer.run(lambda conn: table.states(conn, self._account, keys)) if keys else {}

    async def _check(self, key: OrderKey, checks: list[OrderCheck], *, quiet_ms: int, trades: bool) -> None:
        symbol, order_id = key
        reasons = [check.reason for check in checks]
        try:
            if trades and table.UNREADABLE_REPORT in reasons:
                # Before the order itself, whose answer ends the hole in coverage.
                await self._ask(requests.my_trades(symbol, order_id=order_id))
            await self._ask(requests.query_order(symbol, order_id, settle=table.PROVISIONAL_FILL in reasons))
            if trades and not {table.UNKNOWN_TO_VENUE, table.REFUSED}.isdisjoint(reasons):
                # What it executed meanwhile no backfill has asked for.
                await self._ask(requests.my_trades(symbol, order_id=order_id))
        except VenueRefused as refused:
            if isinstance(refused, KeyRefused) or refused.code == CLOCK_OFF:
                raise
            await self._refused(key, checks, refused)
            return
        answered = [reason for reason in reasons if reason not in _SHOWN_BY_ROWS]
        await self._writer.run(partial(self._done, key=key, reasons=answered, quiet_ms=quiet_ms))
        if shown := [reason for reason in reasons if reason in _SHOWN_BY_ROWS]:
            await self._put_off(key, shown, max(check.tries for check in checks))

    async def _refused(self, key: OrderKey, checks: list[OrderCheck], refused: VenueRefused) -> None:
        """There is no answer about this order: is that one too, or when is it asked for again?"""
        tries = 1 + max(check.tries for check in checks)
        is_unknown = refused.code in rules.UNKNOWN_ORDER
        if is_unknown and rules.agrees(refused.code, checks[0].status, checks[0].executed_qty):
            await self._settle_as_absent(key, str(refused))
            return
        if is_unknown:
            await self._add(key, table.UNKNOWN_TO_VENUE, due=True)
            if tries >= rules.SURE_TRIES and not any(check.ends_coverage for check in checks):
                doubt = _unknown(key, str(refused), checks[0].status, None)
                await self._tell(f"order_unknown {doubt.subject}", doubt)
        log.info("no answer about an order, asking again later", account=self._account, order=key, error=str(refused))
        await self._put_off(key, [check.reason for check in checks], tries - 1)

    async def _settle_as_absent(self, key: OrderKey, why: str) -> None:
        """The venue has no such order, and should have none: nothing is left to ask or to be told."""
        await self._add(key, table.ABSENT, due=False)
        await self._writer.run(partial(self._done, key=key, reasons=_ASKED, quiet_ms=LAST_MS))
        for number in await self._writer.run(lambda conn: table.open_unknown(conn, self._account, key)):
            settled = Resolution(number, f"agrees with what is known of the order: {why}")
            await self._tell(f"resolve order_unknown {key[0]}/{key[1]}", settled)

    async def _add(self, key: OrderKey, reason: table.Reason, *, due: bool, ends_coverage: bool = False) -> None:
        due_ms = self._clock.venue_now_ms() + rules.pause_ms(0) if due else None
        await self._writer.run(
            lambda conn: table.add(conn, self._account, [key], reason, due_ms=due_ms, ends_coverage=ends_coverage)
        )

    async def _put_off(self, key: OrderKey, reasons: Sequence[str], tries: int) -> None:
        due_ms = self._clock.venue_now_ms() + rules.pause_ms(tries)
        await self._writer.run(lambda conn: table.put_off(conn, self._account, key, reasons, due_ms=due_ms))

    async def _done(self, conn: object, *, key: OrderKey, reasons: Sequence[str], quiet_ms: int) -> None:
        await table.done(conn, self._account, key, reasons, quiet_ms=quiet_ms)


_ASKED = (
    table.MOVED_IN_GAP,
    table.REPORTED_AGAIN,
    table.UNKNOWN_TO_VENUE,
    table.UNKNOWN_STATUS,
    table.REFUSED,
    table.UNREADABLE_REPORT,
)


def _key(request: Request) -> OrderKey:
    assert request.symbol is not None
    assert request.order_id is not None
    return request.symbol, request.order_id


def _unknown(key: OrderKey, why: str, status: str | None, uncovered_from_ms: int | None) -> Doubt:
    """``uncovered_from_ms`` is part of the text: an order found again may be lost by a later gap."""
    since = "" if uncovered_from_ms is None else f"; not known what became of it since {uncovered_from_ms}"
    return Doubt(
        "order_unknown",
        f"{key[0]}/{key[1]}",
        f"an order that was received before as {status or 'a trade'}{since}",
        why,
        symbol=key[0],
        order_id=key[1],
        uncovered_from_ms=uncovered_from_ms,
    )
