"""From stream events to facts.

Always holds: a fact says what the event said and nothing more. No fee is computed, no asset guessed, no
quantity added up; what the ten-field form leaves out stays None. Quantities are in base asset, quote totals
in quote asset, times in ms UTC.
"""

from __future__ import annotations

from typing import assert_never

from ledger.errors import UnreadableFrame
from ledger.facts.decimals import is_negative, is_zero, non_negative
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Transfer
from ledger.venue.frames import AccountPosition, BalanceUpdate, Event, ExecutionReport, Frame, unread
from ledger.venue.reading import amount, known_amount, known_id, known_ms, needed_amount, signed, subject, told_fee

CONTROLS = frozenset({"listenKeyExpired", "serverShutdown", "eventStreamTerminated"})
"""Kinds that mean: this socket is over. Nothing more comes on it that could be trusted."""
UNREADABLE_REPORT = "unreadable_report"
"""Kind of a discrepancy; ledger.apply resolves it once REST was asked (apply.sql)."""
UNDATED_MS = 60_000
"""How long before it arrived a report may have been made that tells no time."""
DAY_MS = 86_400_000


def facts(frame: Frame) -> list[Fact]:
    """What ``frame`` says; empty for kinds that say nothing of orders, fills or balances.

    Raises UnreadableFrame with the frame's own problem, or naming kind, subject and field where a value is
    wrong.
    """
    if frame.problem is not None:
        raise UnreadableFrame(frame.problem)
    try:
        return _read(frame.event)
    except UnreadableFrame as error:
        raise UnreadableFrame(f"{frame.kind}{_subject(frame.event)}: {error}") from None


def left_open(frame: Frame, problem: str, received_ms: int) -> list[Fact]:
    """What a frame that could not be read leaves open: of a report, its order, until REST was asked for it.

    ``received_ms`` is this machine's clock: it dates a report that tells no time, some way back.
    """
    about = unread(frame.event) if isinstance(frame.event, ExecutionReport) else frame.about
    if about is None:
        return []
    since_ms = received_ms - UNDATED_MS
    if about.at_ms is not None and abs(about.at_ms - received_ms) < DAY_MS:
        since_ms = about.at_ms
    return [
        Doubt(
            UNREADABLE_REPORT,
            about.symbol if about.order_id is None else f"{about.symbol}/{about.order_id}",
            f"a report that can be read, at {since_ms}",
            problem,
            symbol=about.symbol,
            order_id=about.order_id,
            # The report is of that instant, so what is known ends before it.
            uncovered_from_ms=max(0, since_ms - 1),
        )
    ]


def _read(event: Event | None) -> list[Fact]:
    match event:
        case None:
            return []
        case ExecutionReport():
            return _execution_report(event)
        case AccountPosition():
            return _account_position(event)
        case BalanceUpdate():
            return _balance_update(event)
    assert_never(event)


def _subject(event: Event | None) -> str:
    match event:
        case ExecutionReport():
            return subject(event.s, event.i)
        case BalanceUpdate():
            return subject(event.a)
    return ""


def _execution_report(report: ExecutionReport) -> list[Fact]:
    """The state of the order, and the fill when this report is a trade.

    The client id is C where told: on a cancel, c names the cancel request. On an amendment C is the one before and c
    the one from now on. The price of a MARKET order is the 0 the venue gives; it is not turned into None, REST tells
    the same 0.
    """
    order = Order(
        symbol=report.s,
        order_id=report.i,
        status=report.X,
        side=report.S,
        type=report.o,
        time_in_force=report.f,
        client_order_id=(report.c or report.C if report.x == "REPLACED" else report.C or report.c) or None,
        price=amount("p", report.p),
        orig_qty=amount("q", report.q),
        executed_qty=amount("z", report.z),
        executed_quote=known_amount("Z", report.Z),
        created_ms=known_ms(report.O),
        updated_ms=report.T or report.E,
    )
    qty = _traded_qty(report)
    return [order] if qty is None else [order, _fill(report, qty)]


def _traded_qty(report: ExecutionReport) -> Exact | None:
    """The quantity this report executed; None when it is no trade.

    The ten-field form has no x, there l > 0 is a trade. x = TRADE with l = 0 executed nothing.
    """
    if report.x is None:
        qty = amount("l", report.l)
    elif report.x == "TRADE":
        qty = needed_amount("l", report.l)
    else:
        return None
    return None if qty is None or is_zero(qty) else qty


def _fill(report: ExecutionReport, qty: Exact) -> Fill:
    executed_ms = report.T or report.E
    if executed_ms is None:
        raise UnreadableFrame("field T: expected the time of the trade, got none")
    return Fill(
        symbol=report.s,
        order_id=report.i,
        side=report.S,
        price=needed_amount("L", report.L),
        qty=qty,
        executed_ms=executed_ms,
        quote_qty=amount("Y", report.Y),
        fee=told_fee("n", report.n, report.N),
        fee_asset=report.N,
        trade_id=known_id(report.t),
        is_maker=report.m,
        status=report.X,
    )


def _account_position(position: AccountPosition) -> list[Fact]:
    as_of_ms = position.u or position.E
    try:
        return [
            Balance(asset=one.a, free=non_negative(one.f), locked=non_negative(one.l), as_of_ms=as_of_ms)
            for one in position.B
        ]
    except ValueError:
        for index, one in enumerate(position.B):
            needed_amount(f"B[{index}].f", one.f)
            needed_amount(f"B[{index}].l", one.l)
        raise


def _balance_update(update: BalanceUpdate) -> list[Fact]:
    """One transfer. The venue gives no id: equal movements of one asset and ms cannot be told apart."""
    at_ms = update.T or update.E
    if at_ms is None:
        raise UnreadableFrame("field T: expected the time of the movement, got none")
    moved = signed("d", update.d)
    if moved is None or is_zero(moved):
        return []
    kind = "withdrawal" if is_negative(moved) else "deposit"
    return [Transfer(asset=update.a, amount=moved, kind=kind, at_ms=at_ms)]
