"""What a walk asks, step by step: values in, requests out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ledger.db.apply import WalkStep
from ledger.db.reads import Known, OrderKey
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Snapshot
from ledger.reconcile import plan
from ledger.reconcile.course import DAY_MS
from ledger.reconcile.plan import Healing, Scope, Walk, quiet_symbols
from ledger.reconcile.runner import time_left_s
from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Market, Page

GAP_MS = 1_700_000_000_000
FULL = requests.LIMIT_MAX


def known(
    *symbols: str,
    open_orders: Iterable[OrderKey] = (),
    untold: Iterable[OrderKey] = (),
    missing: Iterable[OrderKey] = (),
) -> Known:
    """Orders on these symbols, all of which were walked before."""
    return Known(100, symbols, tuple(open_orders), tuple(untold), tuple(missing), covered=frozenset(symbols))


def walk(scope: Scope, state: Known, *, trades: bool = False, markets: bool = False, **more: object) -> Walk:
    return Walk(scope, state, trades, markets, **more)  # type: ignore[arg-type]


def questions(asked: Iterable[Request]) -> list[str]:
    return [request.question.replace("/api/v1/", "") for request in asked]


def order(symbol: str, order_id: int) -> Order:
    return Order(symbol, order_id, status="NEW")


def fill(symbol: str, order_id: int) -> Fill:
    return Fill(symbol, order_id, "BUY", Exact("1"), Exact("1"), GAP_MS, trade_id=1)


def holding(*assets: str) -> Page:
    balances = tuple(Balance(asset, Exact("1"), Exact("0")) for asset in assets)
    return Page((Snapshot(balances),), rows=len(assets))


def page(
    *facts: Fact,
    rows: int | None = None,
    first_ms: int | None = None,
    last_ms: int | None = None,
    first_id: int | None = None,
    last_id: int | None = None,
) -> Page:
    return Page(
        facts,
        rows=len(facts) if rows is None else rows,
        first_ms=first_ms,
        last_ms=last_ms,
        first_id=first_id,
        last_id=last_id,
    )


def orders_from(start_ms: int, symbol: str = "BTCUSDT") -> Request:
    return requests.all_orders(symbol, start_ms=start_ms)


def orders_by_id(order_id: int) -> Request:
    return requests.all_orders("BTCUSDT", order_id=order_id)


def trades_by_id(trade_id: int) -> Request:
    return requests.my_trades("BTCUSDT", from_id=trade_id)


def trades_from(start_ms: int, symbol: str = "BTCUSDT") -> Request:
    return requests.my_trades(symbol, start_ms=start_ms)


class TestFirst:
    def test_a_gap_asks_resting_orders_and_account_first_then_every_known_symbol_from_a_minute_before_it(self) -> None:
        asked = walk(Scope(GAP_MS), known("BTCUSDT", "ETHUSDT"), trades=True).first()

        start = GAP_MS - plan.OVERLAP_MS
        assert plan.OVERLAP_MS == 60_000
        assert questions(asked) == [
            "GET openOrders",
            "GET account",
            f"GET allOrders symbol=BTCUSDT&startTime={start}&limit=1000",
            f"GET myTrades symbol=BTCUSDT&startTime={start}&limit=1000",
            f"GET allOrders symbol=ETHUSDT&startTime={start}&limit=1000",
            f"GET myTrades symbol=ETHUSDT&startTime={start}&limit=1000",
        ]

    def test_where_trades_cannot_be_read_none_are_asked_for(self) -> None:
        asked = walk(Scope(GAP_MS), known("BTCUSDT")).first()

        assert [request.kind for request in asked] == ["openOrders", "account", "allOrders"]

    def test_from_the_beginning_is_from_the_first_millisecond_for_known_and_configured_symbols_once(self) -> None:
        asked = walk(Scope(None), known("BTCUSDT"), configured=("BTCUSDT", "DOGEUSDT")).first()

        assert asked[2:] == [orders_from(0), orders_from(0, "DOGEUSDT")]

    def test_a_gap_in_the_first_minute_of_time_starts_at_zero(self) -> None:
        assert walk(Scope(30_000), known("BTCUSDT")).first()[-1] == orders_from(0)

    def test_the_market_list_is_asked_where_there_is_one_before_the_account_that_is_guessed_from(self) -> None:
        asked = walk(Scope(None), known(), markets=True).first()

        assert [request.kind for request in asked] == ["openOrders", "exchangeInfo", "account"]

    def test_a_quiet_pass_asks_only_its_symbols_and_no_market_list(self) -> None:
        asked = walk(Scope(GAP_MS, ("ETHUSDT",)), known("BTCUSDT", "ETHUSDT"), markets=True).first()

        assert [(request.kind, request.symbol) for request in asked] == [
            ("openOrders", None),
            ("account", None),
            ("allOrders", "ETHUSDT"),
        ]


class TestPaging:
    @pytest.mark.parametrize("ask", [orders_from, trades_from])
    def test_a_full_page_is_followed_from_its_last_row_inclusive(self, ask: type[Request]) -> None:
        one = walk(Scope(None), known("BTCUSDT"), trades=True)
        one.first()

        nexts = one.answered(ask(0), page(rows=FULL, first_ms=5, last_ms=7_000))  # type: ignore[arg-type,call-arg]

        assert nexts == [ask(7_000)]  # type: ignore[arg-type,call-arg]
        assert one.stuck == []

    @pytest.mark.parametrize("cap", [2, 50, 100, 500, FULL - 1])
    def test_a_page_shorter_than_asked_for_is_followed_until_one_brings_nothing_new(self, cap: int) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        assert one.answered(orders_from(0), page(rows=cap, first_ms=5, last_ms=7_000)) == [orders_from(7_000)]
        more = page(rows=cap, first_ms=7_000, last_ms=9_000)
        assert one.answered(orders_from(7_000), more) == [orders_from(9_000)]
        assert one.answered(orders_from(9_000), page(rows=1, first_ms=9_000, last_ms=9_000)) == []
        assert (one.symbols_done, one.stuck) == (1, [])

    def test_a_page_with_fewer_rows_than_another_of_its_kind_is_the_last(self) -> None:
        one = walk(Scope(None), known("BTCUSDT", "ETHUSDT"), trades=True)
        one.first()
        one.answered(orders_from(0), page(rows=100, first_ms=5, last_ms=7_000))

        assert one.answered(orders_from(0, "ETHUSDT"), page(rows=99, first_ms=5, last_ms=7_000)) == []
        trades = page(rows=99, first_ms=5, last_ms=7_000)
        assert one.answered(trades_from(0, "ETHUSDT"), trades) == [trades_from(7_000, "ETHUSDT")], "of another kind"

    @pytest.mark.parametrize("rows", [0, 1])
    def test_a_page_with_one_row_at_most_is_the_last(self, rows: int) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        assert one.answered(orders_from(0), page(rows=rows, first_ms=5, last_ms=7_000)) == []

    def test_a_short_page_within_one_millisecond_goes_on_by_id(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        crowded = page(rows=50, first_ms=0, last_ms=0, first_id=1, last_id=50)
        assert one.answered(orders_from(0), crowded) == [orders_by_id(50)]
        assert one.answered(orders_by_id(50), page(rows=1, first_ms=0, last_ms=0, first_id=50, last_id=50)) == []
        assert (one.symbols_done, one.stuck) == (1, [])

    def test_a_limit_that_is_refused_is_halved_for_every_question_of_its_kind(self) -> None:
        one = walk(Scope(None), known("BTCUSDT", "ETHUSDT"), trades=True)
        one.first()

        (half,) = one.smaller(orders_from(0))
        assert half == requests.all_orders("BTCUSDT", start_ms=0, limit=FULL // 2)
        (next_page,) = one.answered(half, page(rows=FULL // 2, first_ms=5, last_ms=7_000))
        assert next_page == requests.all_orders("BTCUSDT", start_ms=7_000, limit=FULL // 2)
        (other,) = one.answered(orders_from(0, "ETHUSDT"), page(rows=FULL, first_ms=5, last_ms=7_000))
        assert other.limit == FULL // 2
        (trades,) = one.answered(trades_from(0), page(rows=FULL, first_ms=5, last_ms=7_000))
        assert trades.limit == FULL

    def test_a_limit_that_was_found_before_is_asked_for_at_once(self) -> None:
        asked = walk(Scope(None), known("BTCUSDT"), trades=True, limits={"myTrades": 100}).first()

        assert [request.limit for request in asked] == [None, None, FULL, 100]

    @pytest.mark.parametrize(("range_ms", "back_ms"), [(90 * DAY_MS, 90 * DAY_MS - 60_000), (None, 729.958 * DAY_MS)])
    def test_a_history_cut_by_age_is_read_from_where_it_begins_and_says_so(
        self, range_ms: int | None, back_ms: float
    ) -> None:
        one = walk(Scope(None), known("BTCUSDT"), now_ms=GAP_MS, healing=Healing(1, 1))
        one.first()

        nexts = one.too_old(orders_from(0), range_ms, GAP_MS)
        assert nexts is not None
        (request,) = nexts
        start_ms = int(dict(request.params)["startTime"])
        assert GAP_MS - start_ms == pytest.approx(back_ms, rel=1e-6)
        one.answered(request, page())
        step = one.step(request, page(), GAP_MS)
        assert step is not None
        assert (step.done, step.covers, step.served_from_ms) == (True, 1, start_ms)

    @pytest.mark.parametrize("range_ms", [None, 90 * DAY_MS])
    def test_a_question_that_is_refused_for_its_age_however_late_it_begins_is_not_asked_for_ever(
        self, range_ms: int | None
    ) -> None:
        """Time goes on between the tries, so a start a moment later is always left to try."""
        one = walk(Scope(None), known("BTCUSDT"), now_ms=GAP_MS)
        one.first()
        request, asked = orders_from(0), 0
        while nexts := one.too_old(request, range_ms, GAP_MS + asked):
            (request,), asked = nexts, asked + 1
            assert asked < 20

        assert asked > 5

    @pytest.mark.parametrize("kind", ["allOrders", "myTrades"])
    def test_a_full_page_within_one_millisecond_goes_on_by_id_and_then_by_time_again(self, kind: str) -> None:
        at, ask = (orders_from, orders_by_id) if kind == "allOrders" else (trades_from, trades_by_id)
        one = walk(Scope(None), known("BTCUSDT"), trades=True)
        one.first()

        crowded = page(rows=FULL, first_ms=7_000, last_ms=7_000, first_id=1, last_id=1_000)
        assert one.answered(at(0), page(rows=FULL, first_ms=5, last_ms=7_000)) == [at(7_000)]
        assert one.answered(at(7_000), crowded) == [ask(1_000)]
        still = page(rows=FULL, first_ms=7_000, last_ms=7_000, first_id=1_000, last_id=1_999)
        assert one.answered(ask(1_000), still) == [ask(1_999)]
        past = page(rows=FULL, first_ms=7_000, last_ms=9_000, first_id=1_999, last_id=2_998)
        assert one.answered(ask(1_999), past) == [at(7_001)]
        assert (one.stuck, one.doubts()) == ([], [])

    def test_a_short_page_by_id_was_the_last_of_all(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()
        one.answered(orders_from(0), page(rows=FULL, first_ms=0, last_ms=0, first_id=1, last_id=1_000))

        short = page(rows=3, first_ms=0, last_ms=8, first_id=1_000, last_id=1_002)
        assert one.answered(orders_by_id(1_000), short) == []
        assert one.symbols_done == 1

    @pytest.mark.parametrize(
        "answer",
        [
            page(rows=FULL, first_ms=9_000, last_ms=9_999, first_id=5_000, last_id=6_000),
            page(rows=FULL, first_ms=0, last_ms=0, first_id=1_000, last_id=1_000),
            page(rows=0),
        ],
        ids=["newest rows instead", "no id beyond the cursor", "nothing"],
    )
    def test_where_ids_are_not_honoured_the_crowded_millisecond_is_reported_and_passed(self, answer: Page) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()
        one.answered(orders_from(0), page(rows=FULL, first_ms=0, last_ms=0, first_id=1, last_id=1_000))

        assert one.answered(orders_by_id(1_000), answer) == [orders_from(1)]
        (told,) = one.stuck
        assert told == ("allOrders BTCUSDT: 1000 rows within the millisecond 0, the venue cannot be asked for the rest")
        assert one.doubts() == [Doubt("history_unreachable", told, None, None, symbol="BTCUSDT", uncovered_from_ms=0)]
        assert one.doubts() == [], "told once"

    def test_a_crowded_millisecond_without_ids_is_reported_and_passed(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        assert one.answered(orders_from(0), page(rows=FULL, first_ms=0, last_ms=0)) == [orders_from(1)]
        assert len(one.stuck) == 1

    def test_a_venue_that_ignores_the_start_is_reported_and_not_asked_for_ever(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT"), trades=True)
        one.first()
        start = GAP_MS - plan.OVERLAP_MS

        newest = page(rows=FULL, first_ms=start - 1, last_ms=GAP_MS, first_id=50, last_id=1_049)
        assert one.answered(trades_from(start), newest) == []
        askew, told = one.stuck
        assert askew == "myTrades BTCUSDT: expected rows from startTime on, got rows from before it"
        assert told == "myTrades BTCUSDT: the venue ignores startTime, so only its newest rows can be read"

    def test_in_a_first_load_a_venue_that_ignores_the_start_is_read_by_id_from_the_first(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()
        newest = page(rows=FULL, first_ms=5_000, last_ms=6_000, first_id=1_500, last_id=2_499)

        assert one.answered(orders_from(0), newest) == [orders_from(6_000)]
        assert one.answered(orders_from(6_000), newest) == [orders_by_id(0)]
        oldest = page(rows=FULL, first_ms=10, last_ms=4_000, first_id=1, last_id=1_600)
        assert one.answered(orders_by_id(0), oldest) == [orders_by_id(1_600)]
        assert one.answered(orders_by_id(1_600), page(rows=900, first_ms=4_000, last_ms=6_000, first_id=1_600)) == []
        assert [doubt.kind for doubt in one.doubts()] == ["rest_window"], "odd, but nothing is missing"

    def test_a_venue_that_ignores_the_ids_too_is_reported(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()
        newest = page(rows=FULL, first_ms=5_000, last_ms=6_000, first_id=1_500, last_id=2_499)
        one.answered(orders_from(0), newest)
        one.answered(orders_from(6_000), newest)

        assert one.answered(orders_by_id(0), newest) == []
        assert "ignores startTime" in one.stuck[-1]

    def test_however_a_venue_answers_the_same_full_page_the_walk_ends(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        waiting, asked = one.first(), 0
        while waiting:
            asked += 1
            assert asked < 20
            request = waiting.pop()
            if request.kind == "allOrders":
                waiting += one.answered(request, page(rows=FULL, first_ms=1_000, last_ms=2_000, first_id=3, last_id=4))

        assert "ignores startTime" in one.stuck[-1]

    def test_trades_of_one_order_are_paged_by_trade_id_from_the_first(self) -> None:
        """Without an id the venue gives the newest page."""
        one = walk(Scope(GAP_MS), known("BTCUSDT", missing=[("BTCUSDT", 9)]), trades=True)
        (by_order,) = one.last(known(missing=[("BTCUSDT", 9)]))

        nexts = one.answered(by_order, Page(rows=FULL, first_ms=1, last_ms=2, first_id=1, last_id=1_500))

        assert nexts == [requests.my_trades("BTCUSDT", order_id=9, from_id=0)]
        first, last = Page(rows=FULL, first_ms=1, last_ms=2, first_id=1, last_id=1_500), Page(rows=1)
        (on,) = one.answered(nexts[0], first)
        assert on == requests.my_trades("BTCUSDT", order_id=9, from_id=1_500)
        assert one.answered(on, last) == []

    def test_a_full_page_without_any_readable_time_goes_on_by_id(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        assert one.answered(orders_from(0), page(rows=FULL, first_id=1, last_id=1_000)) == [orders_by_id(1_000)]
        more = page(rows=FULL, first_id=1_000, last_id=1_999)
        assert one.answered(orders_by_id(1_000), more) == [orders_by_id(1_999)]

    def test_a_full_page_without_time_and_id_ends_there_and_says_so(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()

        assert one.answered(orders_from(0), page(rows=FULL)) == []
        (told,) = one.stuck
        assert "tells no times" in told

    def test_nothing_is_asked_twice_but_the_account(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        first = one.first()

        assert [request.kind for request in one.first()] == ["account"]
        assert one.answered(orders_from(0), page(order("BTCUSDT", 1), order("BTCUSDT", 2))) == []
        assert len(first) == 3


class TestOrders:
    def test_an_order_open_here_and_absent_there_is_asked_for_by_itself(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT", open_orders=[("BTCUSDT", 1), ("BTCUSDT", 2), ("ETHUSDT", 3)]))
        one.first()

        nexts = one.answered(requests.open_orders(), page(order("BTCUSDT", 2)))

        assert nexts == [requests.query_order("BTCUSDT", 1), requests.query_order("ETHUSDT", 3)]

    def test_when_all_answers_are_in_only_orders_nobody_has_told_are_asked_for(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT", open_orders=[("BTCUSDT", 1)]))
        one.first()
        one.answered(requests.open_orders(), page())
        one.answered(requests.query_order("BTCUSDT", 1), page(order("BTCUSDT", 1)))
        one.answered(orders_from(GAP_MS), page(order("BTCUSDT", 4)))

        lasts = one.last(known("BTCUSDT", open_orders=[("BTCUSDT", 1), ("BTCUSDT", 4), ("BTCUSDT", 5)]))

        assert lasts == [requests.query_order("BTCUSDT", 5)]

    def test_an_order_known_from_a_trade_alone_is_asked_for_and_a_missing_fill_where_trades_can_be_read(self) -> None:
        state = known(untold=[("BTCUSDT", 6)], missing=[("BTCUSDT", 7)])

        assert walk(Scope(GAP_MS), known()).last(state) == [requests.query_order("BTCUSDT", 6)]
        assert walk(Scope(GAP_MS), known(), trades=True).last(state) == [
            requests.query_order("BTCUSDT", 6),
            requests.my_trades("BTCUSDT", order_id=7),
        ]

    def test_a_fill_does_not_confirm_its_order(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT"), trades=True)
        one.answered(trades_from(GAP_MS), page(fill("BTCUSDT", 8)))

        assert one.last(known(untold=[("BTCUSDT", 8)])) == [requests.query_order("BTCUSDT", 8)]


class TestSymbols:
    def test_a_symbol_first_seen_in_an_answer_is_walked_too_from_the_beginning(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT"), trades=True)
        one.first()

        nexts = one.answered(requests.open_orders(), page(order("SOLUSDT", 1)))

        assert nexts == [orders_from(0, "SOLUSDT"), trades_from(0, "SOLUSDT")]
        assert one.symbols == ("BTCUSDT", "SOLUSDT")

    @pytest.mark.parametrize("from_ms", [None, GAP_MS], ids=["first start", "gap"])
    def test_symbols_are_guessed_from_the_assets_held_also_in_a_gap(self, from_ms: int | None) -> None:
        one = walk(Scope(from_ms), known("BTCUSDT"), trades=True)
        one.first()

        nexts = one.answered(requests.account(), holding("USDT", "BTC", "SHIB"))

        assert [(request.kind, request.symbol) for request in nexts] == [
            ("allOrders", "SHIBUSDT"),
            ("allOrders", "USDTBTC"),
            ("allOrders", "SHIBBTC"),
        ]

    def test_trades_of_a_guess_are_asked_for_only_when_it_has_orders(self) -> None:
        one = walk(Scope(None), known(), trades=True)
        one.first()
        one.answered(requests.account(), holding("USDT", "SHIB", "BNB"))

        assert one.answered(orders_from(0, "BNBUSDT"), page()) == []
        assert one.answered(orders_from(0, "SHIBUSDT"), page(order("SHIBUSDT", 1))) == [trades_from(0, "SHIBUSDT")]

    def test_a_guess_that_shows_orders_in_a_gap_is_walked_from_the_beginning_then(self) -> None:
        one = walk(Scope(GAP_MS), known("BTCUSDT"), trades=True)
        one.first()
        guess = orders_from(GAP_MS - plan.OVERLAP_MS, "SHIBUSDT")

        assert one.answered(requests.account(), holding("USDT", "SHIB")) == [guess]
        assert one.answered(guess, page(order("SHIBUSDT", 1))) == [
            orders_from(0, "SHIBUSDT"),
            trades_from(0, "SHIBUSDT"),
        ]

    def test_an_account_of_a_thousand_assets_is_not_guessed_at_without_end(self) -> None:
        one = walk(Scope(None), known())
        assets = [f"COIN{number}" for number in range(1_000)]

        assert len(one.answered(requests.account(), holding("USDT", "BTC", *assets))) == plan.CANDIDATES_MAX

    def test_where_the_venue_lists_its_markets_only_those_are_guessed_and_in_a_first_load_all_of_them(self) -> None:
        one = walk(Scope(None), known(), markets=True)
        listed = Page(rows=2, markets=(Market("SHIBUSDT", "SHIB", "USDT"), Market("XRPUSDT", "XRP", "USDT")))
        one.answered(requests.exchange_info(), listed)

        nexts = one.answered(requests.account(), holding("USDT", "BTC", "SHIB"))

        assert [request.symbol for request in nexts] == ["SHIBUSDT", "XRPUSDT"], "the likely ones first"
        later = walk(Scope(GAP_MS), known("BTCUSDT"), markets=True)
        later.answered(requests.exchange_info(), listed)
        guessed = later.answered(requests.account(), holding("USDT", "BTC", "SHIB"))
        assert [request.symbol for request in guessed] == ["SHIBUSDT"]

    def test_a_refused_guess_is_told_from_a_refused_symbol_and_never_asked_again(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"))
        one.first()
        one.answered(requests.account(), holding("USDT", "SHIB"))

        assert (one.refuse("SHIBUSDT"), one.refuse("BTCUSDT")) == (True, False)
        assert one.symbols == ()
        again = walk(Scope(None), known(), refused=frozenset({"SHIBUSDT"}))
        assert again.answered(requests.account(), holding("USDT", "SHIB")) == []

    def test_a_quiet_pass_guesses_nothing_but_follows_a_symbol_it_has_never_seen(self) -> None:
        one = walk(Scope(GAP_MS, ("BTCUSDT",)), known("BTCUSDT", "ETHUSDT"))
        one.first()

        assert one.answered(requests.account(), holding("USDT", "SHIB")) == []
        found = one.answered(requests.open_orders(), page(order("ETHUSDT", 1), order("SOLUSDT", 2)))
        assert [request.symbol for request in found] == ["SOLUSDT"]

    def test_a_strict_scope_leaves_everything_else_alone(self) -> None:
        state = known("BTCUSDT", untold=[("ETHUSDT", 1), ("BTCUSDT", 2)], missing=[("ETHUSDT", 3), ("BTCUSDT", 4)])
        one = walk(Scope(GAP_MS, ("BTCUSDT",), strict=True), state, trades=True)

        assert {request.symbol for request in one.first()} == {None, "BTCUSDT"}
        assert one.answered(requests.account(), holding("USDT", "SHIB")) == []
        assert one.answered(requests.open_orders(), page(order("SOLUSDT", 9))) == []
        assert one.last(state) == [
            requests.query_order("BTCUSDT", 2),
            requests.my_trades("BTCUSDT", order_id=4),
        ]

    def test_a_strict_scope_is_not_crowded_out_by_orders_of_other_symbols(self) -> None:
        elsewhere = [("AAAUSDT", number) for number in range(plan.SINGLES_MAX + 1)]
        state = known("BTCUSDT", missing=[*elsewhere, ("BTCUSDT", 4)])
        one = walk(Scope(GAP_MS, ("BTCUSDT",), strict=True), state, trades=True)

        assert one.last(state) == [requests.my_trades("BTCUSDT", order_id=4)]


class TestQuietPass:
    @pytest.mark.parametrize("every_s", [1, 300, 3_600, 86_400])
    @pytest.mark.parametrize("count", [1, 7, 288, 289, 1_000])
    def test_every_symbol_comes_up_within_a_day(self, every_s: int, count: int) -> None:
        names = tuple(f"S{number:04d}" for number in range(count))
        passes = plan.DAY_S // every_s
        first_of_the_day = 5 * passes

        seen: set[str] = set()
        for number in range(first_of_the_day, first_of_the_day + passes):
            share = quiet_symbols(names, (), pass_no=number, every_s=every_s)
            assert 1 <= len(share) <= -(-count // passes) + 1
            seen.update(share)
            if len(seen) == count:
                break

        assert seen == set(names)

    def test_what_was_active_is_asked_in_every_pass(self) -> None:
        names = tuple(f"S{number}" for number in range(50))

        for number in range(10):
            assert {"S3", "NEWUSDT"} <= set(quiet_symbols(names, ["S3", "NEWUSDT"], pass_no=number, every_s=300))

    def test_without_symbols_there_is_nothing_to_ask(self) -> None:
        assert quiet_symbols((), (), pass_no=0, every_s=300) == ()


def test_a_venue_that_takes_no_open_end_is_asked_day_by_day_up_to_now() -> None:
    day_ms = DAY_MS
    it = walk(Scope(GAP_MS + plan.OVERLAP_MS), known("BTCUSDT"), now_ms=GAP_MS + 2 * day_ms)
    it.first()

    (first,) = it.too_wide(orders_from(GAP_MS))
    assert first == requests.all_orders("BTCUSDT", start_ms=GAP_MS, end_ms=GAP_MS + day_ms - 1)
    (more,) = it.answered(first, page(rows=FULL, first_ms=GAP_MS, last_ms=GAP_MS + 5))
    assert more == requests.all_orders("BTCUSDT", start_ms=GAP_MS + 5, end_ms=GAP_MS + day_ms - 1)
    (second,) = it.answered(more, page(rows=3, first_ms=GAP_MS + 5, last_ms=GAP_MS + 9))
    assert second == requests.all_orders("BTCUSDT", start_ms=GAP_MS + day_ms, end_ms=GAP_MS + 2 * day_ms - 1)
    (third,) = it.answered(second, page())
    assert it.answered(third, page()) == [], "that day holds the present"
    assert it.stuck == []


def test_days_since_the_beginning_are_never_enumerated_but_read_by_id() -> None:
    it = walk(Scope(None), known("BTCUSDT"), now_ms=GAP_MS)
    it.first()

    assert it.too_wide(orders_from(0)) == [requests.all_orders("BTCUSDT")]
    newest = page(rows=FULL, first_ms=5_000, last_ms=6_000, first_id=500, last_id=1_499)
    assert it.answered(requests.all_orders("BTCUSDT"), newest) == [orders_by_id(0)]
    assert it.answered(orders_by_id(0), page(rows=FULL, first_ms=1, last_ms=5_500, first_id=9, last_id=900)) == [
        orders_by_id(900)
    ]
    assert it.stuck == []


def test_where_that_is_not_honoured_either_the_newest_page_is_what_there_is_and_it_says_what_to_set() -> None:
    it = walk(Scope(None), known("BTCUSDT"), now_ms=GAP_MS)
    it.first()
    it.too_wide(orders_from(0))
    newest = page(rows=FULL, first_ms=5_000, last_ms=6_000, first_id=500, last_id=1_499)
    it.answered(requests.all_orders("BTCUSDT"), newest)

    assert it.answered(orders_by_id(0), newest) == []
    assert "set SDX_HISTORY_START" in it.stuck[0]


def test_a_newest_page_that_is_not_full_is_everything_there_is() -> None:
    it = walk(Scope(None), known("BTCUSDT"), now_ms=GAP_MS)
    it.first()
    it.too_wide(orders_from(0))

    newest = page(rows=FULL - 1, first_ms=5, last_ms=6, first_id=3, last_id=FULL + 1)
    assert it.answered(requests.all_orders("BTCUSDT"), newest) == [orders_by_id(0)]
    assert it.answered(orders_by_id(0), newest) == [orders_by_id(FULL + 1)], "it may be the venue's limit"
    assert it.answered(orders_by_id(FULL + 1), page(rows=1, first_ms=6, last_ms=6, first_id=FULL + 1)) == []
    assert (it.stuck, it.symbols_done) == ([], 1)


def test_a_day_that_ends_on_a_row_is_followed_by_a_window_of_its_own() -> None:
    it = walk(Scope(GAP_MS + plan.OVERLAP_MS), known("BTCUSDT"), now_ms=GAP_MS + 2 * DAY_MS)
    it.first()
    (first,) = it.too_wide(orders_from(GAP_MS))
    end_ms = GAP_MS + DAY_MS - 1

    (more,) = it.answered(first, page(rows=7, first_ms=GAP_MS, last_ms=end_ms))
    assert more == requests.all_orders("BTCUSDT", start_ms=end_ms, end_ms=end_ms + DAY_MS - 1)


def test_a_venue_that_refuses_even_a_day_is_not_asked_for_ever() -> None:
    it = walk(Scope(GAP_MS + plan.OVERLAP_MS), known("BTCUSDT"), now_ms=GAP_MS + DAY_MS)
    it.first()
    (day,) = it.too_wide(orders_from(GAP_MS))

    assert it.too_wide(day) == []
    assert it.stuck == ["allOrders BTCUSDT: the venue refuses even the span of a day"]


class TestRowsNobodyAskedFor:
    """They are taken, they are told, and where something may be missing the market does not count as walked."""

    def window(self) -> tuple[Walk, Request]:
        it = walk(Scope(GAP_MS + plan.OVERLAP_MS), known("BTCUSDT"), now_ms=GAP_MS + DAY_MS, healing=Healing(1, 1))
        it.first()
        (day,) = it.too_wide(orders_from(GAP_MS))
        return it, day

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (page(rows=1, first_ms=GAP_MS - 1, last_ms=GAP_MS), "rows from startTime on, got rows from before it"),
            (page(rows=1, first_ms=GAP_MS, last_ms=GAP_MS + DAY_MS), "rows up to endTime, got rows from after it"),
            (page(order("ETHUSDT", 1)), "rows of BTCUSDT, got rows of ETHUSDT"),
            (
                page(Order("BTCUSDT", 2, created_ms=GAP_MS + 5), Order("BTCUSDT", 1, created_ms=GAP_MS + 4)),
                "oldest rows first, got another order",
            ),
        ],
        ids=["before", "after", "other symbol", "descending"],
    )
    def test_each_kind_is_told_once_with_the_question(self, answer: Page, told: str) -> None:
        it, day = self.window()

        (another,) = [one for one in it.answered(day, answer) if one.symbol == "BTCUSDT"]
        (doubt,) = it.doubts()
        assert (doubt.kind, doubt.subject) == ("rest_window", "allOrders BTCUSDT")
        assert it.stuck == [f"allOrders BTCUSDT: expected {told}"]
        it.answered(another, answer)
        assert told not in [f"{doubt.expected}, got {doubt.actual}" for doubt in it.doubts()]

    def test_rows_as_asked_are_not_doubted(self) -> None:
        it, day = self.window()
        fine = [Order("BTCUSDT", n, created_ms=GAP_MS + n // 2) for n in range(4)]
        it.answered(day, page(*fine, first_ms=GAP_MS, last_ms=GAP_MS + DAY_MS - 1))

        assert it.doubts() == []

    def test_a_market_of_which_rows_may_be_missing_is_not_walked_and_met_again(self) -> None:
        it = walk(Scope(GAP_MS), known("BTCUSDT"), healing=Healing(1, 1))
        it.first()
        request, answer = orders_from(GAP_MS - plan.OVERLAP_MS), page(order("ETHUSDT", 1))
        it.answered(request, answer)

        assert it.step(request, answer, GAP_MS) is None


class TestSteps:
    """What a gap's walk remembers, and what another one makes of it."""

    ASKED_MS = GAP_MS + 3_600_000

    def test_a_full_page_remembers_where_the_next_question_starts(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"), healing=Healing(3, 4))
        one.first()
        full = page(rows=FULL, first_ms=5, last_ms=7_000)
        one.answered(orders_from(0), full)

        assert one.step(orders_from(0), full, self.ASKED_MS) == WalkStep(
            3, "BTCUSDT", "allOrders", 7_000, None, self.ASKED_MS, done=False, rows=FULL
        )

    def test_the_last_page_is_sure_of_everything_but_the_last_minute(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"), trades=True, healing=Healing(3, 4))
        one.first()
        one.answered(orders_from(0), page())

        step = one.step(orders_from(0), page(), self.ASKED_MS)
        assert step is not None
        assert (step.start_ms, step.done, step.covers) == (self.ASKED_MS - plan.OVERLAP_MS, True, None)

    def test_the_last_kind_to_end_covers_the_market_back_to_the_first_day(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"), trades=True, healing=Healing(3, 4), beginning_ms=9)
        one.first()
        one.answered(trades_from(9), page())
        first = one.step(trades_from(9), page(), self.ASKED_MS)
        one.answered(orders_from(9), page())
        second = one.step(orders_from(9), page(), self.ASKED_MS)

        assert first is not None
        assert second is not None
        assert (first.covers, second.covers, second.from_ms) == (None, 4, 9)

    def test_a_guess_without_orders_is_remembered_and_no_market(self) -> None:
        one = walk(Scope(None), known(), trades=True, healing=Healing(1, 1))
        one.first()
        one.answered(requests.account(), holding("USDT", "SHIB", "BNB"))
        one.answered(orders_from(0, "SHIBUSDT"), page())
        one.answered(orders_from(0, "BNBUSDT"), page(order("BNBUSDT", 1)))
        shib = one.step(orders_from(0, "SHIBUSDT"), page(), self.ASKED_MS)
        bnb = one.step(orders_from(0, "BNBUSDT"), page(), self.ASKED_MS)
        one.answered(trades_from(0, "BNBUSDT"), page())
        traded = one.step(trades_from(0, "BNBUSDT"), page(), self.ASKED_MS)

        assert [step and (step.done, step.covers) for step in (shib, bnb, traded)] == [
            (True, None),
            (True, None),
            (True, 1),
        ]

    def test_other_answers_are_no_steps(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"), healing=Healing(1, 1))

        assert one.step(requests.open_orders(), page(), GAP_MS) is None
        assert one.step(requests.my_trades("BTCUSDT", order_id=3), page(), GAP_MS) is None

    def test_a_walk_goes_on_where_another_was_broken_off(self) -> None:
        steps = (
            WalkStep(1, "BTCUSDT", "allOrders", 500, None, GAP_MS, done=True, rows=3),
            WalkStep(1, "BTCUSDT", "myTrades", 600, None, GAP_MS - 1, done=True, rows=3),
            WalkStep(1, "ETHUSDT", "allOrders", 700, 900, GAP_MS, done=False, rows=3),
        )
        again = Healing(1, 2, fresh_ms=GAP_MS, steps=steps)
        one = walk(Scope(None), known("BTCUSDT", "ETHUSDT"), trades=True, healing=again)

        assert one.first()[2:] == [
            trades_from(600),  # asked before REST could know all of the newest gap
            requests.all_orders("ETHUSDT", start_ms=700, end_ms=900),
            trades_from(0, "ETHUSDT"),
        ]
        one.answered(trades_from(600), page())
        step = one.step(trades_from(600), page(), GAP_MS)
        assert step is not None
        assert step.covers == 2

    def test_a_quiet_pass_covers_no_gap_but_makes_a_market_known(self) -> None:
        state = Known(100, ("BTCUSDT",), (), (), ())
        one = walk(Scope(GAP_MS, ("BTCUSDT",)), state, healing=Healing(covers=0))
        assert one.first()[2:] == [orders_from(0)], "never walked before"
        one.answered(orders_from(0), page())

        step = one.step(orders_from(0), page(), GAP_MS)
        assert step is not None
        assert (step.gap_id, step.covers, step.from_ms) == (None, 0, None)

    def test_symbols_named_by_the_user_are_known_from_where_they_were_asked(self) -> None:
        one = walk(Scope(GAP_MS, ("BTCUSDT",), strict=True), known(), healing=Healing(covers=0))
        start = orders_from(GAP_MS - plan.OVERLAP_MS)
        assert one.first()[2:] == [start]
        one.answered(start, page())

        step = one.step(start, page(), GAP_MS)
        assert step is not None
        assert step.from_ms == GAP_MS


class TestHowLong:
    def test_a_course_half_way_through_its_time_has_as_many_pages_to_come(self) -> None:
        one = walk(Scope(None), known("BTCUSDT"), now_ms=10_000)
        one.first()
        one.answered(orders_from(0), page(rows=FULL, first_ms=2_000, last_ms=6_000))

        assert one.pages_left() == 0.0, "the one page is known to be asked"
        one.answered(orders_from(6_000), page(rows=FULL, first_ms=6_000, last_ms=7_000))
        assert one.pages_left() == pytest.approx(2 * 3_000 / 5_000 - 1)

    def test_the_budget_decides_where_it_is_slower_than_the_venue(self) -> None:
        fast = time_left_s(answers=10, elapsed_s=1.0, questions=20, weight=200, used=0, limit=600)
        slow = time_left_s(answers=10, elapsed_s=1.0, questions=20, weight=1_500, used=300, limit=600)

        assert (fast, slow) == (2.0, 120.0)
        assert time_left_s(answers=0, elapsed_s=0.0, questions=20, weight=1, used=0, limit=600) is None


def test_an_order_told_with_two_ends_is_asked_for_by_itself_even_when_a_page_had_it() -> None:
    it = walk(Scope(GAP_MS), known("BTCUSDT"))
    it.first()
    it.answered(orders_from(GAP_MS - plan.OVERLAP_MS), page(order("BTCUSDT", 7)))

    lasts = it.last(Known(100, ("BTCUSDT",), (), (), (), disputed=(("BTCUSDT", 7),)))
    assert lasts == [requests.query_order("BTCUSDT", 7)]


@pytest.mark.parametrize(("told", "covers"), [((), None), ((order("BTCUSDT", 7),), 3)])
def test_a_market_is_through_only_once_every_order_that_rests_here_was_told_of(
    told: tuple[Fact, ...], covers: int | None
) -> None:
    """It may have ended in the gap, and no page that is asked for holds an order so old."""
    state = known("BTCUSDT", open_orders=[("BTCUSDT", 7)])
    asking = walk(Scope(GAP_MS), state, healing=Healing(gap_id=3, covers=3))
    asking.first()
    (single,) = asking.answered(requests.open_orders(), Page((), rows=0))
    assert questions([single]) == ["GET order symbol=BTCUSDT&orderId=7"]
    asking.answered(single, Page(told, rows=len(told)))
    pages = next(course.question for course in asking._courses.values())
    asking.answered(pages, Page((), rows=0))

    step = asking.step(pages, Page((), rows=0), GAP_MS)

    assert step is not None
    assert (step.done, step.covers) == (True, covers)


def test_an_order_that_the_venue_lists_nowhere_does_not_make_its_market_new_for_ever() -> None:
    """A market that is never through would be read from its first day on after every gap."""
    state = Known(100, ("BTCUSDT",), (("BTCUSDT", 7),), (), (), covered=frozenset())
    asking = walk(Scope(GAP_MS), state, healing=Healing(gap_id=3, covers=3))
    asking.first()
    asking.answered(requests.open_orders(), Page((), rows=0))
    pages = next(course.question for course in asking._courses.values())
    asking.answered(pages, Page((), rows=0))

    step = asking.step(pages, Page((), rows=0), GAP_MS)

    assert step is not None
    assert (step.done, step.covers) == (True, 3)
