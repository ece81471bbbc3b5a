"""Facts as text of the row types that ``ledger.apply`` takes (apply.sql), as far as the fact alone tells it. Pure.

Laying out is most of the work of handing a batch over. It needs no batch and no session, so it is done while the
database is still busy with the frames before. Rows are text, and so is the array of them, because the driver hands one
text over at a fraction of the cost of its parts, and the server reads one about as fast as the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

import msgspec

from ledger.facts.identity import balance_value, stream_key
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Resolution, Settlement, Snapshot, Transfer

_WORDS_MAX = 10_000
"""Texts that come again and again, as symbols and states do: so many are kept as written. Each is a ``Word`` of the
venue's room, so of 64 characters at most."""


class OrderRow(msgspec.Struct, frozen=True, gc=False):
    """A ``told_order``, quoted for an ``array``, but for the place of its frame."""

    rest: str

    def text(self, frame: int) -> str:
        return f"({frame}{self.rest}"


class FillRow(msgspec.Struct, frozen=True, gc=False):
    """A ``told_fill``, quoted likewise, but for the place of its frame and the ordinal.

    ``key`` is who it is where the venue gave no trade id (see identity.py); ``once``: it cannot happen twice.
    """

    start: str
    rest: str
    key: UUID | None
    once: bool

    def text(self, frame: int, ordinal: int | None) -> str:
        return f"({frame}{self.start}{'' if ordinal is None else ordinal}{self.rest}"


class BalanceRow(msgspec.Struct, frozen=True, gc=False):
    """A ``told_balance``, quoted likewise, but for the place of its frame, its clock and its version.

    ``as_of_ms`` is the venue's clock, None where it gave none.
    """

    start: str
    asset: str
    value: tuple[Exact, Exact]
    as_of_ms: int | None

    def text(self, frame: int, as_of_ms: int, k: int) -> str:
        return f"({frame}{self.start}{as_of_ms},{k})"


Laid = OrderRow | FillRow | BalanceRow | Snapshot | Transfer | Settlement | Doubt | Resolution
"""A fact laid out; the rare ones stay as they are."""


def array(rows: Iterable[str]) -> str | None:
    """The array of these rows as the server reads it; None when there are none."""
    text = '","'.join(rows)
    return f'{{"{text}"}}' if text else None


def words(texts: Iterable[str]) -> str:
    """An array of texts that come again and again."""
    return f"{{{','.join(map(_element, texts))}}}"


def numbers(values: Iterable[int | None]) -> str:
    """An array of numbers."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


def lay(facts: Iterable[Fact]) -> tuple[Laid, ...]:
    """The facts of one frame, each as a row where it becomes one."""
    return tuple(
        [
            _order(fact)
            if isinstance(fact, Order)
            else _fill(index, fact)
            if isinstance(fact, Fill)
            else _balance(fact)
            if isinstance(fact, Balance)
            else fact
            for index, fact in enumerate(facts, start=1)
        ]
    )


def _order(order: Order) -> OrderRow:
    return OrderRow(
        f",{_word(order.symbol)},{order.order_id},{_word(order.status)},{_word(order.side)},{_word(order.type)},"
        f"{_word(order.time_in_force)},{_quoted(order.client_order_id)},{_plain(order.price)},{_plain(order.orig_qty)},"
        f"{_plain(order.executed_qty)},{_plain(order.executed_quote)},{_plain(order.created_ms)},"
        f"{_plain(order.updated_ms)},{order.decides})"
    )


def _fill(index: int, fill: Fill) -> FillRow:
    key = stream_key(fill) if fill.trade_id is None else None
    return FillRow(
        f",{index},{_word(fill.symbol)},{fill.order_id},{_plain(fill.trade_id)},{_plain(key)},",
        f",{_word(fill.side)},{fill.price},{fill.qty},{_plain(fill.quote_qty)},{_plain(fill.fee)},"
        f"{_word(fill.fee_asset)},{_plain(fill.is_maker)},{fill.executed_ms})",
        key,
        fill.status == "FILLED",
    )


def _balance(balance: Balance) -> BalanceRow:
    start = f",{_word(balance.asset)},{balance.free},{balance.locked},"
    return BalanceRow(start, balance.asset, balance_value(balance), balance.as_of_ms)


def _plain(value: Exact | int | bool | UUID | None) -> str | Exact | int | UUID:
    """What needs no quotes: decimals passed ``facts.decimals.exact``. Nothing between two commas is null."""
    return "" if value is None else value


def _quoted(text: str | None) -> str:
    """Text of the venue or of a client: whatever it holds, it stays one field, and an empty one is no null.

    Quoted for the row, and the quotes once more for the array the row will be in.
    """
    if text is None:
        return ""
    if text.isidentifier():
        return text
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\\\\\").replace('"', '\\"\\"')
    return f'\\"{text}\\"'


@lru_cache(_WORDS_MAX)
def _element(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_word = lru_cache(_WORDS_MAX)(_quoted)
