"""The facts: what a stream frame or a REST row says, in our words.

A fact never says where it came from or when it arrived; that belongs to the frame that carried it. Stream and REST
give the same facts, and the same function writes them. Quantities are in base asset, quote totals in quote asset,
times in ms UTC as the venue gave them. None means: not told.
"""

from __future__ import annotations

from typing import NewType

import msgspec

Exact = NewType("Exact", str)
"""Decimal text that passed ``facts.decimals.exact``; it reaches NUMERIC digit for digit."""


class Order(msgspec.Struct, frozen=True, gc=False):
    """The state of one order. Identity: (symbol, order_id)."""

    symbol: str
    order_id: int
    status: str | None = None
    side: str | None = None
    type: str | None = None
    time_in_force: str | None = None
    client_order_id: str | None = None
    price: Exact | None = None
    orig_qty: Exact | None = None
    executed_qty: Exact | None = None
    executed_quote: Exact | None = None
    created_ms: int | None = None
    updated_ms: int | None = None
    decides: bool = False
    """True for an answer of GET order: it decides between two different terminal states."""


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One execution of an order.

    With a venue trade id its identity is (symbol, order_id, trade_id). Without one it is the content of the stream
    frame, ``status`` included, plus the ordinal of that content within its session.
    """

    symbol: str
    order_id: int
    side: str | None
    price: Exact
    qty: Exact
    executed_ms: int
    quote_qty: Exact | None = None
    fee: Exact | None = None
    fee_asset: str | None = None
    trade_id: int | None = None
    is_maker: bool | None = None
    status: str | None = None
    """The order status the stream frame carried; None on REST rows."""


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What the account holds of one asset, absolute. ``as_of_ms`` is the venue's clock, None where it gives none."""

    asset: str
    free: Exact
    locked: Exact
    as_of_ms: int | None = None


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The whole account as REST told it: an asset that is absent is zero."""

    balances: tuple[Balance, ...]
    as_of_ms: int | None = None


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """A movement into (positive) or out of (negative) the account that is not a trade."""

    asset: str
    amount: Exact
    kind: str
    at_ms: int


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The executed quantity of an order, asked late enough to judge its provisional fills (see db/apply.sql)."""

    symbol: str
    order_id: int
    executed_qty: Exact


class Doubt(msgspec.Struct, frozen=True, gc=False):
    """Something that does not fit and must be seen by a person; becomes a row of ``discrepancies``."""

    kind: str
    subject: str
    expected: str | None
    actual: str | None
    residual: Exact | None = None
    """An unexplained amount, signed as the balance moved."""
    at_ms: int | None = None
    """Instant of the balance that shows it."""
    evidence_seq: int | None = None
    """The journal row that shows it; None: the row that carries this fact."""
    resolution: str | None = None
    """How it was settled at once; None: it is open."""
    symbol: str | None = None
    """The market it is about; None: none, or not known."""
    order_id: int | None = None
    trade_id: int | None = None
    asset: str | None = None
    uncovered_from_ms: int | None = None
    """While it is open, coverage of its market (of every market where ``symbol`` is None) ends at this instant of the
    venue's clock; 0: nothing is covered; None: coverage is not touched."""


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """A person's decision about a discrepancy, in words."""

    discrepancy_id: int
    resolution: str


Fact = Order | Fill | Balance | Snapshot | Transfer | Settlement | Doubt | Resolution
