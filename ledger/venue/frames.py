"""Stream frames: what came over the socket, as far as it can be read.

Always holds: ``read`` never raises, whatever the bytes; a frame either has an event whose types are right, or
a problem, or is one of the kinds that carry no facts. The event comes bare, as {stream, data} or as
{subscriptionId, event}. Field names are the venue's and spoken only here and in ``stream_events``; they
differ by case alone.

Source: the venue shows ten fields of executionReport and nothing of the rest; the full forms are those of the
venue it follows (user-data-stream.md, 2026-07-21).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ledger.errors import UnreadableFrame
from ledger.facts.decimals import shown
from ledger.venue.reading import (
    LAST_ID,
    LAST_MS,
    ClientId,
    Doubled,
    Id,
    MaybeId,
    MaybeMs,
    Ms,
    Word,
    fits,
    flaw,
    is_name,
    is_nothing,
    parse,
    read_as,
    read_trusting,
    remark,
    sized_in_quote,
    subject,
)

UNREADABLE = "unreadable"
"""Kind of a frame that names no event."""

FACTLESS = frozenset({"listStatus", "listenKeyExpired", "serverShutdown", "eventStreamTerminated"})
"""Kinds that are understood and say nothing about orders, fills or balances that another event does not
say."""


class ExecutionReport(msgspec.Struct, frozen=True):
    """One change of one order. Only ``s``, ``i`` and ``X`` are needed; the ten-field form has S, l, L, n, N,
    T too."""

    s: Word
    i: Id
    X: Word
    S: Word | None = None
    l: str | None = None  # noqa: E741 -- the venue's name
    L: str | None = None
    n: str | None = None
    N: Word | None = None
    T: Ms | None = None
    E: Ms | None = None
    x: Word | None = None
    o: Word | None = None
    f: Word | None = None
    c: ClientId | None = None
    C: ClientId | None = None
    q: str | None = None
    p: str | None = None
    z: str | None = None
    Z: str | None = None
    Y: str | None = None
    t: MaybeId | None = None
    m: bool | None = None
    O: MaybeMs | None = None  # noqa: E741 -- the venue's name


class Holding(msgspec.Struct, frozen=True):
    """One asset of an account position, absolute."""

    a: Word
    f: str
    l: str  # noqa: E741 -- the venue's name


class AccountPosition(msgspec.Struct, frozen=True):
    """The assets a change may have touched; an asset that is absent is unchanged."""

    B: list[Holding]
    u: Ms | None = None
    E: Ms | None = None


class BalanceUpdate(msgspec.Struct, frozen=True):
    """A movement that is not a trade: ``d`` is signed."""

    a: Word
    d: str
    T: Ms | None = None
    E: Ms | None = None


Event = ExecutionReport | AccountPosition | BalanceUpdate


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame. ``kind`` is the venue's event name; ``venue_ms`` the venue's clock, None where it gives
    none.

    ``event`` is None for kinds without facts and whenever there is a ``problem``: one sentence, fit to be
    stored. ``remark``: which fields that only describe were left out of an event that was understood.
    """

    kind: str
    venue_ms: int | None
    event: Event | None
    problem: str | None
    remark: str | None = None
    about: Unread | None = None
    """What a report that could not be read is about, as far as it says."""


class Unread(msgspec.Struct, frozen=True, gc=False):
    """An executionReport that could not be read: which market it names, and which order and time where it tells them.

    ``at_ms`` is the venue's clock; where it is told in microseconds, by its ms.
    """

    symbol: str
    order_id: int | None
    at_ms: int | None


