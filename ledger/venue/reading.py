"""From bytes to values whose types are right; shared by stream frames and REST pages.

Always holds: numbers stay text or become int, never float; of two equal keys in one object neither is
believed; a text that PostgreSQL could not store is found before it becomes part of a fact. Whatever is wrong
comes out as UnreadableFrame with a short sentence in it that can be stored and logged: no control characters,
bounded length.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

from ledger.errors import UnreadableFrame
from ledger.facts.decimals import exact, is_negative, is_zero, non_negative, shown
from ledger.facts.types import Exact

LAST_MS = 253_402_300_799_999
"""The last ms of the year 9999. A clock beyond it does not count in ms."""

LAST_ID = 2**63 - 1
"""The largest id that fits BIGINT."""

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""A symbol, asset, status, type."""
ClientId = Annotated[str, msgspec.Meta(max_length=128)]
Id = Annotated[int, msgspec.Meta(ge=0, le=LAST_ID)]
MaybeId = Annotated[int, msgspec.Meta(le=LAST_ID)]
"""An id that is negative where there is none."""
Ms = Annotated[int, msgspec.Meta(ge=1, le=LAST_MS)]
MaybeMs = Annotated[int, msgspec.Meta(le=LAST_MS)]
"""A time that is zero or negative where there is none."""

Shape = TypeVar("Shape", bound=msgspec.Struct)

REMARK = "remark: "
"""How the journal's ``problem`` begins where the row was understood and only a field that describes was left out."""
REMARK_MAX = 300
"""Characters of a remark; what is left out of it is counted."""


class Number:
    """A number with a point or exponent, or NaN, as written. No field of this venue is one: it fits nowhere.

    Not a dataclass, which the encoder in ``parse`` would write in more characters than were read.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Doubled(dict[str, Any]):
    """An object that names one key twice; ``key`` is one such."""

    key: str


def parse(raw: bytes) -> tuple[object, bool]:
    """The JSON value in ``raw``, and whether it is suspect: then ``flaw`` must be asked before it is used.

    Raises UnreadableFrame when ``raw`` is not one JSON value in UTF-8 or is nested beyond reason.
    """
    try:
        tree, doubtful = _decoded(raw)
        if doubtful:
            return tree, True
        # What was read takes as many characters as it came in, so nothing was left out, no repeated key either. Other-
        # wise, each separator is a comma, and as many commas as the tree needs leave none for a repeated key. Only when
        # their count differs too (a comma within a text, or a double) is every key looked at.
        if not _is_compact(tree, raw) and raw.count(b",") != _separators(tree, _NESTED_MAX):
            return _closely(raw), True
        return tree, b"\\" in raw and b"\\u" in raw
    except RecursionError:
        raise UnreadableFrame(f"expected JSON, got one nested deeper than {_NESTED_MAX}") from None
    except ValueError as error:
        raise UnreadableFrame(f"expected JSON, got {len(raw)} bytes that are not: {error}") from None


def flaw(tree: object) -> str | None:
    """Why the texts of ``tree`` cannot be used, None when they can: a key named twice, or text no database
    stores."""
    if isinstance(tree, str):
        return None if storable(tree) else f"expected text, got NUL or half a character in {shown(tree)}"
    if isinstance(tree, Doubled):
        return f"expected every key once, got {shown(tree.key)} twice"
    if isinstance(tree, dict):
        return next((found for value in tree.values() if (found := flaw(value))), None)
    if isinstance(tree, list):
        return next((found for value in tree if (found := flaw(value))), None)
    return None


def storable(text: str) -> bool:
    """False for NUL and lone surrogates, which PostgreSQL's text refuses."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def is_name(value: object) -> bool:
    """True for a short printable text or an id: fit for a message, a log line and a text column."""
    if isinstance(value, str):
        return 0 < len(value) <= _NAME_MAX and value.isprintable()
    return type(value) is int and value.bit_length() < 64


def subject(*told: object) -> str:
    """' BTCUSDT/288274': what a message is about, as far as ``told`` has names; empty when it has none."""
    names = "/".join(str(value) for value in told if is_name(value))
    return f" {names}" if names else ""


def read_as(tree: object, shape: type[Shape]) -> Shape:
    """``tree`` as ``shape``; fields it does not know are ignored. Raises UnreadableFrame naming the field."""
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError as error:
        raise UnreadableFrame(_sentence(str(error), tree)) from None


def fits(tree: object, shape: type[Shape]) -> Shape | None:
    """``tree`` as ``shape``, None where any field of it cannot be read."""
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError:
        return None


def read_trusting(
    tree: dict[str, Any], shape: type[Shape], describing: frozenset[str], *, suspect: bool
) -> tuple[Shape, tuple[str, ...]]:
    """``tree`` as ``shape``, and what had to be left out: fields that only describe are None where they cannot be read.

    ``describing`` names them; all others are strict. ``suspect``: what ``parse`` said of the whole. Raises
    UnreadableFrame naming the field.
    """
    if isinstance(tree, Doubled):
        raise UnreadableFrame(flaw(tree) or "expected every key once")
    kept: dict[str, Any] = {}
    remarks: list[str] = []
    for field in msgspec.structs.fields(shape):
        name = field.encode_name
        if name not in tree:
            continue
        value = tree[name]
        problem = flaw(value) if suspect else None
        if name in describing and (problem := problem or _misfit(value, field.type)):
            remarks.append(f"field {name}: {problem}")
            continue
        if problem:
            raise UnreadableFrame(problem)
        kept[name] = value
    return read_as(kept, shape), tuple(remarks)


