"""Is the mirror what the venue is? Compares the contract views with the sandbox's own books, row by row.

Independent of the mirror's code on purpose: it reads ``ledger_v1`` as any other program would and knows nothing of
frames or merges. What a dialect does not tell is not expected, but then it must stand in ``missing_executions``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

DIGITS = 200
"""Precision of sums here: Python's default of 28 would round."""


@dataclass(slots=True)
class Proof:
    """What was compared, and every difference in words; no difference means mirror = venue."""

    account: str
    dialect: str
    orders: int = 0
    fills: int = 0
    venue_fills: int = 0
    missing: int = 0
    balances: int = 0
    gaps_opened: int = 0
    gaps_closed: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.differences


async def prove(conn: Any, account: str, truth: Mapping[str, Any]) -> Proof:
    """Compare ``account`` in the database of ``conn`` with ``truth``, the JSON of the sandbox's books."""
    proof = Proof(account, truth["dialect"])
    with localcontext() as context:
        context.prec = DIGITS
        await _orders(conn, proof, truth["orders"])
        await _fills(conn, proof, truth)
        await _balances(conn, proof, truth["balances"])
    gaps = await conn.fetch("SELECT closed_at FROM ledger_v1.gaps WHERE account = $1", account)
    proof.gaps_opened = len(gaps)
    proof.gaps_closed = sum(gap["closed_at"] is not None for gap in gaps)
    if proof.gaps_closed < proof.gaps_opened:
        proof.differences.append(f"{proof.gaps_opened - proof.gaps_closed} gaps are open")
    proof.differences += [f"the venue saw what a mirror must never do: {text}" for text in truth["violations"]]
    return proof


async def _orders(conn: Any, proof: Proof, orders: list[Mapping[str, Any]]) -> None:
    rows = await conn.fetch("SELECT * FROM ledger_v1.orders WHERE account = $1", proof.account)
    ours = {(row["symbol"], row["order_id"]): row for row in rows}
    theirs = {(order["symbol"], order["order_id"]): order for order in orders}
    proof.orders = len(ours)
    # What the venue's REST has none of may never have been heard of here, or not how it ended.
    hidden = {key for key, order in theirs.items() if order.get("hidden")}
    for key in sorted((ours.keys() ^ theirs.keys()) - hidden):
        proof.differences.append(f"order {key} is only {'here' if key in ours else 'at the venue'}")
    for key in sorted(ours.keys() & theirs.keys()):
        mine, other = ours[key], theirs[key]
        if key in hidden:
            if mine["is_open"] is not False or mine["executed_qty"]:
                proof.differences.append(f"order {key} ended unexecuted at the venue, here it is {mine['status']}")
            continue
        for name in ("status", "side", "type"):
            if mine[name] != other[name]:
                proof.differences.append(f"order {key}: {name} {mine[name]} here, {other[name]} there")
        for name in ("orig_qty", "executed_qty"):
            if mine[name] != Decimal(other[name]):
                proof.differences.append(f"order {key}: {name} {mine[name]} here, {other[name]} there")


async def _fills(conn: Any, proof: Proof, truth: Mapping[str, Any]) -> None:
    rows = await conn.fetch("SELECT * FROM ledger_v1.fills WHERE account = $1", proof.account)
    missing = {
        (row["symbol"], row["order_id"]): row["missing_qty"]
        for row in await conn.fetch("SELECT * FROM ledger_v1.missing_executions WHERE account = $1", proof.account)
    }
    proof.fills, proof.venue_fills, proof.missing = len(rows), len(truth["fills"]), len(missing)
    ours = Counter(_numbers(row, "executed_ms", "quote_qty") for row in rows)
    theirs = Counter(_numbers(fill, "time_ms", "quote") for fill in truth["fills"])
    for numbers, count in (ours - theirs).items():
        proof.differences.append(f"{count} fill(s) here that the venue never made: {numbers}")
    shortfall: dict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for numbers, count in (theirs - ours).items():
        shortfall[numbers[0], numbers[1]] += numbers[4] * count
    if dict(shortfall) != missing:
        proof.differences.append(f"fills lack {dict(shortfall)}, missing_executions says {missing}")
    if missing and truth["dialect"] in ("mixed", "full"):
        proof.differences.append(f"trades can be read over REST, yet {len(missing)} orders lack fills")
    trade_ids = {(f["symbol"], f["order_id"], f["trade_id"]) for f in truth["fills"]}
    for row in rows:
        if row["trade_id"] is not None and (row["symbol"], row["order_id"], row["trade_id"]) not in trade_ids:
            proof.differences.append(f"trade id {row['trade_id']} of order {row['order_id']} is not the venue's")


def _numbers(fill: Mapping[str, Any], time: str, quote: str) -> tuple[Any, ...]:
    return (
        fill["symbol"],
        fill["order_id"],
        fill["side"],
        Decimal(fill["price"]),
        Decimal(fill["qty"]),
        Decimal(fill[quote]),
        Decimal(fill["fee"]),
        fill[time],
    )


async def _balances(conn: Any, proof: Proof, balances: Mapping[str, Mapping[str, str]]) -> None:
    rows = await conn.fetch("SELECT asset, free, locked FROM ledger_v1.balances WHERE account = $1", proof.account)
    zero = (Decimal(0), Decimal(0))
    ours = {row["asset"]: (row["free"], row["locked"]) for row in rows}
    theirs = {asset: (Decimal(held["free"]), Decimal(held["locked"])) for asset, held in balances.items()}
    proof.balances = len(ours)
    for asset in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(asset, zero), theirs.get(asset, zero)
        if mine != other:
            proof.differences.append(f"{asset}: {mine[0]} free {mine[1]} locked here, {other[0]} and {other[1]} there")
