"""What the venue offers is what it clearly said; a busy venue has said nothing."""

from __future__ import annotations

import pytest

from ledger.venue import requests
from ledger.venue.capabilities import Capabilities, Outcome, decide, learn, offers

TRADES = requests.my_trades("BTCUSDT", limit=1)


@pytest.mark.parametrize(
    ("outcome", "offered"),
    [
        (Outcome(200, body=b"[]"), True),
        (Outcome(400, -1121), True),
        (Outcome(404, -1121), True),
        (Outcome(400, -1102), True),
        (Outcome(404), False),
        (Outcome(405), False),
        (Outcome(410), False),
        (Outcome(404, -5000), False),
        (Outcome(400, -5000), False),
        (Outcome(200, body=b'{"success":false}'), False),
        (Outcome(429, -1003), None),
        (Outcome(418, -1003), None),
        (Outcome(500), None),
        (Outcome(503, -1008), None),
        (Outcome(401, -2015), None),
        (Outcome(403), None),
        (None, None),
    ],
)
def test_does_the_venue_have_my_trades(outcome: Outcome | None, offered: bool | None) -> None:
    assert offers(TRADES, outcome) is offered


def test_each_endpoint_is_known_by_its_own_answer() -> None:
    assert offers(requests.server_time(), Outcome(200, body=b'{"serverTime":1717430400500}')) is True
    assert offers(requests.server_time(), Outcome(200, body=b"{}")) is False
    assert offers(requests.exchange_info(), Outcome(200, body=b'{"symbols":[]}')) is True
    assert offers(requests.exchange_info(), Outcome(200, body=b"[]")) is False


@pytest.mark.parametrize(
    ("has_trades", "fields", "mode"),
    [
        (True, set(), "trades"),
        (True, {"cummulativeQuoteQty"}, "trades"),
        (False, {"executedQty", "cummulativeQuoteQty"}, "orders_quote"),
        (False, {"executedQty"}, "orders"),
        (False, set(), "orders"),
    ],
)
def test_the_recovery_mode(has_trades: bool, fields: set[str], mode: str) -> None:
    found = decide(has_trades=has_trades, has_time=True, has_exchange_info=False, order_fields=frozenset(fields))
    assert found is not None
    assert (found.mode, found.has_time, found.has_exchange_info) == (mode, True, False)


@pytest.mark.parametrize("silent", ["has_trades", "has_time", "has_exchange_info"])
def test_nothing_is_decided_while_one_probe_is_open(silent: str) -> None:
    answers: dict[str, bool | None] = {"has_trades": True, "has_time": True, "has_exchange_info": True}
    assert decide(**answers | {silent: None}, order_fields=frozenset()) is None


def test_an_account_without_orders_shows_the_quote_later() -> None:
    before = Capabilities("orders", True, False, frozenset())
    after = learn(before, frozenset({"executedQty", "cummulativeQuoteQty"}))
    assert after.mode == "orders_quote"
    assert learn(after, frozenset({"executedQty"})) == after
    assert learn(Capabilities("trades", True, False, frozenset()), frozenset({"executedQty"})).mode == "trades"