def remark(remarks: Sequence[str]) -> str | None:
    """What the journal says of a row that was understood without some describing fields; None when there are none."""
    if not remarks:
        return None
    text = "; ".join(remarks)
    return REMARK + (text if len(text) <= REMARK_MAX else f"{text[:REMARK_MAX]} … ({len(remarks)} in all)")


def is_remark(problem: str | None) -> bool:
    """Whether the journal row with this problem was understood all the same."""
    return problem is not None and problem.startswith(REMARK)


def is_nothing(text: object) -> bool:
    """Whether an amount is absent or zero: its asset only describes then."""
    try:
        return text is None or is_zero(exact(text))
    except ValueError:
        return False


def sized_in_quote(type_: str | None, ordered: str | None, executed: str | None) -> str | None:
    """Why an original quantity is none: a market order placed for an amount of quote asset may be told with that amount
    in its place, so that more was executed than was ordered. None where it makes sense or cannot be compared."""
    if type_ is None or "MARKET" not in type_ or ordered is None or executed is None:
        return None
    try:
        base, done = non_negative(ordered), non_negative(executed)
    except ValueError:
        return None
    if is_zero(base) or Decimal(done) <= Decimal(base):
        return None
    return f"expected at least the executed {shown(executed)}, got {shown(ordered)}"


def _misfit(value: object, type_: Any) -> str | None:
    """Why a value does not fit a field of this type; None when it does."""
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return _sentence(str(error), value)
    return None


def amount(field: str, text: str | None) -> Exact | None:
    """A decimal of zero or more; None when not told. Raises UnreadableFrame naming ``field``."""
    return None if text is None else needed_amount(field, text)


def needed_amount(field: str, text: str | None) -> Exact:
    """A decimal of zero or more. Raises UnreadableFrame naming ``field``, also when it was not told."""
    try:
        return non_negative(text)
    except ValueError as error:
        raise UnreadableFrame(f"field {field}: {error}") from None


def signed(field: str, text: str | None) -> Exact | None:
    """A decimal of either sign; None when not told. Raises UnreadableFrame naming ``field``."""
    try:
        return None if text is None else exact(text)
    except ValueError as error:
        raise UnreadableFrame(f"field {field}: {error}") from None


def known_amount(field: str, text: str | None) -> Exact | None:
    """Like ``amount``, for the cumulative quote total: negative is how the venue says that it does not
    know."""
    number = signed(field, text)
    return None if number is None or is_negative(number) else number


def told_fee(field: str, text: str | None, asset: str | None) -> Exact | None:
    """A fee as the venue charged it, negative for a rebate. Zero without an asset is None: nothing was
    charged."""
    fee = signed(field, text)
    return None if fee is None or (asset is None and is_zero(fee)) else fee


def known_id(number: int | None) -> int | None:
    """An id, None when the venue gave a negative number in its place."""
    return number if number is not None and number >= 0 else None


def known_ms(ms: int | None) -> int | None:
    """A time in ms, None when the venue gave zero or less in its place."""
    return ms if ms is not None and ms > 0 else None


_DECODER = msgspec.json.Decoder(float_hook=Number)
_ENCODER = msgspec.json.Encoder()
_NESTED_MAX = 32
_NAME_MAX = 64
_STEP = re.compile(r"(\w+)|\[(\d+)\]")


def _decoded(raw: bytes) -> tuple[object, bool]:
    """The tree, and whether it was looked at closely."""
    try:
        return _DECODER.decode(raw), False
    except msgspec.DecodeError:
        # A bare NaN or half a surrogate pair stops the fast decoder; the rest of the page may still be told.
        return _closely(raw), True


def _closely(raw: bytes) -> object:
    """The tree with every repeated key marked, and NaN and half surrogate pairs let through to be named later."""
    return json.loads(raw.decode(), object_pairs_hook=_object, parse_float=Number, parse_constant=Number)


def _is_compact(tree: object, raw: bytes) -> bool:
    """Whether ``tree``, written as short as it can be, is as long as ``raw``, and too small to be nested too deep.

    Nothing is written longer than it came.
    """
    if raw.count(b"{") + raw.count(b"[") > _NESTED_MAX:
        return False
    try:
        return len(_ENCODER.encode(tree)) == len(raw)
    except (TypeError, OverflowError):
        return False  # a Number, or an int of more than 64 bits: fit for no field


def _separators(tree: object, room: int) -> int:
    """How many commas it takes to write ``tree``. Raises RecursionError when it is nested beyond ``room``."""
    if room == 0:
        raise RecursionError
    if isinstance(tree, dict):
        values: Iterable[object] = tree.values()
    elif isinstance(tree, list):
        values = tree
    else:
        return 0
    commas = max(len(tree) - 1, 0)
    for value in values:
        kind = type(value)
        if kind is dict or kind is list:
            commas += _separators(value, room - 1)
    return commas


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    doubled = Doubled(plain)
    doubled.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return doubled


def _sentence(complaint: str, tree: object) -> str:
    """msgspec's complaint in our form: field, expected, got."""
    what, _, where = complaint.partition(" - at `$")
    where = where.strip(".`")
    if what.startswith("Object missing required field"):
        return f"field {'.'.join(filter(None, (where, what.split('`')[1])))}: expected one, got none"
    expected = what.removeprefix("Expected ").partition(", got ")[0].replace("`", "")
    value = _at(tree, where)
    got = f"the number {value.text[:40]}" if isinstance(value, Number) else shown(value)
    return f"{f'field {where}: ' if where else ''}expected {expected}, got {got}"


def _at(tree: Any, where: str) -> object:
    """The value at a path such as ``B[0].f``."""
    for name, index in _STEP.findall(where):
        tree = tree[int(index)] if index else tree[name]
    return tree
