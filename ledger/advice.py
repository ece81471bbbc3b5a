"""What each kind of discrepancy means, and the next thing to do about it."""

from __future__ import annotations

import shlex
from typing import Any

from ledger.db.decisions import UNEXPLAINED

KINDS: dict[str, tuple[str, str]] = {
    UNEXPLAINED: (
        "The balance moved by this much and no fill, fee or transfer explains it.",
        "say what it was: {resolve} --as deposit|withdrawal|airdrop|fee|other --note '…'",
    ),
    "unjudged_balance": (
        "The balance moved, and executions that are missing here may be why: nobody can tell how much of it.",
        "nothing to do: see ledger_v1.missing_executions",
    ),
    "unexplained_lock": (
        "More, or less, is locked of the asset than its open orders reserve.",
        "resolves by itself once it is released; else look for an order or lock made elsewhere at the venue",
    ),
    "order_shrank": (
        "The venue said of an order that less was executed than it had said before; the larger quantity stays.",
        "compare the order at the venue, then: {accept}",
    ),
    "order_conflict": (
        "The venue said of an order something else than before in fields that never change; the first stays.",
        "compare the order at the venue, then: {accept}",
    ),
    "terminal_conflict": (
        "The venue reported two different final statuses of one order; the order is asked for and its answer decides.",
        "resolves by itself with that answer; else compare at the venue, then: {accept}",
    ),
    "fill_conflict": (
        "One fill was reported twice with different numbers; the first stays.",
        "compare the trade at the venue, then: {accept}",
    ),
    "double_frame": (
        "A fill came twice on one connection, and the order's executed quantity needs it once.",
        "nothing to do: the second one is voided",
    ),
    "ids_began_anew": (
        "The venue uses ids of this market again that other orders or trades had; the new ones are not merged in.",
        "ask the venue whether the market was relisted, then: {accept}",
    ),
    "unreadable_report": (
        "A report of an order came that could not be read; coverage waits until REST was asked for the order.",
        "resolves by itself; the report is in ledger_v1.journal at the row named below",
    ),
    "rest_row": (
        "A row of a REST answer could not be read, so coverage ends at it.",
        "resolves by itself when it can be read (a newer version of this program may); else: {accept}",
    ),
    "symbol_refused": (
        "The venue refuses to tell of this market, so its coverage ends there.",
        "it is asked again by itself; correct SDX_SYMBOLS if the name is wrong; if it is gone for good: {accept}",
    ),
    "order_refused": (
        "The venue refuses to tell of this order, so coverage of its market ends there.",
        "it is asked again by itself; if it is gone for good: {accept}",
    ),
    "order_unknown": (
        "The venue reported this order before and does not know it any more, so coverage of its market ends there.",
        "it is asked again by itself; if it is gone for good: {accept}",
    ),
    "question_refused": (
        "The venue refuses a question about the whole account, so coverage of every market ends there.",
        "it is asked again by itself; run: sdx-ledger doctor; if it will never be answered: {accept}",
    ),
    "history_unreachable": (
        "A page of this market's history could not be read past, so what is older or newer may be missing.",
        "a later walk tries again; by hand: sdx-ledger reconcile --symbol {symbol}; if it is gone for good: {accept}",
    ),
    "rest_window": (
        "The venue answered with rows outside the time that was asked for; they are kept.",
        "nothing to do unless fills are missing: sdx-ledger verify --against-venue",
    ),
    "quarantined": (
        "The database refused what a frame or answer says: it is kept, and its facts are in no row.",
        "see: sdx-ledger quarantine list; after an upgrade: sdx-ledger quarantine retry; to leave it out: {accept}",
    ),
}


def about(row: dict[str, Any]) -> tuple[str, str]:
    """What an open discrepancy means, and what to do next; a row of ``ledger_v1.discrepancies``."""
    meaning, next_step = KINDS.get(row["kind"], ("Something does not fit.", "look at its evidence, then: {accept}"))
    # What the venue calls a market must be one word of a command that is pasted.
    account, symbol = shlex.quote(row["account"]), shlex.quote(row["symbol"] or "SYMBOL")
    resolve = f"sdx-ledger discrepancy resolve {row['discrepancy_id']} --account {account}"
    accept = f"{resolve} --as accepted --note '…'"
    return meaning, next_step.format(resolve=resolve, accept=accept, symbol=symbol)
