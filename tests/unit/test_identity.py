"""Who a stream fill is, and which of two equal clocks is newer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.facts import identity
from ledger.facts.identity import SessionMemory, balance_value, stream_key
from ledger.facts.types import Balance, Exact
from tests.histories import T_MS, fill, held

FILL = fill(at_ms=5, qty="0.01", price="64000")


def version(memory: SessionMemory, balance: Balance, as_of_ms: int) -> int:
    return memory.version(balance.asset, balance_value(balance), as_of_ms)


def test_a_fill_is_the_same_however_its_numbers_are_spelled() -> None:
    spelled = replace(FILL, qty=Exact("0.0100"), price=Exact("64000.00"), fee=Exact("00.10"))
    assert stream_key(spelled) == stream_key(FILL)


@pytest.mark.parametrize(
    "other",
    [
        {"symbol": "ETHUSDT"},
        {"order_id": 288275},
        {"status": "FILLED"},
        {"status": None},
        {"executed_ms": T_MS + 6},
        {"qty": Exact("0.02")},
        {"price": Exact("64001")},
        {"fee": Exact("0.2")},
        {"fee": None},
        {"fee_asset": "BNB"},
        {"fee_asset": None},
    ],
)
def test_a_fill_that_differs_in_one_field_is_another(other: dict[str, Any]) -> None:
    assert stream_key(replace(FILL, **other)) != stream_key(FILL)


def test_a_fill_is_the_same_whatever_only_some_dialects_tell() -> None:
    assert stream_key(replace(FILL, is_maker=True, quote_qty=Exact("640"), side=None)) == stream_key(FILL)


def test_no_fee_told_is_not_a_fee_of_zero() -> None:
    assert stream_key(replace(FILL, fee=None)) != stream_key(replace(FILL, fee=Exact("0")))


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30))
def test_the_kth_equal_frame_of_a_session_is_number_k(told: list[str]) -> None:
    keys = {name: stream_key(replace(FILL, symbol=name)) for name in told}
    memory = SessionMemory()
    counted = [(name, memory.ordinal(keys[name], once=False)) for name in told]
    assert counted == [(name, told[: place + 1].count(name)) for place, name in enumerate(told)]


def test_what_happens_once_is_always_number_one() -> None:
    memory = SessionMemory()
    assert [memory.ordinal(stream_key(FILL), once=True) for _ in range(3)] == [1, 1, 1]


def test_another_session_counts_for_itself() -> None:
    first, second = SessionMemory(), SessionMemory()
    key = stream_key(FILL)
    assert [first.ordinal(key, once=False), first.ordinal(key, once=False)] == [1, 2]
    assert second.ordinal(key, once=False) == 1


def test_a_session_forgets_the_fill_it_has_not_heard_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "REMEMBERED_MAX", 2)
    old, repeated, new = (stream_key(replace(FILL, order_id=order_id)) for order_id in (1, 2, 3))
    memory = SessionMemory()
    told = [memory.ordinal(key, once=False) for key in (repeated, old, repeated, new)]
    assert told == [1, 1, 2, 1]
    assert memory.ordinal(repeated, once=False) == 3, "heard after the old one, so remembered"
    assert memory.ordinal(old, once=False) == 1, "forgotten"


def test_distinct_values_of_one_clock_are_numbered_as_they_came() -> None:
    memory = SessionMemory()
    frees = ["10", "9", "8", "9.00", "10"]
    assert [version(memory, held("BTC", free), T_MS) for free in frees] == [1, 2, 3, 2, 1]


def test_free_and_locked_both_make_a_value() -> None:
    memory = SessionMemory()
    assert [version(memory, held("BTC", "10", locked), T_MS) for locked in ("0", "1")] == [1, 2]


def test_a_new_clock_and_another_asset_begin_with_one() -> None:
    memory = SessionMemory()
    assert [version(memory, held("BTC", "10"), T_MS), version(memory, held("BTC", "9"), T_MS)] == [1, 2]
    assert version(memory, held("ETH", "7"), T_MS) == 1
    assert version(memory, held("BTC", "8"), T_MS + 1) == 1
