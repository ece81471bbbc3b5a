"""Judges balances and locks after a comparison, and tells what stays unexplained.

Always holds: nothing is told on one sighting; what was told is resolved by itself once it is explained. The judging is
in db/explain.sql; here is when it happens and how it reaches the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

import structlog

from ledger.db import explain, reads
from ledger.db.explain import LOCK, Finding, Lock
from ledger.facts.types import Fact, Resolution
from ledger.venue.rest_pages import Market
from ledger.wire.clock import Clock
from ledger.wire.postgres import Writer

log = structlog.get_logger(__name__)

AGAIN_AFTER_S = 5.0
"""Two sightings that agree are at least this far apart."""
ROUNDS_MAX = 3
"""What was told is recognised by a further round; more than this is left to the next pass."""

Tell: TypeAlias = Callable[[str, Fact], Awaitable[None]]
"""Writes one fact with a journal row of its own; the text names the row."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Explainer:
    """One account's judge. ``assets_of``: symbol -> (base, quote) as configured."""

    def __init__(
        self,
        account: str,
        writer: Writer,
        clock: Clock,
        *,
        assets_of: Mapping[str, tuple[str, str]],
        fence: int | None = None,
    ) -> None:
        self._account = account
        self._writer = writer
        self._clock = clock
        self._assets_of = assets_of
        self._fence = fence

    async def learn(self, markets: Sequence[Market]) -> None:
        """Take over the markets of an exchangeInfo answer; none is no news."""
        told = {market.symbol: (market.base, market.quote) for market in markets}
        if told:
            await self._writer.run(lambda conn: explain.learn_markets(conn, self._account, told, source="venue"))

    async def judge(self, through_ms: int, tell: Tell) -> bool:
        """Judge at ``through_ms`` (venue clock), after a snapshot asked later by the lag of REST was applied.

        True: something was seen once; compare and judge again in ``AGAIN_AFTER_S``.
        """
        await self._name_markets()
        unsettled = await self._judge_balances(through_ms, tell)
        return await self._judge_locks(through_ms, tell) or unsettled

    async def _name_markets(self) -> None:
        """What the settings say, then what the names of the symbols give away."""
        account, assets_of = self._account, self._assets_of
        await self._writer.run(lambda conn: explain.learn_markets(conn, account, assets_of, source="setting"))
        symbols = await self._writer.run(lambda conn: reads.symbols(conn, account))
        await self._writer.run(lambda conn: explain.infer_markets(conn, account, symbols))

    async def _judge_balances(self, through_ms: int, tell: Tell) -> bool:
        found: list[Finding] = []
        for _ in range(ROUNDS_MAX):
            now = _EPOCH + timedelta(milliseconds=self._clock.now_ms())
            found = await self._writer.run(
                lambda conn, now=now: explain.explain(  # type: ignore[misc]
                    conn, self._account, through_ms=through_ms, now=now, fence=self._fence
                )
            )
            telling = [finding for finding in found if explain.told(finding) is not None]
            for finding in telling:
                await self._tell_finding(finding, tell)
            if not telling:
                break
        return any(finding.verdict == "seen" for finding in found)

    async def _tell_finding(self, finding: Finding, tell: Tell) -> None:
        fact = explain.told(finding)
        assert fact is not None
        await tell(f"{finding.verdict} {finding.asset}", fact)
        log.warning(
            {
                "open": "a balance moved without an event",
                "resolve": "a balance is explained since",
                "unjudged": "a balance cannot be judged, executions are missing",
            }[finding.verdict],
            account=self._account,
            asset=finding.asset,
            amount=f"{finding.residual:f}",
        )

    async def _judge_locks(self, through_ms: int, tell: Tell) -> bool:
        """The same for locked amounts: one told per asset at most, settled once the difference is another or gone."""
        account = self._account
        locks = await self._writer.run(lambda conn: explain.locks(conn, account, through_ms=through_ms))
        opened = await self._writer.run(lambda conn: explain.open_locks(conn, account))
        differs = {lock.asset: lock.locked - lock.reserved for lock in locks}
        stands = {one.asset for one in opened if differs.get(one.asset, one.residual) == one.residual}
        for one in opened:
            if one.asset not in stands:
                settled = Resolution(one.discrepancy_id, "explained since: what is locked and the open orders moved on")
                await tell(f"resolve {LOCK} {one.asset}", settled)
        fresh = [lock for lock in locks if lock.locked != lock.reserved and lock.asset not in stands]
        await self._writer.run(lambda conn: explain.forget_locks(conn, account, but=[lock.asset for lock in fresh]))
        waits = False
        for lock in fresh:
            if not await self._writer.run(partial(self._is_confirmed, lock=lock)):
                waits = True
                continue
            await tell(f"{LOCK} {lock.asset}", explain.told_lock(lock))
            log.warning("more or less is locked than the open orders say", account=account, asset=lock.asset)
        return waits

    async def _is_confirmed(self, conn: object, *, lock: Lock) -> bool:
        now_ms, after_ms = self._clock.now_ms(), int(AGAIN_AFTER_S * 1000)
        return await explain.lock_is_confirmed(conn, self._account, lock, now_ms=now_ms, after_ms=after_ms)
