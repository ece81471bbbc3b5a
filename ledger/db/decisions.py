"""A person's decision about a discrepancy, as the journal row that keeps it. Pure: bytes and facts, no I/O.

Always holds: the bytes tell everything the decision meant, so the facts can be read back from them alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

from ledger.facts.decimals import exact, is_negative, is_zero
from ledger.facts.types import Exact, Fact, Resolution, Transfer

KIND = "resolve"
"""Kind of the journal row."""
UNEXPLAINED = "unexplained_balance"
"""Kind of a discrepancy that is about money: deciding it books a transfer."""

Meaning = Literal["deposit", "withdrawal", "airdrop", "fee", "other", "accepted"]
"""What a person may say it was; accepted: what is not known will stay so, and coverage need not wait for it."""
MEANINGS: tuple[str, ...] = get_args(Meaning)

_CREDITS = frozenset({"deposit", "airdrop"})
_DEBITS = frozenset({"withdrawal", "fee"})


class MeaningDoesNotFit(ValueError):
    """The meaning a person chose contradicts the discrepancy; the text is one sentence that says which would not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided. ``amount`` is signed as the balance moved, ``at_ms`` the venue's clock.

    ``amount`` and ``at_ms`` are None for a discrepancy that is not about money. ``user``: who decided.
    """

    discrepancy_id: int
    kind: str
    subject: str
    meaning: Meaning
    amount: Exact | None
    at_ms: int | None
    note: str
    user: str

    @property
    def is_booked(self) -> bool:
        """Whether it makes a transfer."""
        return self.kind == UNEXPLAINED and self.amount is not None and self.at_ms is not None


def encode(decision: Decision) -> bytes:
    """The journal row's bytes."""
    return json.dumps(asdict(decision), ensure_ascii=False, separators=(",", ":")).encode()


def decode(raw: bytes) -> Decision:
    """The decision in a journal row. Raises ValueError when it is not one."""
    try:
        told = json.loads(raw)
        amount = told["amount"]
        return Decision(
            int(told["discrepancy_id"]),
            str(told["kind"]),
            str(told["subject"]),
            _meaning(told["meaning"]),
            None if amount is None else exact(amount),
            None if told["at_ms"] is None else int(told["at_ms"]),
            str(told["note"]),
            str(told["user"]),
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"expected a decision, got {raw[:80]!r}") from error


def problem(decision: Decision) -> str | None:
    """Why the decision contradicts its discrepancy, in one sentence; None: it does not."""
    if decision.kind != UNEXPLAINED:
        if decision.meaning in ("other", "accepted"):
            return None
        return (
            f"discrepancy {decision.discrepancy_id} is a {decision.kind}, no movement of a balance: only "
            "--as other or --as accepted settles it"
        )
    if decision.meaning == "accepted":
        return (
            f"discrepancy {decision.discrepancy_id} is about money, which must be booked: choose --as deposit, "
            "withdrawal, airdrop, fee or other"
        )
    if decision.amount is None or decision.at_ms is None or is_zero(decision.amount):
        return f"discrepancy {decision.discrepancy_id} tells no amount: nothing can be booked for it"
    negative = is_negative(decision.amount)
    if (decision.meaning in _CREDITS and negative) or (decision.meaning in _DEBITS and not negative):
        moved, fitting = ("fell", _DEBITS) if negative else ("rose", _CREDITS)
        return (
            f"the balance of {decision.subject} {moved} by {decision.amount.lstrip('-')}, which is no "
            f"{decision.meaning}; choose --as {' or '.join(sorted({*fitting, 'other'}))}"
        )
    return None


def facts(decision: Decision) -> tuple[Fact, ...]:
    """What the decision means: the discrepancy is settled, and an unexplained movement becomes a transfer."""
    settled = Resolution(decision.discrepancy_id, f"{decision.meaning}, says {decision.user}: {decision.note}")
    if not decision.is_booked:
        return (settled,)
    assert decision.amount is not None
    assert decision.at_ms is not None
    return Transfer(decision.subject, decision.amount, decision.meaning, decision.at_ms), settled


def _meaning(word: object) -> Meaning:
    if word not in MEANINGS:
        raise ValueError(f"expected one of {', '.join(MEANINGS)}, got {word!r}")
    return cast(Meaning, word)
