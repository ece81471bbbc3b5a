"""Comparing balances: by value, asset by asset, nothing forgotten."""

from __future__ import annotations

from decimal import Decimal

from ledger.facts.types import Balance, Exact, Snapshot
from ledger.reconcile.check import Drift, compare

ZERO = (Decimal(0), Decimal(0))


def venue(**held: tuple[str, str]) -> Snapshot:
    return Snapshot(tuple(Balance(asset, Exact(free), Exact(locked)) for asset, (free, locked) in held.items()))


def ours(**held: tuple[str, str]) -> dict[str, tuple[Decimal, Decimal]]:
    return {asset: (Decimal(free), Decimal(locked)) for asset, (free, locked) in held.items()}


def test_the_same_numbers_written_differently_are_no_drift() -> None:
    assert compare(ours(BTC=("0.10", "0"), USDT=("5", "1.50")), venue(USDT=("5.00", "1.5"), BTC=("0.1", "0.000"))) == []


def test_a_difference_in_the_last_of_forty_digits_is_a_drift() -> None:
    long = "1234567890123456789012.123456789012345678"
    here, there = ours(SHIB=(f"{long}1", "0")), venue(SHIB=(f"{long}2", "0"))

    assert compare(here, there) == [Drift("SHIB", (Decimal(f"{long}1"), Decimal(0)), (Decimal(f"{long}2"), Decimal(0)))]


def test_what_moved_from_free_to_locked_is_a_drift_though_the_total_is_the_same() -> None:
    (drift,) = compare(ours(USDT=("10", "0")), venue(USDT=("7", "3")))

    assert (drift.asset, drift.ours, drift.venue) == ("USDT", (Decimal(10), Decimal(0)), (Decimal(7), Decimal(3)))


def test_an_asset_the_snapshot_leaves_out_is_zero_there() -> None:
    assert compare(ours(BTC=("0", "0.0")), venue()) == []
    assert [drift.venue for drift in compare(ours(BTC=("0", "1")), venue())] == [ZERO]


def test_an_asset_the_mirror_has_never_seen_is_zero_here() -> None:
    assert [(drift.asset, drift.ours) for drift in compare({}, venue(ETH=("0", "0"), BNB=("2", "0")))] == [
        ("BNB", ZERO)
    ]


def test_drifts_come_in_the_order_of_their_names() -> None:
    drifts = compare(ours(Z=("1", "0"), M=("1", "0")), venue(A=("1", "0"), M=("1", "0")))

    assert [drift.asset for drift in drifts] == ["A", "Z"]
