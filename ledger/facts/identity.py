"""Who a stream fill is when the venue gives no trade id, and which of two equal clocks is newer.

Always holds: the k-th equal frame of one session is the k-th equal frame of another, so overlapping sockets and
redelivery in a new session never double a fill, while two genuine equal fills of one millisecond are both kept.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

from ledger.facts.decimals import canonical
from ledger.facts.types import Balance, Exact, Fill, Transfer

REMEMBERED_MAX = 100_000
"""Fill contents and asset clocks one session remembers; the oldest go first. A frame repeated after that many others
counts as the first of its kind and meets the row it made before."""


def stream_key(fill: Fill) -> UUID:
    """Digest of what the frame said: symbol, order, status, time, quantity, price, fee and its asset, by value."""
    parts = (
        fill.symbol,
        str(fill.order_id),
        fill.status or "",
        str(fill.executed_ms),
        canonical(fill.qty),
        canonical(fill.price),
        "" if fill.fee is None else canonical(fill.fee),
        fill.fee_asset or "",
    )
    return UUID(bytes=hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest())


def transfer_key(transfer: Transfer) -> UUID:
    """Digest of what the event said: the venue gives a movement no id."""
    parts = ("transfer", transfer.asset, str(transfer.at_ms), transfer.kind, canonical(transfer.amount))
    return UUID(bytes=hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest())


def balance_value(balance: Balance) -> tuple[Exact, Exact]:
    """What it says, whatever the spelling: free and locked."""
    return canonical(balance.free), canonical(balance.locked)


class SessionMemory:
    """What one session has said so far: counts equal fills and numbers equal clocks. Not shared between sessions."""

    def __init__(self) -> None:
        self._fills: dict[UUID, int] = {}
        self._clocks: dict[str, tuple[int, list[tuple[Exact, Exact]]]] = {}

    def ordinal(self, key: UUID, *, once: bool) -> int:
        """Which of the equal frames this one is, from 1. ``once``: it happens once only (FILLED), so always 1."""
        if once:
            return 1
        seen = self._fills.pop(key, 0) + 1
        self._fills[key] = seen
        if len(self._fills) > REMEMBERED_MAX:
            del self._fills[next(iter(self._fills))]
        return seen

    def version(self, asset: str, value: tuple[Exact, Exact], as_of_ms: int) -> int:
        """k of the version (clock, k): which distinct ``balance_value`` of this asset and clock it is, from 1."""
        clock, values = self._clocks.get(asset, (None, []))
        if clock != as_of_ms:
            values = []
            self._clocks[asset] = (as_of_ms, values)
        if value not in values:
            values.append(value)
        return values.index(value) + 1
