"""Decimal text: the one gate through which the venue's numbers enter.

Always holds: what passes is plain ASCII digits, at most 60 on either side of the point, and PostgreSQL's
NUMERIC takes it digit for digit. '0.10' stays '0.10' and '-0' stays '-0'. Never a float, never Python's
28-digit context. ``decimal.Decimal`` alone would let ' 1 ', '1_000', full-width digits, 'NaN' and
'1e999999999' through.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import cast

from ledger.facts.types import Exact

LENGTH_MAX = 100
"""Characters of a decimal as the venue writes it."""

_UNSIGNED = re.compile(r"[0-9]{1,38}\.[0-9]{1,60}")
"""How nearly every amount is written: one look is enough for it."""
_PLAIN = re.compile(r"-?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})")
_EXPONENT = re.compile(r"-?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})[eE][+-]?([0-9]{1,2})")
_EXPONENT_MAX = 40


def exact(text: object) -> Exact:
    """The decimal in ``text``, as given; '1E-8' is written out as '0.00000001'.

    Raises ValueError for anything else: a leading plus, spaces, separators, NaN, more than 60 digits on a
    side, an exponent beyond 40, and whatever is not a str (JSON numbers have lost digits already when they
    get here).
    """
    if type(text) is str and len(text) <= LENGTH_MAX:
        if _PLAIN.fullmatch(text):
            return cast(Exact, text)
        scientific = _EXPONENT.fullmatch(text)
        if scientific and int(scientific[1]) <= _EXPONENT_MAX:
            # Building a Decimal and writing it out with "f" is exact whatever the context's precision.
            plain = format(Decimal(text), "f")
            if _PLAIN.fullmatch(plain):
                return Exact(plain)
    raise ValueError(f"expected a decimal, got {shown(text)}")


def non_negative(text: object) -> Exact:
    """Like ``exact``, and raises ValueError below zero. '-0' is zero."""
    if type(text) is str and _UNSIGNED.fullmatch(text):
        return cast(Exact, text)
    number = exact(text)
    if is_negative(number):
        raise ValueError(f"expected a decimal of zero or more, got {shown(text)}")
    return number


def is_zero(number: Exact) -> bool:
    """True when no digit is other than 0; '-0.00' is zero."""
    return not number.strip("-.0")


def is_negative(number: Exact) -> bool:
    """True below zero; '-0.00' is not."""
    return number[0] == "-" and not is_zero(number)


def canonical(number: Exact) -> Exact:
    """The one spelling of this value, for identity: no needless zeros, no bare point, no negative zero."""
    whole, _, part = number.lstrip("-").partition(".")
    whole = whole.lstrip("0") or "0"
    part = part.rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return Exact(f"-{value}" if is_negative(number) else value)


def shown(value: object) -> str:
    """``value`` as an error message may show it: short, ASCII, one line."""
    if isinstance(value, str):
        return ascii(value) if len(value) <= 40 else f"{value[:40]!a} and {len(value) - 40} more characters"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value).lower() if value.bit_length() <= 64 else "a huge number"
    return f"a {type(value).__name__}"
