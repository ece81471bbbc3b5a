"""An answer that makes no sense, or none at all, costs its own question: everything else is read, and coverage of what
was asked for ends where it was asked from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ledger.config import Settings
from ledger.reconcile import asking, holes, probe, refusals
from tests.field.venue import API_KEY, API_SECRET, Venue, now_ms, order_row, refusal
from tests.flows.mirrors import DATA_DIR, eventually, mirroring
from tests.flows.scripted_http import Asked, reply

CLOSED = "SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NOT NULL"
ETH_FILLS = "SELECT count(*) FROM ledger_v1.fills WHERE symbol = 'ETHUSDT'"
HOLES = """
    SELECT coalesce(string_agg(DISTINCT concat_ws(' ', kind, symbol), ', '), 'none')
    FROM ledger_v1.discrepancies WHERE resolved_at IS NULL AND uncovered_from_ms IS NOT NULL
"""
LAST_ERROR = "SELECT last_error FROM ledger.venue_state WHERE account = 'main'"
BOTH = "BTCUSDT,ETHUSDT"
COVERED = """
    SELECT coalesce(string_agg(symbol, ' ' ORDER BY symbol), 'nothing')
    FROM ledger_v1.coverage WHERE complete_through_ms IS NOT NULL
"""


def about(name: str, symbol: str | None = None) -> Callable[[Asked], bool]:
    """Whether a question is of this endpoint (and this market)."""
    return lambda asked: asked.path.endswith(f"/{name}") and symbol in (None, asked.params.get("symbol"))


@asynccontextmanager
async def odd(
    is_asked: Callable[[Asked], bool], body: str, status: int = 200, headers: dict[str, str] | None = None
) -> AsyncIterator[Venue]:
    """A venue where BTC and ETH were bought and an order rests of which its list of open orders does not tell; to
    this question it answers with ``body``."""
    async with Venue() as venue:
        venue.balances["ETH"] = ("1", "0")
        venue.traded("BTCUSDT", 1)
        venue.traded("ETHUSDT", 2)
        venue.orders.append(
            order_row("BTCUSDT", 3, venue.start_ms, status="NEW", executedQty="0.00", cummulativeQuoteQty="0.00")
        )
        venue.rules = [
            lambda asked: reply(status, body, headers) if is_asked(asked) else None,
            lambda asked: reply(200, "[]") if asked.path.endswith("/openOrders") else None,
        ]
        yield venue


def settings(venue: Venue, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "account": "main",
        "api_key": SecretStr(API_KEY),
        "api_secret": SecretStr(API_SECRET),
        "rest_url": venue.url,
        "stream_url": venue.stream_url,
        "rest_lag_s": 1,
        "weight_per_minute": 100_000,
        "reconcile_every_s": 2,
        "data_dir": Path(DATA_DIR.name),
        **more,
    }
    return Settings(**given)


@pytest.mark.slow
@pytest.mark.parametrize("body", ["null", '{"code": 0, "data": []}'])
@pytest.mark.parametrize(
    ("is_asked", "hole", "covered"),
    [
        (about("openOrders"), "question_refused", "nothing"),
        (about("account"), "question_refused", "nothing"),
        (about("allOrders", "BTCUSDT"), "symbol_refused BTCUSDT", "ETHUSDT"),
        (about("myTrades", "BTCUSDT"), "order_refused BTCUSDT, symbol_refused BTCUSDT", "ETHUSDT"),
        (about("order", "BTCUSDT"), "none", "* BTCUSDT ETHUSDT"),
        (about("time"), "none", "* BTCUSDT ETHUSDT"),
        (about("exchangeInfo"), "none", "* BTCUSDT ETHUSDT"),
    ],
    ids=["open orders", "account", "orders of a market", "trades of a market", "one order", "time", "markets"],
)
async def test_an_odd_answer_costs_its_own_question(
    is_asked: Callable[[Asked], bool], hole: str, covered: str, body: str, database_url: str, conn: Any
) -> None:
    async with odd(is_asked, body) as venue, mirroring(settings(venue, symbols=BOTH), database_url):
        await eventually(conn, CLOSED, lambda count: count == 1)
        await eventually(conn, ETH_FILLS, lambda count: count == 1)
        assert await conn.fetchval(HOLES) == hole
        assert await conn.fetchval(COVERED) == covered
        # The periodic pass goes on too, and finds what no socket brought.
        venue.traded("ETHUSDT", 4, at_ms=now_ms())
        await eventually(conn, ETH_FILLS, lambda count: count == 2)


async def test_an_odd_answer_does_not_say_that_a_guess_is_no_market(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BTCUSDT is guessed from the assets held. -1121 says that there is no such market; null says nothing."""
    monkeypatch.setattr(refusals, "FIRST_PAUSE_MS", 500)
    monkeypatch.setattr(holes, "NEWS_EVERY_S", 0.1)
    async with odd(about("allOrders", "BTCUSDT"), "null") as venue, mirroring(settings(venue), database_url):
        await eventually(conn, CLOSED, lambda count: count == 1)
        assert await conn.fetchval(HOLES) == "symbol_refused BTCUSDT"
        assert await conn.fetchval(COVERED) == "ETHUSDT"
        gone = refusal(400, -1121, "Invalid symbol.")
        venue.rules = [lambda asked: gone if asked.params.get("symbol") == "BTCUSDT" else None]
        await eventually(conn, HOLES, lambda found: found == "none")
        assert await conn.fetchval(COVERED) == "* ETHUSDT"


