"""The seeded market and the books it writes: exact to the last digit, and full of what trips readers up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any

import msgspec
import pytest

from ledger.errors import ConfigError, UsageError
from ledger.sandbox.books import (
    EXACT,
    OPENING,
    PAIRS,
    Balance,
    Books,
    Event,
    Fill,
    Movement,
    Order,
    Report,
    text,
)
from ledger.sandbox.dialects import DIALECTS, dialect_named, event_json, order_json
from ledger.sandbox.faults import (
    FRAME_BYTES_MAX,
    Drop,
    Nonsense,
    RestStatus,
    Switches,
    fault_from,
    garbage,
    read_script,
)
from ledger.sandbox.market import Market, live_through
from ledger.sandbox.nonsense import lie
from ledger.sandbox.rest import Asked, Meter, Params, Refused, Rest

START_MS = 1_700_000_000_000


def traded(seed: int = 7, actions: int = 3_000) -> tuple[Market, list[Event]]:
    market, events = Market(seed), []
    for index in range(actions):
        events += market.step(START_MS + index)
    return market, events


def fills_in(events: list[Event]) -> list[Fill]:
    return [event.fill for event in events if isinstance(event, Report) and event.fill]


def test_balances_are_the_opening_plus_movements_plus_both_legs_of_every_fill() -> None:
    market, events = traded()
    with localcontext(EXACT):
        total: dict[str, Decimal] = dict(OPENING)
        for movement in market.books.movements:
            total[movement.asset] += movement.amount
        for fill in fills_in(events):
            pair, sign = PAIRS[fill.symbol], 1 if fill.side == "BUY" else -1
            total[pair.base] += sign * fill.qty
            total[pair.quote] -= sign * fill.price * fill.qty + fill.fee
        held = {asset: balance.free + balance.locked for asset, balance in market.books.balances.items()}
    assert held == total
    assert len(market.books.fills) > 1_000
    assert market.books.movements


def test_what_is_locked_is_what_open_orders_reserve_and_nothing_is_ever_negative() -> None:
    market = Market(3)
    for index in range(2_000):
        market.step(START_MS + index)
        assert all(balance.free >= 0 <= balance.locked for balance in market.books.balances.values())
    with localcontext(EXACT):
        reserved: Counter[str] = Counter()
        for order in market.books.open_orders():
            pair = PAIRS[order.symbol]
            if order.side == "BUY":
                reserved[pair.quote] += order.price * order.left  # type: ignore[assignment]
            else:
                reserved[pair.base] += order.left  # type: ignore[assignment]
    assert market.books.open_orders()
    assert {asset: b.locked for asset, b in market.books.balances.items() if b.locked} == dict(reserved)


def test_executed_quantity_and_quote_are_the_sums_of_an_orders_fills() -> None:
    market, events = traded()
    with localcontext(EXACT):
        for order in market.books.orders.values():
            fills = [fill for fill in fills_in(events) if fill.order_id == order.order_id]
            fills = [fill for fill in fills if fill.symbol == order.symbol]
            assert sum(fill.qty for fill in fills) == order.executed_qty
            assert sum(fill.quote for fill in fills) == order.executed_quote
            assert (order.status == "FILLED") == (order.executed_qty == order.orig_qty)


def test_the_same_seed_trades_the_same_whatever_the_clock_and_another_seed_does_not() -> None:
    one, other = Market(11), Market(11)
    for index in range(500):
        one.step(START_MS + index)
        other.step(START_MS + 60_000 * index)
    assert one.books.balances == other.books.balances
    assert list(one.books.fills) == list(other.books.fills)
    assert traded(12, 500)[0].books.balances != one.books.balances


def test_books_are_a_fold_over_their_events_and_a_copy_goes_its_own_way() -> None:
    market, events = traded(actions=500)
    replayed = Books()
    for event in events:
        replayed.apply(event)
    assert replayed.truth() == market.books.truth()
    before = market.books.copy()
    known = before.truth()
    market.step(START_MS + 501)
    assert before.truth() == known != market.books.truth()


def test_time_never_runs_backwards() -> None:
    market = Market(1)
    market.step(START_MS)
    assert all(event.at_ms == START_MS for event in market.step(START_MS - 5_000))


def test_two_fills_of_one_order_can_agree_in_all_ten_fields_of_the_documented_stream() -> None:
    _, events = traded()
    frames = Counter(
        msgspec.json.encode(event_json(DIALECTS["documented"], event))
        for event in events
        if isinstance(event, Report) and event.fill
    )
    assert max(frames.values()) >= 2
    full = Counter(
        msgspec.json.encode(event_json(DIALECTS["full"], event)) for event in events if isinstance(event, Report)
    )
    assert max(full.values()) == 1, "trade and execution ids tell twins apart in the full dialect"


def test_the_order_that_is_named_is_canceled_and_what_it_reserved_is_free_again() -> None:
    market = Market(3)
    while not market.books.open_orders():
        market.step(START_MS)
    order = market.books.open_orders()[0]
    events = market.cancel(order, START_MS + 1)
    (report,) = [event for event in events if isinstance(event, Report)]
    assert (report.order.key, report.order.status, report.at_ms) == (order.key, "CANCELED", START_MS + 1)
    assert order.key not in {one.key for one in market.books.open_orders()}
    assert len(events) == 2, "the cancel, and the position in which its money is free"


def test_a_self_trade_puts_one_trade_id_on_two_own_orders() -> None:
    _, events = traded()
    orders_of_trade: dict[tuple[str, int], set[int]] = {}
    for fill in fills_in(events):
        orders_of_trade.setdefault((fill.symbol, fill.trade_id), set()).add(fill.order_id)
    assert max(len(orders) for orders in orders_of_trade.values()) == 2


def test_order_ids_repeat_across_symbols_but_never_within_one() -> None:
    market, _ = traded()
    ids = Counter(order_id for _, order_id in market.books.orders)
    assert max(ids.values()) >= 2
    for symbol in PAIRS:
        rows = [order.order_id for order in market.books.orders_of(symbol)]
        assert rows == sorted(set(rows))


def test_every_ending_happens_also_after_a_partial_fill() -> None:
    market, events = traded()
    ended = Counter(
        (order.status, order.executed_qty > 0) for order in market.books.orders.values() if not order.is_open
    )
    for ending in (
        ("FILLED", True),
        ("CANCELED", False),
        ("CANCELED", True),
        ("EXPIRED", False),
        ("EXPIRED", True),
        ("REJECTED", False),
    ):
        assert ended[ending], f"{ending} never happened"
    assert {movement.amount > 0 for movement in market.books.movements} == {True, False}
    assert any(isinstance(event, Movement) for event in events)


def test_fees_are_in_the_quote_asset_a_thousandth_for_takers_and_nothing_for_makers() -> None:
    _, events = traded()
    fills = fills_in(events)
    assert {fill.fee_asset for fill in fills} == {"USDT", "BTC"}
    assert all(fill.fee == 0 for fill in fills if fill.is_maker)
    with localcontext(EXACT):
        taken = [fill for fill in fills if not fill.is_maker]
        assert all(abs(fill.fee - fill.quote / 1000) <= Decimal("5E-9") for fill in taken)
    assert {fill.side for fill in taken} == {"BUY", "SELL"}


def test_a_position_lists_touched_assets_only_with_absolute_values() -> None:
    market = Market(5)
    for index in range(300):
        before = dict(market.books.balances)
        events = market.step(START_MS + index)
        told = {a: b for event in events if not isinstance(event, Report | Movement) for a, b in event.balances}
        for asset, balance in market.books.balances.items():
            assert told.get(asset, before.get(asset)) == balance
        assert len(told) < len(market.books.balances)


def test_history_is_spread_over_the_months_before() -> None:
    market = Market(2)
    live_through(market, 400, START_MS - 90 * 86_400_000, START_MS)
    created = [order.created_ms for order in market.books.orders.values()]
    assert len(created) >= 400
    assert created == sorted(created)
    assert 0 <= created[0] - (START_MS - 90 * 86_400_000) < 86_400_000
    assert START_MS - 86_400_000 < created[-1] < START_MS


@pytest.fixture(scope="module")
def months() -> Market:
    """12,000 orders of 90 days."""
    market, began_s = Market(1), time.process_time()
    live_through(market, 12_000, START_MS - 90 * 86_400_000, START_MS)
    assert time.process_time() - began_s < 10, "who starts a sandbox waits for this"
    return market


def test_a_long_history_has_thirteen_symbols_some_of_many_pages_and_some_that_come_late(months: Market) -> None:
    orders = {symbol: months.books.orders_of(symbol) for symbol in PAIRS}
    fills = {symbol: months.books.fills_of(symbol) for symbol in PAIRS}
    assert len(PAIRS) == 13
    assert 12_000 <= sum(map(len, orders.values())) < 12_010
    assert sum(len(rows) > 1_000 for rows in orders.values()) >= 3
    assert sum(len(rows) > 1_000 for rows in fills.values()) >= 3
    assert all(len(rows) > 50 for rows in orders.values())
    debut_day = {symbol: (rows[0].created_ms - START_MS) // 86_400_000 + 90 for symbol, rows in orders.items()}
    assert {symbol: day for symbol, day in debut_day.items() if day > 2} == {
        "LTCUSDT": pytest.approx(27, abs=2),
        "LINKUSDT": pytest.approx(54, abs=2),
        "DOGEUSDT": pytest.approx(77, abs=2),
    }


def test_a_long_history_has_every_ending_and_more_fills_than_orders(months: Market) -> None:
    endings = Counter(order.status for order in months.books.orders.values())
    assert len(months.books.fills) > len(months.books.orders)
    assert endings["FILLED"] > endings["CANCELED"] > endings["EXPIRED"] > endings["REJECTED"] > 100
    assert endings["NEW"] + endings["PARTIALLY_FILLED"] == len(months.books.open_orders()) > 5


def test_the_times_of_a_long_history_ascend_with_its_ids_and_few_actions_share_a_millisecond(months: Market) -> None:
    for symbol in PAIRS:
        orders, fills = months.books.orders_of(symbol), months.books.fills_of(symbol)
        assert [o.order_id for o in orders] == sorted({o.order_id for o in orders})
        assert [o.created_ms for o in orders] == sorted(o.created_ms for o in orders)
        assert [(f.time_ms, f.trade_id) for f in fills] == sorted((f.time_ms, f.trade_id) for f in fills)
    assert max(Counter(fill.time_ms for fill in months.books.fills.values()).values()) <= 4
    created = [order.created_ms for order in months.books.orders.values()]
    assert len(set(created)) > 0.95 * len(created)


def test_the_balances_after_a_long_history_add_up(months: Market) -> None:
    with localcontext(EXACT):
        total: dict[str, Decimal] = dict(OPENING)
        for movement in months.books.movements:
            total[movement.asset] += movement.amount
        for fill in months.books.fills.values():
            pair, sign = PAIRS[fill.symbol], 1 if fill.side == "BUY" else -1
            total[pair.base] += sign * fill.qty
            total[pair.quote] -= sign * fill.quote + fill.fee
        assert {asset: b.free + b.locked for asset, b in months.books.balances.items()} == total
    assert all(balance.free >= 0 <= balance.locked for balance in months.books.balances.values())


def test_a_burst_puts_so_many_orders_and_fills_of_one_symbol_into_one_millisecond() -> None:
    market = Market(1)
    live_through(market, 2_500, START_MS - 90 * 86_400_000, START_MS, burst=1_500)
    orders = Counter(order.created_ms for order in market.books.orders_of("BTCUSDT"))
    fills = Counter(fill.time_ms for fill in market.books.fills_of("BTCUSDT"))
    (at_ms, count), (_, next_count) = orders.most_common(2)
    assert (count, fills[at_ms]) == (1_500, 1_500)
    assert next_count <= 2
    assert len(market.books.orders) == 2_500
    assert sum(order.created_ms < at_ms for order in market.books.orders.values()) >= 500
    assert all(balance.free >= 0 for balance in market.books.balances.values())


def test_a_page_touches_its_own_rows_and_a_few_more_however_long_the_history(months: Market) -> None:
    class Counted(Sequence[Fill]):
        def __init__(self, rows: Sequence[Fill]) -> None:
            self.rows, self.touched = rows, 0

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, at: Any) -> Any:
            taken = self.rows[at]
            self.touched += len(taken) if isinstance(taken, list) else 1
            return taken

    rest = Rest(DIALECTS["full"], api_key="", api_secret="", weight_per_minute=1, ttl_s=1)
    rows = months.books.fills_of("BTCUSDT")
    middle = rows[len(rows) // 2]
    for asked in ({"startTime": "0"}, {"startTime": str(middle.time_ms)}, {"fromId": str(middle.trade_id)}, {}):
        counted = Counted(rows)
        call = Asked(Params({**asked, "limit": "10"}), months.books, 0, 0.0, list)
        page = rest._page(counted, call, "fromId", id_of=lambda f: f.trade_id, ms_of=lambda f: f.time_ms)
        assert len(page) == 10
        assert counted.touched <= 10 + 2 * len(rows).bit_length()


def test_the_fills_of_an_order_are_found_by_its_lifetime(months: Market) -> None:
    by_order: dict[tuple[str, int], list[Fill]] = {}
    for fill in months.books.fills.values():
        by_order.setdefault((fill.symbol, fill.order_id), []).append(fill)
    for symbol, order_id in months.books.orders:
        assert months.books.fills_of_order(symbol, order_id) == by_order.get((symbol, order_id), [])
    assert months.books.fills_of_order("BTCUSDT", 1) == []


def test_money_moves_exactly_and_never_more_than_is_free() -> None:
    market = Market(1)
    movement, position = market.move("USDT", Decimal("250.5"), START_MS)
    assert movement == Movement("USDT", Decimal("250.50000000"), START_MS)
    assert position.balances == (("USDT", Balance(Decimal("100250.50000000"))),)  # type: ignore[union-attr]
    market.move("USDT", Decimal("-100250.5"), START_MS)
    assert market.books.free("USDT") == 0
    market.move("AIRDROP", Decimal("0.00000001"), START_MS)
    assert market.books.free("AIRDROP") == Decimal("0.00000001")
    with pytest.raises(ConfigError, match=r"cannot give 0\.00000002 AIRDROP: only 0\.00000001 are free"):
        market.move("AIRDROP", Decimal("-0.00000002"), START_MS)
    for amount in ("0", "NaN", "Infinity", "0.000000001", "1E+200"):
        with pytest.raises(ConfigError, match="at most eight decimal places"):
            market.move("USDT", Decimal(amount), START_MS)
    assert len(market.books.movements) == 3


def test_the_documented_report_has_the_ten_fields_of_the_venues_page_in_its_order() -> None:
    _, events = traded(actions=50)
    trade = next(event for event in events if isinstance(event, Report) and event.fill)
    frame = event_json(DIALECTS["documented"], trade)
    assert frame is not None
    assert list(frame) == ["e", "s", "i", "S", "X", "l", "L", "n", "N", "T"]


def test_a_cancel_swaps_the_client_ids_in_the_full_dialect() -> None:
    _, events = traded()
    cancel = next(event for event in events if isinstance(event, Report) and event.execution == "CANCELED")
    frame = event_json(DIALECTS["full"], cancel)
    assert frame is not None
    assert frame["C"] == cancel.order.client_order_id
    assert str(frame["c"]).startswith("cancel_")


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("documented", set()),
        ("orders_quote", {"cummulativeQuoteQty", "updateTime", "timeInForce"}),
        ("mixed", {"cummulativeQuoteQty", "updateTime", "timeInForce"}),
    ],
)
def test_order_objects_have_the_ten_documented_fields_and_what_the_dialect_adds(name: str, extra: set[str]) -> None:
    market, _ = traded(actions=50)
    order = next(iter(market.books.orders.values()))
    documented = {
        "orderId", "clientOrderId", "symbol", "side", "type", "price", "origQty", "executedQty", "status",
        "transactTime",
    }  # fmt: skip
    assert set(order_json(DIALECTS[name], order)) == documented | extra


def test_an_unknown_dialect_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="no dialect 'klingon'; it speaks documented, orders_quote, mixed, full"):
        dialect_named("klingon")
    with pytest.raises(ConfigError, match="only 'documented'"):
        dialect_named("full", position_clock=False)


# Faults as values.


def test_a_fault_is_read_from_json_and_a_misspelt_one_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert fault_from({"do": "rest_status", "status": 429, "retry_after": 3}) == RestStatus(status=429, retry_after=3)
    with pytest.raises(ConfigError, match="explode"):
        fault_from({"do": "explode"})
    with pytest.raises(ConfigError, match="cuont"):
        fault_from({"do": "rest_html", "cuont": 3})
    script = tmp_path / "faults.json"
    script.write_text('[{"at_s": 9, "do": "drop"}, {"at_s": 1, "do": "drop"}]')
    assert read_script(script) == [Drop(at_s=1), Drop(at_s=9)]
    script.write_text("[{")
    with pytest.raises(ConfigError, match=r"faults\.json cannot be read"):
        read_script(script)


def test_frames_are_lost_doubled_and_shuffled_as_asked_and_then_no_more() -> None:
    switches = Switches(1)
    switches.drop_frames, switches.duplicate = 1, 1
    assert switches.frames(b"a") == []
    assert switches.frames(b"b") == [b"b", b"b"]
    assert switches.frames(b"c") == [b"c"]
    switches.shuffle_next(9)
    sent = [frame for number in range(10) for frame in switches.frames(b"%d" % number)]
    assert sent != [b"%d" % number for number in range(10)]
    assert sorted(sent) == [b"%d" % number for number in range(10)]
    assert sent[-1] == b"9", "only nine were held"


def test_a_rest_fault_meets_only_its_path_and_only_so_often() -> None:
    switches = Switches(1)
    switches.spoil(RestStatus(status=503, count=2, path="allOrders"))
    assert switches.spoilt("/api/v1/account") is None
    assert switches.spoilt("/api/v1/allOrders") is not None
    assert switches.spoilt("/api/v1/allOrders") is not None
    assert switches.spoilt("/api/v1/allOrders") is None


def test_garbage_cannot_be_read_or_says_what_nobody_should_believe() -> None:
    for kind in ("not_json", "cut_json", "not_utf8"):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            msgspec.json.decode(garbage(kind, 1)[0])
    assert b"NaN" in garbage("nan", 1)[0]
    assert "\0" in msgspec.json.decode(garbage("nul", 1)[0])["B"][0]["a"]
    assert len(garbage("oversize", 1)[0]) > FRAME_BYTES_MAX
    assert len(garbage("all", 1)) == 7


# Nonsense.


def test_a_lie_changes_what_its_kind_says_and_nothing_else() -> None:
    market, _ = traded()
    order = next(o for o in market.books.orders.values() if o.status == "CANCELED" and o.executed_qty)
    fill = next(iter(market.books.fills.values()))

    def changed(kind: Any, row: Order | Fill) -> dict[str, object] | None:
        if not (told := lie(kind, row)):
            return None
        return {n: getattr(told, n) for n in row.__dataclass_fields__ if getattr(told, n) != getattr(row, n)}

    assert changed("negative_qty", order) == {"orig_qty": -order.orig_qty, "executed_qty": -order.executed_qty}
    assert changed("negative_qty", fill) == {"qty": -fill.qty}
    assert text(lie("nan_price", order).price) == text(lie("nan_price", fill).price) == "NaN"  # type: ignore[union-attr]
    shrunk = lie("shrinking_order", order)
    assert isinstance(shrunk, Order)
    assert 0 < shrunk.executed_qty < order.executed_qty
    assert shrunk.executed_qty < shrunk.orig_qty < order.orig_qty
    assert changed("other_terminal", order) == {"status": "EXPIRED"}
    assert changed("other_terminal", market.books.open_orders()[0]) is None
    assert changed("id_reuse", order) == {"side": {"BUY": "SELL", "SELL": "BUY"}[order.side], "type": "MARKET"}
    price = fill.price + PAIRS[fill.symbol].tick
    assert changed("changed_fill", fill) == {"price": price, "quote": price * fill.qty}
    for kind in ("shrinking_order", "other_terminal", "id_reuse"):
        assert changed(kind, fill) is None
    assert changed("changed_fill", order) is None


def test_a_lie_waits_for_a_victim_and_is_told_only_so_often() -> None:
    market, _ = traded(actions=200)
    orders: list[Order | Fill] = list(market.books.orders.values())
    victim = orders[5]
    switches = Switches(1)
    switches.talk_nonsense(
        Nonsense(kind="id_reuse", path="allOrders", symbol=victim.symbol, order_id=victim.order_id, count=2)
    )
    assert switches.told("/api/v1/openOrders", orders) == orders
    assert switches.told("/api/v1/allOrders", orders[:5]) == orders[:5]
    for _ in range(2):
        told = switches.told("/api/v1/allOrders", orders)
        assert [at for at, row in enumerate(told) if row != orders[at]] == [5]
    assert switches.told("/api/v1/allOrders", orders) == orders


# Weights.


def test_over_the_budget_is_429_until_the_minute_ends_and_going_on_is_418() -> None:
    meter = Meter(100)
    minute_ms = 60_000 * 1_000
    assert [meter.take("ip", 40, minute_ms), meter.take("ip", 40, minute_ms)] == [40, 80]
    with pytest.raises(Refused) as refused:
        meter.take("ip", 40, minute_ms + 1_500)
    assert refused.value.answer.status == 429
    assert refused.value.answer.headers == (("Retry-After", "59"),)
    assert meter.take("another", 40, minute_ms + 1_500) == 40, "the limit is per IP"
    assert meter.take("ip", 40, minute_ms + 60_000) == 40
    with pytest.raises(Refused):
        meter.take("ip", 70, minute_ms + 60_000)
    statuses = []
    for _ in range(6):
        with pytest.raises(Refused) as refused:
            meter.take("ip", 1, minute_ms + 60_001)
        statuses.append(refused.value.answer.status)
    assert statuses == [429, 429, 429, 429, 418, 418]
    assert refused.value.answer.headers == (("Retry-After", "120"),)
