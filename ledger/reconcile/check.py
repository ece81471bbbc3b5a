"""Does the mirror hold what the venue says? Pure: values in, differences out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from ledger.facts.types import Snapshot


@dataclass(frozen=True, slots=True)
class Drift:
    """One asset on which mirror and venue differ: (free, locked) here and there."""

    asset: str
    ours: tuple[Decimal, Decimal]
    venue: tuple[Decimal, Decimal]


def compare(ours: Mapping[str, tuple[Decimal, Decimal]], venue: Snapshot) -> list[Drift]:
    """Compare balances asset by asset, by value; an asset absent from a complete snapshot is zero there.

    Returns one Drift per asset that differs; empty means the mirror is exact.
    """
    zero = (Decimal(0), Decimal(0))
    theirs = {balance.asset: (Decimal(balance.free), Decimal(balance.locked)) for balance in venue.balances}
    assets = sorted(ours.keys() | theirs.keys())
    return [
        Drift(asset, ours.get(asset, zero), theirs.get(asset, zero))
        for asset in assets
        if ours.get(asset, zero) != theirs.get(asset, zero)
    ]
