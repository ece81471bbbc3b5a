"""Where coverage ends while what a frame or an answer says is left out."""

from __future__ import annotations

import pytest

from ledger.db import quarantine
from ledger.db.quarantine import Hole, hole
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Settlement, Snapshot, Transfer

ONE, AT_MS = Exact("1"), 9_000


def fill(symbol: str, ms: int) -> Fill:
    return Fill(symbol, 1, "BUY", ONE, ONE, ms)


def order(symbol: str, created_ms: int | None = None, updated_ms: int | None = None) -> Order:
    return Order(symbol, 1, created_ms=created_ms, updated_ms=updated_ms)


@pytest.mark.parametrize(
    ("source", "facts", "wanted"),
    [
        ("stream", [order("A", 1_000, 5_000), fill("A", 5_000)], Hole("A", 4_999)),
        ("rest", [order("A", 1_000, 5_000)], Hole("A", 999)),
        ("rest", [order("A", None, 5_000)], Hole("A", 4_999)),
        ("stream", [order("A")], Hole("A", AT_MS - 1)),
        ("rest", [fill("A", 7_000), fill("A", 3_000)], Hole("A", 2_999)),
        ("rest", [fill("A", 7_000), fill("B", 3_000)], Hole(None, 2_999)),
        ("stream", [Balance("X", ONE, ONE, 4_000)], Hole(None, 3_999)),
        ("stream", [Balance("X", ONE, ONE)], Hole(None, AT_MS - 1)),
        ("rest", [Snapshot((), None)], Hole(None, AT_MS - 1)),
        ("stream", [Transfer("X", ONE, "deposit", 2_000)], Hole(None, 1_999)),
        ("rest", [order("A", 6_000), Settlement("A", 1, ONE)], Hole("A", 5_999)),
        ("rest", [order("A", 0)], Hole("A", 0)),
        ("rest", [Doubt("rest_row", "row", None, None)], Hole()),
        ("rest", [], Hole()),
    ],
)
def test_a_hole_begins_before_the_first_thing_that_is_left_out(source: str, facts: list[Fact], wanted: Hole) -> None:
    assert hole(facts, source=source, at_ms=AT_MS) == wanted


def test_a_row_that_applies_another_again_names_it_and_nothing_else_is_one() -> None:
    assert quarantine.decode(quarantine.encode(17)) == 17
    for raw in (b"{}", b"[]", b'{"seq": null}', b"x"):
        with pytest.raises(ValueError):
            quarantine.decode(raw)
