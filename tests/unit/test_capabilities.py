"""What the venue offers is what it clearly said; a busy venue has said nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.venue import requests
from ledger.venue.capabilities import (
    ABSENT_AFTER_S,
    Capabilities,
    Outcome,
    Said,
    Seen,
    learn,
    look,
    offers,
    proves_key,
)

TRADES = requests.my_trades("BTCUSDT", limit=1)
YES, NO = Seen(True, is_sure=True), Seen(False, is_sure=True, no_since_s=0.0)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(200, body=b"[]"), "offered"),
        (Outcome(400, -1121), "offered"),
        (Outcome(404, -1121), "offered"),
        (Outcome(400, -1102), "offered"),
        (Outcome(404), "absent"),
        (Outcome(405), "absent"),
        (Outcome(410), "absent"),
        (Outcome(404, -5000), "absent"),
        (Outcome(400, -5000), "absent"),
        (Outcome(401), "denied"),
        (Outcome(401, -2015), "denied"),
        (Outcome(400, -2015), "denied"),
        (Outcome(403, -2014), "denied"),
        (Outcome(200, body=b'{"success":false}'), None),
        (Outcome(429, -1003), None),
        (Outcome(418, -1003), None),
        (Outcome(500), None),
        (Outcome(503, -1008), None),
        (Outcome(403), None),
        (Outcome(400, -9999), None),
        (Outcome(400, -1022), None),
    ],
)
def test_does_the_venue_have_my_trades(outcome: Outcome, said: Said) -> None:
    assert offers(TRADES, outcome) == said


def test_each_endpoint_is_known_by_its_own_answer() -> None:
    assert offers(requests.server_time(), Outcome(200, body=b'{"serverTime":1717430400500}')) == "offered"
    assert offers(requests.server_time(), Outcome(200, body=b"{}")) is None
    assert offers(requests.exchange_info(), Outcome(200, body=b'{"symbols":[]}')) == "offered"
    assert offers(requests.exchange_info(), Outcome(200, body=b"[]")) is None


def test_absent_is_what_two_looks_some_time_apart_found() -> None:
    once = look(Seen(), "absent", now_s=100.0)
    assert (once.offered, once.is_sure) == (False, False)
    at_once_again = look(once, "absent", now_s=100.0 + ABSENT_AFTER_S - 1)
    assert not at_once_again.is_sure
    later = look(at_once_again, "absent", now_s=100.0 + ABSENT_AFTER_S)
    assert (later.offered, later.is_sure) == (False, True)


def test_what_is_unclear_is_unknown_whatever_was_known_before() -> None:
    for before in (Seen(), YES, NO):
        seen = look(before, None, now_s=7.0)
        assert (seen.offered, seen.is_sure) == (None, False)


def test_one_yes_is_enough_and_ends_a_row_of_noes() -> None:
    once = look(Seen(), "absent", now_s=0.0)
    assert look(once, "offered", now_s=500.0) == YES
    assert not look(look(once, "offered", now_s=500.0), "absent", now_s=1000.0).is_sure


@pytest.mark.parametrize(
    ("trades", "fields", "mode"),
    [
        (YES, set(), "trades"),
        (YES, {"cummulativeQuoteQty"}, "trades"),
        (NO, {"executedQty", "cummulativeQuoteQty"}, "orders_quote"),
        (NO, {"executedQty"}, "orders"),
        (NO, set(), "orders"),
        (Seen(), {"cummulativeQuoteQty"}, "orders_quote"),
        (Seen(False), set(), "orders"),
    ],
)
def test_the_recovery_mode(trades: Seen, fields: set[str], mode: str) -> None:
    found = Capabilities(trades, YES, NO, frozenset(fields))
    assert (found.mode, found.has_time, found.has_exchange_info) == (mode, True, False)


@pytest.mark.parametrize("silent", ["trades", "time", "markets"])
def test_what_one_look_left_open_is_worked_without_and_asked_again(silent: str) -> None:
    known: dict[str, Seen] = {"trades": YES, "time": YES, "markets": YES}
    assert Capabilities(**known).is_sure  # type: ignore[arg-type]
    found = replace(Capabilities(**known), **{silent: Seen()})  # type: ignore[arg-type]
    assert not found.is_sure
    assert [found.mode == "trades", found.has_time, found.has_exchange_info].count(False) == 1


def test_an_account_without_orders_shows_the_quote_later() -> None:
    before = Capabilities(NO, YES, NO)
    after = learn(before, frozenset({"executedQty", "cummulativeQuoteQty"}))
    assert after.mode == "orders_quote"
    assert learn(after, frozenset({"executedQty"})) == after
    assert learn(Capabilities(YES), frozenset({"executedQty"})).mode == "trades"


def test_only_what_every_key_may_ask_proves_a_key() -> None:
    for may in (
        requests.account(),
        requests.open_orders(),
        requests.all_orders("BTCUSDT"),
        requests.query_order("BTCUSDT", 7),
        requests.query_order("BTCUSDT", 7, settle=True),
        requests.create_listen_key(),
        requests.extend_listen_key("k"),
    ):
        assert proves_key(may)
    for other in (TRADES, requests.server_time(), requests.exchange_info()):
        assert not proves_key(other)


def test_what_the_key_may_not_have_is_asked_for_again_however_often_it_was_denied() -> None:
    once = look(YES, "denied", now_s=0.0)
    again = look(once, "denied", now_s=ABSENT_AFTER_S * 100)
    assert (once.offered, again.offered, again.is_sure) == (False, False, False)