def read(raw: bytes) -> Frame:
    """The frame in ``raw``. Never raises: what is wrong is the frame's problem."""
    try:
        tree, suspect = parse(raw)
    except UnreadableFrame as error:
        return Frame(UNREADABLE, None, None, str(error))
    event = _unwrapped(tree)
    kind = event.get("e")
    if not isinstance(kind, str) or not is_name(kind):
        nameless = f"field e: expected an event name, got {shown(kind)}"
        return Frame(UNREADABLE, _clock(UNREADABLE, event), None, nameless)
    venue_ms = _clock(kind, event)
    if kind == "executionReport":
        if suspect and isinstance(tree, Doubled):
            return Frame(kind, venue_ms, None, f"{kind}: {flaw(tree)}", None, unread(event))
        return _report(event, venue_ms, suspect)
    if suspect and (problem := flaw(tree)):
        return Frame(kind, venue_ms, None, f"{kind}: {problem}")
    shape = _SHAPES.get(kind)
    if shape is None:
        return Frame(kind, venue_ms, None, None if kind in FACTLESS else f"unknown event {kind}")
    try:
        return Frame(kind, venue_ms, read_as(event, shape), None)
    except UnreadableFrame as error:
        return Frame(kind, venue_ms, None, f"{kind}{subject(event.get('s'), event.get('i'), event.get('a'))}: {error}")


def unread(event: dict[str, Any] | ExecutionReport) -> Unread | None:
    """What a report that could not be read is about; None where not even the market can be told."""
    told = msgspec.structs.asdict(event) if isinstance(event, ExecutionReport) else event
    symbol, order_id = told.get("s"), told.get("i")
    if not isinstance(symbol, str) or not is_name(symbol):
        return None
    is_id = type(order_id) is int and 0 <= order_id <= LAST_ID
    return Unread(symbol, order_id if is_id else None, _clock("executionReport", told) or _from_micros(told))


def _report(event: dict[str, Any], venue_ms: int | None, suspect: bool) -> Frame:
    """An executionReport: what only describes the order never costs its state or its execution."""
    remarks: tuple[str, ...] = ()
    try:
        report = None if suspect else fits(event, ExecutionReport)
        if report is None:
            # The asset of no fee only describes; that of a fee is what was paid.
            describing = _DESCRIBING_AND_FEE_ASSET if is_nothing(event.get("n")) else _DESCRIBING
            report, remarks = read_trusting(event, ExecutionReport, describing, suspect=suspect)
    except UnreadableFrame as error:
        said = f"executionReport{subject(event.get('s'), event.get('i'))}: {error}"
        return Frame("executionReport", venue_ms, None, said, None, unread(event))
    if report.z is not None and (why := sized_in_quote(report.o, report.q, report.z)):
        report = msgspec.structs.replace(report, q=None)
        remarks = (*remarks, f"field q: {why}")
    return Frame("executionReport", venue_ms, report, None, remark(remarks))


_DESCRIBING = frozenset({"o", "f", "c", "C", "m", "O"})
"""Fields of an executionReport that only describe: type, time in force, client ids, maker or not, creation."""
_DESCRIBING_AND_FEE_ASSET = _DESCRIBING | {"N"}


_SHAPES: dict[str, type[AccountPosition] | type[BalanceUpdate]] = {
    "outboundAccountPosition": AccountPosition,
    "balanceUpdate": BalanceUpdate,
}
_CLOCKS = {
    "executionReport": ("T", "E"),
    "outboundAccountPosition": ("u", "E"),
    "balanceUpdate": ("T", "E"),
}
"""Where each kind tells when it happened; the other kinds only tell E, when it was sent."""


def _unwrapped(tree: object) -> dict[str, Any]:
    """The event itself, out of whichever envelope; an empty one when there is none."""
    if not isinstance(tree, dict):
        return {}
    if "e" not in tree:
        for envelope in ("data", "event"):
            if isinstance(inner := tree.get(envelope), dict):
                return inner
    return tree


def _clock(kind: str, event: dict[str, Any]) -> int | None:
    """The venue's clock, read from unreadable events too."""
    for name in _CLOCKS.get(kind, ("E",)):
        ms = event.get(name)
        if type(ms) is int and 1 <= ms <= LAST_MS:
            return ms
    return None


def _from_micros(event: dict[str, Any]) -> int | None:
    """The venue's clock where it is told in microseconds: good enough to say since when something is not known, not to
    date an execution."""
    for name in _CLOCKS["executionReport"]:
        us = event.get(name)
        if type(us) is int and us > LAST_MS and 1 <= us // 1000 <= LAST_MS:
            return us // 1000
    return None
