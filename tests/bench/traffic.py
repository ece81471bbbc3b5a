"""Frames as a busy account gets them, made beforehand: an order, two trades that fill it, two positions.

The forms are the venue family's, short (ten fields, no trade id) or full. Every order is another, every amount has
eight places, and the whole is the same for the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

SYMBOLS = tuple(f"C{n:02d}USDT" for n in range(10))
FRAMES_PER_ORDER = 5
FILLS_PER_ORDER = 2
START_MS = 1_717_372_800_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """Frames of one account. ``first_order`` keeps the orders of several apart."""

    full: bool
    first_order: int = 1
    start_ms: int = START_MS

    def frames(self, frames: int) -> list[bytes]:
        """So many frames in the order they happen, one order a millisecond."""
        return list(islice(self.stream(), frames))

    def stream(self) -> Iterator[bytes]:
        """The same without an end."""
        report = _long if self.full else _short
        for order in count(self.first_order):
            symbol, at_ms = SYMBOLS[order % len(SYMBOLS)], self.start_ms + order
            yield report(symbol, order, at_ms, "NEW", 0)
            for part in (1, 2):
                yield report(symbol, order, at_ms + part, "FILLED" if part == 2 else "PARTIALLY_FILLED", part)
                yield _position(symbol, order, at_ms + part, part)


def _short(symbol: str, order: int, at_ms: int, status: str, part: int) -> bytes:
    qty, price = (_qty(order), _price(order)) if part else ("0", "0")
    fee, asset = (_fee(order), '"USDT"') if part else ("0", "null")
    return (
        f'{{"e":"executionReport","s":"{symbol}","i":{order},"S":"BUY","X":"{status}","l":"{qty}","L":"{price}",'
        f'"n":"{fee}","N":{asset},"T":{at_ms}}}'
    ).encode()


def _long(symbol: str, order: int, at_ms: int, status: str, part: int) -> bytes:
    qty, price = (_qty(order), _price(order)) if part else ("0.00000000", "0.00000000")
    fee, asset = (_fee(order), '"USDT"') if part else ("0", "null")
    trade = order * FILLS_PER_ORDER + part - 1 if part else -1
    return (
        f'{{"e":"executionReport","E":{at_ms},"s":"{symbol}","c":"bench_{order:016d}","S":"BUY","o":"LIMIT",'
        f'"f":"GTC","q":"{_times(order, 2)}","p":"{_price(order)}","P":"0.00000000","F":"0.00000000","g":-1,"C":"",'
        f'"x":"{"TRADE" if part else "NEW"}","X":"{status}","r":"NONE","i":{order},"l":"{qty}",'
        f'"z":"{_times(order, part)}","L":"{price}","n":"{fee}","N":{asset},"T":{at_ms},"t":{trade},'
        f'"I":{order * 10 + part},"w":{"false" if part == 2 else "true"},"m":false,"M":{"true" if part else "false"},'
        f'"O":{at_ms - part},"Z":"{_quote(order, part)}","Y":"{_quote(order, 1) if part else "0.00000000"}",'
        f'"Q":"0.00000000","V":"NONE","W":{at_ms - part}}}'
    ).encode()


def _position(symbol: str, order: int, at_ms: int, part: int) -> bytes:
    held = f"{1000 + order * 2 + part}.00000000"
    return (
        f'{{"e":"outboundAccountPosition","E":{at_ms},"u":{at_ms},"B":[{{"a":"{symbol[:3]}","f":"{held}",'
        f'"l":"0.00000000"}},{{"a":"USDT","f":"{9_000_000_000 - order * 2 - part}.12345678","l":"0.00000000"}}]}}'
    ).encode()


def _price(order: int) -> str:
    return f"{100 + order % 900}.50"


def _qty(order: int) -> str:
    return _times(order, 1)


def _times(order: int, parts: int) -> str:
    return f"{(order % 97 + 1) * parts}.00000000"


def _quote(order: int, parts: int) -> str:
    halves = (order % 97 + 1) * parts * (2 * (100 + order % 900) + 1)
    return f"{halves // 2}.{'5' if halves % 2 else '0'}0000000"


def _fee(order: int) -> str:
    return f"0.{order % 90_000_000 + 10_000_000}"
