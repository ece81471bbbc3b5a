"""A market that the stream names for the first time: what happened there before is read soon, not at the next pass."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.db import coverage
from ledger.reconcile import holes
from tests.field.venue import Venue, now_ms
from tests.flows.mirrors import eventually, mirroring
from tests.flows.test_odd_answers import CLOSED, COVERED, settings

OLD_FILLS = "SELECT count(*) FROM ledger_v1.fills WHERE symbol = 'DOGEUSDT'"


def resting(symbol: str, order_id: int) -> dict[str, Any]:
    """The frame of an order that has come to rest just now."""
    at_ms = now_ms()
    told = {"e": "executionReport", "s": symbol, "i": order_id, "S": "BUY", "o": "LIMIT", "f": "GTC", "x": "NEW"}
    numbers = {"q": "10.00", "p": "2.00", "l": "0.00", "z": "0.00", "L": "0.00", "n": "0", "N": None, "t": -1}
    return told | numbers | {"X": "NEW", "c": f"c{order_id}", "E": at_ms, "T": at_ms, "O": at_ms}


async def test_what_a_new_market_had_before_is_read_at_once(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is held points to DOGEUSDT, and the venue lists no markets."""
    monkeypatch.setattr(holes, "NEWS_EVERY_S", 0.1)
    async with Venue() as venue:
        venue.traded("BTCUSDT", 1)
        venue.traded("DOGEUSDT", 2)
        async with mirroring(settings(venue, reconcile_every_s=300), database_url):
            await eventually(conn, CLOSED, lambda count: count == 1)
            await eventually(conn, COVERED, lambda covered: covered == "* BTCUSDT")
            assert await conn.fetchval(OLD_FILLS) == 0
            await venue.push(resting("DOGEUSDT", 3))
            await eventually(conn, OLD_FILLS, lambda count: count == 1)
            await eventually(conn, COVERED, lambda covered: covered == "* BTCUSDT DOGEUSDT")


async def test_a_market_that_was_none_at_first_is_found_by_a_walk_that_somebody_asks_for(
    database_url: str, conn: Any
) -> None:
    """ETH is held, so ETHUSDT is tried; the venue does not know it then, and nothing names it later."""
    async with Venue() as venue:
        venue.balances["ETH"] = ("10", "0")
        venue.traded("BTCUSDT", 1)
        async with mirroring(settings(venue, reconcile_every_s=300), database_url):
            await eventually(conn, COVERED, lambda covered: covered == "* BTCUSDT")
            assert "ETHUSDT" in [asked.params["symbol"] for asked in venue.calls("allOrders")]
            venue.traded("ETHUSDT", 2)
            await coverage.open_gap(
                conn, "main", cause=coverage.ASKED_FOR, until_ms=now_ms(), not_after_ms=0, live=False
            )
            await eventually(conn, COVERED, lambda covered: covered == "* BTCUSDT ETHUSDT")
