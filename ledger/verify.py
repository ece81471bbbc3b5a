"""Is everything true that must be true of the mirror? Every invariant is one named check.

Always holds: nothing is written, here or at the venue; all checks of an account look at one moment of the database. The
queries stand in ``db/checks.sql``; what needs more than the database (the head kept outside, the venue itself) is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from importlib.resources import files
from typing import Any

from ledger.db import reads
from ledger.db.reads import OrderKey
from ledger.errors import KeyRefused, UnreadableFrame, VenueBusy, VenueRefused
from ledger.facts.types import Fill, Order, Snapshot
from ledger.reconcile import check as balances
from ledger.venue import requests, rest_pages
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Page
from ledger.wire.clock import Clock
from ledger.wire.heads import Head
from ledger.wire.http import VenueHttp

SHOWN_MAX = 5
"""Offending rows a verdict shows; all of them are counted."""
LONG_S = 3600.0
"""For one check over whole tables; the driver's own limit is for the statements of the service."""
LOOKS_MAX = 5
LOOK_AGAIN_S = 5.0
"""Pause between two looks at the venue, or SDX_REST_LAG_S where that is longer."""

_TITLE = re.compile(r"^-- (strict )?check (\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant. ``sql`` returns key, found and seq of each row that breaks it; ``strict``: only under --strict."""

    name: str
    meaning: str
    sql: str
    strict: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What breaks a check: what it is about, the numbers, and the journal row that shows it (None: there is none)."""

    key: str
    found: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: how many rows break it, and the first of them. ``note``: what could not be checked."""

    name: str
    meaning: str
    count: int
    first: tuple[Row, ...] = ()
    note: str | None = None

    @property
    def holds(self) -> bool:
        return self.count == 0


@dataclass(frozen=True, slots=True)
class Report:
    """Every verdict about one account, as of journal row ``head_seq``."""

    account: str
    head_seq: int
    verdicts: tuple[Verdict, ...]
    missing_executions: int = 0
    """Orders of which the venue executed more than the fills tell: known, and no broken check."""

    @property
    def holds(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts)


@cache
def checks() -> tuple[Check, ...]:
    """The checks of ``db/checks.sql``, in the order of that file."""
    text = (files("ledger.db") / "checks.sql").read_text("utf-8")
    titles = list(_TITLE.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    return tuple(
        Check(title[2], title[3], text[title.end() : end].strip().rstrip(";"), title[1] is not None)
        for title, end in zip(titles, ends, strict=True)
    )


async def verify(conn: Any, account: str, *, now_ms: int, head: Head | None, strict: bool = False) -> Report:
    """All checks over the database. ``conn`` is an asyncpg connection outside a transaction; ``head`` is what was kept
    outside it, None when nothing was; ``now_ms`` is this machine's clock."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        # Whole tables meet here; where statistics are missing the planner would try row by row.
        await conn.execute("SET LOCAL enable_nestloop = off")
        head_seq = await conn.fetchval("SELECT head_seq FROM ledger_read.accounts WHERE account = $1", account)
        verdicts = [await _run(conn, one, account, now_ms) for one in checks() if strict or not one.strict]
        verdicts.append(await _head_is_kept(conn, account, head_seq, head))
        missing = await conn.fetchval("SELECT count(*) FROM ledger_v1.missing_executions WHERE account = $1", account)
    return Report(account, head_seq, tuple(verdicts), missing)


async def _run(conn: Any, one: Check, account: str, now_ms: int) -> Verdict:
    values = (account, now_ms) if "$2" in one.sql else (account,)
    rows = await conn.fetch(
        f"SELECT key, found, seq, count(*) OVER () AS n FROM ({one.sql}\n) q LIMIT {SHOWN_MAX}",
        *values,
        timeout=LONG_S,
    )
    first = tuple(Row(row["key"], row["found"], row["seq"]) for row in rows)
    return Verdict(one.name, one.meaning, rows[0]["n"] if rows else 0, first)


async def _head_is_kept(conn: Any, account: str, head_seq: int, head: Head | None) -> Verdict:
    verdict = partial(
        Verdict, "head_is_kept", "The journal still holds what it held when its head was last kept outside."
    )
    if head is None:
        return verdict(0, note="no head was kept outside the database yet")
    _, _, digest = await reads.head(conn, account, head.seq)
    if digest == head.digest:
        return verdict(0)
    named_by = await reads.lost_row(conn, account, head.seq)
    if named_by is not None:
        return verdict(0, note=f"row {head.seq} was lost when the database went back, as row {named_by} says")
    if head_seq < head.seq:
        found = f"the journal ends at row {head_seq}, it had {head.seq} rows; a service that starts opens a gap for it"
    elif digest is None:
        found = f"no batch ends at row {head.seq} any more"
    else:
        found = f"the digest up to row {head.seq} was {head.digest}, now it is {digest}"
    return verdict(1, (Row(f"row {head.seq}", found, head.seq),))


# --- the venue -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Difference:
    """Something the venue says otherwise, in words that name both sides."""

    kind: str
    key: str
    found: str


_AGREEMENTS = {
    "account": ("venue_balances", "The venue holds the balances that the mirror holds."),
    "openOrders": ("venue_open_orders", "The orders open at the venue are those open here."),
    "allOrders": ("venue_orders", "The venue's newest orders of every known symbol are here, in the same state."),
    "myTrades": (
        "venue_fills",
        "The venue's newest trades of every known symbol are fills here, with the same numbers.",
    ),
}


async def against_venue(
    conn: Any, http: VenueHttp, clock: Clock, account: str, *, rest_lag_s: float
) -> tuple[Verdict, ...]:
    """What the venue says now, compared with the mirror.

    What differs is looked at again: only what differs twice in the same way counts, since an account that trades moves
    between the two answers. ``conn`` is outside a transaction: each look sees the newest rows. Raises VenueError.
    """
    waiting = await _questions(conn, account)
    asked = {request.kind for request in waiting}
    before: set[_Difference] = set()
    confirmed: set[_Difference] = set()
    notes: list[str] = []
    for look in range(LOOKS_MAX):
        if look:
            await clock.sleep(max(rest_lag_s, LOOK_AGAIN_S))
        found: dict[Request, set[_Difference]] = {}
        for request in waiting:
            try:
                found[request] = await _look(conn, http, account, request)
            except VenueRefused as refused:
                if isinstance(refused, KeyRefused) or request.symbol is None:
                    raise
                notes.append(f"{request.symbol}: {refused}")
        differing = {one for differences in found.values() for one in differences}
        confirmed |= before & differing
        waiting = [request for request, differences in found.items() if differences - confirmed]
        before = differing
        if not waiting:
            break
    if waiting:
        notes.append("some rows differ at every look, each time otherwise: the account moves too fast to be compared")
    return tuple(_venue_verdict(kind, confirmed, notes) for kind in _AGREEMENTS if kind in asked)


async def _questions(conn: Any, account: str) -> list[Request]:
    """The account, its open orders, and the newest page of orders and trades of every symbol known here."""
    mode = await conn.fetchval("SELECT mode FROM ledger_read.venue_state WHERE account = $1", account)
    asked = [requests.account(), requests.open_orders()]
    for symbol in await reads.symbols(conn, account):
        asked.append(requests.all_orders(symbol))
        if mode == "trades":
            asked.append(requests.my_trades(symbol))
    return asked


async def _look(conn: Any, http: VenueHttp, account: str, request: Request) -> set[_Difference]:
    """One question, and what the mirror holds otherwise right after its answer."""
    body = (await http.send_patiently(request)).body
    try:
        page = rest_pages.read(request, body)
    except UnreadableFrame as error:
        raise VenueBusy(f"{request.question}: {error}") from None
    orders = {(fact.symbol, fact.order_id): fact for fact in page.facts if isinstance(fact, Order)}
    match request.kind:
        case "account":
            pairs = await _balances(conn, account, page)
        case "openOrders":
            pairs = await _open_orders(conn, account, set(orders))
        case "allOrders":
            pairs = await _orders(conn, account, orders)
        case _:
            pairs = await _fills(conn, account, [fact for fact in page.facts if isinstance(fact, Fill)])
    return {_Difference(request.kind, key, found) for key, found in pairs}


PAIRED_WITHIN_MS = 1000
"""A fill of the stream and a trade of REST are one when their times differ by no more (see ledger.land_fill)."""

Pairs = list[tuple[str, str]]
"""What differs: its key, and both sides in words."""


async def _balances(conn: Any, account: str, page: Page) -> Pairs:
    snapshot = next((fact for fact in page.facts if isinstance(fact, Snapshot)), None)
    if snapshot is None:
        return [("account", "the answer holds a balance that cannot be read")]
    drifts = balances.compare(await reads.balances(conn, account), snapshot)
    return [(d.asset, f"{_held(d.ours)} here, {_held(d.venue)} at the venue") for d in drifts]


def _held(balance: tuple[Decimal, Decimal]) -> str:
    return f"{balance[0]:f} free and {balance[1]:f} locked"


async def _open_orders(conn: Any, account: str, there: set[OrderKey]) -> Pairs:
    rows = await conn.fetch(
        "SELECT symbol, order_id FROM ledger_read.orders WHERE account = $1 AND status_rank < 3", account
    )
    here = {(row["symbol"], row["order_id"]) for row in rows}
    only_here = [(_name(key), "open here, not open at the venue") for key in here - there]
    return only_here + [(_name(key), "open at the venue, not open here") for key in there - here]


async def _orders(conn: Any, account: str, told: Mapping[OrderKey, Order]) -> Pairs:
    rows = await conn.fetch(
        """
        SELECT o.* FROM ledger_v1.orders o JOIN unnest($2::text[], $3::bigint[]) AS k(symbol, order_id)
            ON o.symbol = k.symbol AND o.order_id = k.order_id WHERE o.account = $1
        """,
        account,
        [symbol for symbol, _ in told],
        [order_id for _, order_id in told],
    )
    here = {(row["symbol"], row["order_id"]): row for row in rows}
    found: Pairs = []
    for key, order in told.items():
        row = here.get(key)
        if row is None:
            found.append((_name(key), f"{order.status} at the venue, not here"))
        elif row["status"] != order.status or _differ(row["executed_qty"], order.executed_qty):
            theirs = f"{order.status} with {order.executed_qty or 'nothing told'} executed at the venue"
            found.append((_name(key), f"{row['status']} with {row['executed_qty']} executed here, {theirs}"))
    return found


async def _fills(conn: Any, account: str, told: list[Fill]) -> Pairs:
    rows = await conn.fetch(
        """
        SELECT f.symbol, f.order_id, f.trade_id, f.price, f.qty, f.fee, f.executed_ms FROM ledger_v1.fills f
        JOIN (SELECT DISTINCT * FROM unnest($2::text[], $3::bigint[]) AS u(symbol, order_id)) k
            ON f.symbol = k.symbol AND f.order_id = k.order_id WHERE f.account = $1
        """,
        account,
        [fill.symbol for fill in told],
        [fill.order_id for fill in told],
    )
    # An order that met one of one's own is a second fill of the same trade id.
    here = {(row["symbol"], row["order_id"], row["trade_id"]): row for row in rows if row["trade_id"] is not None}
    nameless = [row for row in rows if row["trade_id"] is None]
    found: Pairs = []
    for fill in told:
        key = f"{fill.symbol}/{fill.order_id}/t{fill.trade_id}"
        row = here.get((fill.symbol, fill.order_id, fill.trade_id)) or _take_nameless(nameless, fill)
        theirs = f"{fill.qty} at {fill.price}, fee {fill.fee}, at the venue"
        if row is None:
            found.append((key, f"{theirs}, not here"))
        elif any(_differ(row[name], getattr(fill, name)) for name in ("price", "qty", "fee")):
            found.append((key, f"{row['qty']} at {row['price']}, fee {row['fee']}, here, {theirs}"))
    return found


def _take_nameless(nameless: list[Any], fill: Fill) -> Any | None:
    """The fill that a stream without trade ids told of this trade: the next walk will give it its id."""
    same = [
        row
        for row in nameless
        if (row["symbol"], row["order_id"]) == (fill.symbol, fill.order_id)
        and not any(_differ(row[name], getattr(fill, name)) for name in ("price", "qty", "fee"))
        and abs(row["executed_ms"] - fill.executed_ms) <= PAIRED_WITHIN_MS
    ]
    nearest = min(same, key=lambda row: abs(row["executed_ms"] - fill.executed_ms), default=None)
    if nearest is not None:
        nameless.remove(nearest)
    return nearest


def _differ(ours: Decimal | None, theirs: str | None) -> bool:
    """By value; what the venue does not tell differs from nothing."""
    return theirs is not None and ours != Decimal(theirs)


def _name(key: OrderKey) -> str:
    return f"{key[0]}/{key[1]}"


def _venue_verdict(kind: str, confirmed: set[_Difference], notes: list[str]) -> Verdict:
    name, meaning = _AGREEMENTS[kind]
    rows = sorted((one.key, one.found) for one in confirmed if one.kind == kind)
    first = tuple(Row(key, found) for key, found in rows[:SHOWN_MAX])
    return Verdict(name, meaning, len(rows), first, "; ".join(notes) or None if kind == "account" else None)