# --- no answer to one question ------------------------------------------------------------------------------------

INTERNAL = (500, '{"code": -1001, "msg": "Internal error; unable to process your request."}')
BAD_GATEWAY = (502, "<html><h1>502 Bad Gateway</h1></html>")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is asked again at once, or nearly so."""
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    monkeypatch.setattr(probe, "ATTEMPTS", 1)
    monkeypatch.setattr(refusals, "FIRST_PAUSE_MS", 500)
    monkeypatch.setattr(holes, "NEWS_EVERY_S", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("status", "body"), [INTERNAL, BAD_GATEWAY], ids=["internal error", "bad gateway"])
@pytest.mark.parametrize(
    ("is_asked", "hole", "covered"),
    [
        (about("openOrders"), "question_refused", "nothing"),
        (about("account"), "question_refused", "nothing"),
        (about("allOrders", "BTCUSDT"), "symbol_refused BTCUSDT", "ETHUSDT"),
        (about("myTrades", "BTCUSDT"), "order_refused BTCUSDT, symbol_refused BTCUSDT", "ETHUSDT"),
        (about("order", "BTCUSDT"), "none", "* BTCUSDT ETHUSDT"),
    ],
    ids=["open orders", "account", "orders of a market", "trades of a market", "one order"],
)
async def test_a_question_that_alone_gets_no_answer_stops_no_other(
    is_asked: Callable[[Asked], bool], hole: str, covered: str, status: int, body: str, database_url: str, conn: Any
) -> None:
    async with odd(is_asked, body, status) as venue, mirroring(settings(venue, symbols=BOTH), database_url):
        await eventually(conn, CLOSED, lambda count: count == 1)
        await eventually(conn, ETH_FILLS, lambda count: count == 1)
        assert await conn.fetchval(HOLES) == hole
        assert await conn.fetchval(COVERED) == covered
        venue.traded("ETHUSDT", 4, at_ms=now_ms())
        await eventually(conn, ETH_FILLS, lambda count: count == 2)
        # Once it is answered nothing is left to be known.
        venue.rules = venue.rules[1:]
        await eventually(conn, HOLES, lambda found: found == "none")
        await eventually(conn, COVERED, lambda found: found == "* BTCUSDT ETHUSDT")


@pytest.mark.usefixtures("impatient")
async def test_a_silence_that_one_question_alone_brings_for_ever_ends_before_the_next_question(
    database_url: str, conn: Any
) -> None:
    """Nothing is asked within the silence; after it the other questions are answered."""
    is_asked = about("allOrders", "BTCUSDT")
    async with (
        odd(is_asked, '{"code": -1008, "msg": "Overloaded."}', 503, {"Retry-After": "1"}) as venue,
        mirroring(settings(venue, symbols=BOTH), database_url),
    ):
        await eventually(conn, CLOSED, lambda count: count == 1)
        await eventually(conn, ETH_FILLS, lambda count: count == 1)
        await eventually(conn, COVERED, lambda found: found == "ETHUSDT")
        assert await conn.fetchval(HOLES) == "symbol_refused BTCUSDT"
        venue.rules = venue.rules[1:]
        await eventually(conn, HOLES, lambda found: found == "none")
        await eventually(conn, COVERED, lambda found: found == "* BTCUSDT ETHUSDT")


@pytest.mark.usefixtures("impatient")
async def test_of_a_venue_that_answers_nothing_no_single_question_is_at_fault(database_url: str, conn: Any) -> None:
    async with (
        odd(lambda asked: asked.method == "GET", "{}", status=500) as venue,
        mirroring(settings(venue, symbols=BOTH), database_url, first_contact=False),
    ):
        await eventually(conn, LAST_ERROR, lambda error: error is not None)
        assert await conn.fetchval(CLOSED) == 0
        assert await conn.fetchval(HOLES) == "none"
        venue.rules = venue.rules[1:]
        await eventually(conn, CLOSED, lambda count: count == 1)
        assert await conn.fetchval(HOLES) == "none"
