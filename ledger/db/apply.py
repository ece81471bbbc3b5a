"""Hand frames and their facts to ``ledger.apply``, the one function that writes facts (apply.sql).

A ``Batch`` is built once, with every ordinal counted, and may be sent any number of times: the database recognises it
by (account, session, frame number). One call is one round trip and one transaction of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, assert_never
from uuid import UUID

import msgspec

from ledger.db.rows import BalanceRow, FillRow, Laid, OrderRow, array, numbers, words
from ledger.facts.identity import SessionMemory, transfer_key
from ledger.facts.types import Doubt, Resolution, Settlement, Snapshot, Transfer

_ARGUMENTS = 22
_PLACES = ", ".join(f"${n}" for n in range(1, _ARGUMENTS + 1))


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal row to be, with what it means.

    ``received_ms`` is this machine's clock; ``venue_ms`` the event's own time, or when a REST question was asked.
    ``problem`` says why it could not be understood (then ``laid`` holds at most what is to be followed up), or what
    describing fields were left out of it.
    ``laid`` are its facts as rows (``rows.lay``).
    """

    frame_no: int
    received_ms: int
    kind: str
    venue_ms: int | None
    raw: bytes
    problem: str | None
    laid: tuple[Laid, ...]


Row = tuple[Any, ...]


@dataclass(frozen=True)
class Batch:
    """One call of ``ledger.apply``, counted and ready; send it as often as needed.

    ``frames`` are numbered one after the other. ``orders``, ``fills`` and ``balances`` are rows of the types
    ledger.told_* in apply.sql, as text, and begin with the place (1 …) of their frame in ``frames``.
    """

    header: Row
    frames: tuple[Entry, ...]
    orders: tuple[str, ...]
    fills: tuple[str, ...]
    balances: tuple[str, ...]
    rare: dict[str, Any]

    def arguments(self, fence: int | None) -> Row:
        """The arguments of ``ledger.apply`` in order."""
        return (*self.header, fence, *self.columns)

    @cached_property
    def columns(self) -> Row:
        """Those that tell of the frames and their facts. Laid out once; most of the work that is left to send it."""
        frames = self.frames
        problems = [frame.problem for frame in frames]
        return (
            frames[0].frame_no if frames else None,
            numbers([frame.received_ms for frame in frames]),
            words([frame.kind for frame in frames]),
            numbers([frame.venue_ms for frame in frames]),
            problems if any(problems) else None,
            b"".join([frame.raw for frame in frames]),
            numbers(accumulate([len(frame.raw) for frame in frames])),
            array(self.orders),
            array(self.fills),
            array(self.balances),
            json.dumps(self.rare) if self.rare else None,
        )

    @property
    def rows(self) -> int:
        """How many rows it may write."""
        return len(self.frames) + len(self.orders) + len(self.fills) + len(self.balances)

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing to refuse: no frames, or one without facts."""
        return len(self.frames) <= 1 and not (
            self.orders or self.fills or self.balances or self.rare.keys() - {"quarantined"}
        )

    def through(self, through_ms: int) -> Batch:
        """The same, saying how far the stream is covered when it is written (see ``build``)."""
        batch = replace(self, header=(*self.header[:-1], through_ms))
        batch.__dict__.update(columns=self.columns)  # these say nothing of it
        return batch

    def split(self) -> list[Batch]:
        """The same frames, one a batch; ordinals stay as counted."""
        return [self._only(place) for place in range(1, len(self.frames) + 1)]

    def without_facts(self, problem: str) -> Batch:
        """The frames alone, marked with ``problem``: kept, not understood."""
        frames = tuple(msgspec.structs.replace(frame, problem=problem, laid=()) for frame in self.frames)
        return Batch(self.header, frames, (), (), (), {})

    def _only(self, place: int) -> Batch:
        def here(rows: tuple[str, ...]) -> tuple[str, ...]:
            start = f"({place},"
            return tuple(f"(1,{row.removeprefix(start)}" for row in rows if row.startswith(start))

        rare = {
            name: [{**fact, "frame": 1} for fact in facts if fact["frame"] == place]
            for name, facts in self.rare.items()
        }
        rare = {name: facts for name, facts in rare.items() if facts}
        frame = (self.frames[place - 1],)
        # Time counts as covered (the header's last field) when the last of them is written.
        header = self.header if place == len(self.frames) else (*self.header[:-1], None)
        return Batch(header, frame, here(self.orders), here(self.fills), here(self.balances), rare)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a call did. ``first_seq`` and ``last_seq`` are None when the answer was not worth keeping."""

    first_seq: int | None
    last_seq: int | None
    fills_new: int
    orders_changed: int
    others_changed: int
    repeated: bool
    digest: bytes | None = None
    """Digest of the journal up to ``last_seq``; None while it is empty."""
    covered_ms: int | None = None
    """Up to when the stream is covered since this call (venue clock); None: it said nothing of that."""


@dataclass(frozen=True, slots=True)
class WalkStep:
    """How far the walk of a gap has come with an answer; kept in the same transaction as its rows.

    ``start_ms`` and ``end_ms`` are where the next question of this ``kind`` starts and ends, venue clock; ``done``:
    there is none. ``covers``: the market is walked now over every gap up to this number, back to ``from_ms`` (None:
    the beginning); the venue refused to go back further than ``served_from_ms`` (None: it did not). ``gap_id`` None:
    nothing is to be remembered but that.
    """

    gap_id: int | None
    symbol: str
    kind: str
    start_ms: int
    end_ms: int | None
    asked_ms: int
    done: bool
    rows: int
    covers: int | None = None
    from_ms: int | None = None
    served_from_ms: int | None = None


def build(
    account: str,
    session_id: UUID,
    source: Literal["stream", "rest", "operator"],
    entries: Iterable[Entry],
    memory: SessionMemory,
    *,
    gap_id: int | None = None,
    asked_seq: int | None = None,
    question: str | None = None,
    through_ms: int | None = None,
    clockless: bool = False,
    lag_ms: int = 0,
    walk: WalkStep | None = None,
) -> Batch:
    """Lay the entries of one session out as rows. Counts ordinals in ``memory``, so build each batch once.

    ``question`` and ``asked_seq`` belong to the single answer of a REST batch; ``through_ms`` says the stream is live
    and everything before that instant of the venue's clock is in this batch or was written before
    (0: live, but behind, so coverage stays where it is). ``clockless``: positions without a clock of the venue are
    left out, since an older socket tells them. ``lag_ms``: how far REST may trail the stream.
    """
    frames = tuple(entries)
    assert not frames or frames[-1].frame_no - frames[0].frame_no == len(frames) - 1, "frames of a batch have no holes"
    orders: list[str] = []
    fills: list[str] = []
    balances: list[str] = []
    rare: dict[str, Any] = {}
    for frame, entry in enumerate(frames, start=1):
        for fact in entry.laid:
            match fact:
                case OrderRow():
                    orders.append(fact.text(frame))
                case FillRow():
                    ordinal = None if fact.key is None else memory.ordinal(fact.key, once=fact.once)
                    fills.append(fact.text(frame, ordinal))
                case BalanceRow():
                    # Without a clock of the venue the time of arrival orders the states of the one session that may
                    # write them.
                    if clockless and fact.as_of_ms is None:
                        continue
                    as_of_ms = entry.received_ms if fact.as_of_ms is None else fact.as_of_ms
                    balances.append(fact.text(frame, as_of_ms, memory.version(fact.asset, fact.value, as_of_ms)))
                case Snapshot():
                    held = [{"asset": b.asset, "free": b.free, "locked": b.locked} for b in fact.balances]
                    rare.setdefault("snapshots", []).append(
                        {"frame": frame, "as_of_ms": fact.as_of_ms, "balances": held}
                    )
                case Transfer():
                    rare.setdefault("transfers", []).append(
                        {
                            "frame": frame,
                            "asset": fact.asset,
                            "at_ms": fact.at_ms,
                            "kind": fact.kind,
                            "amount": fact.amount,
                            "ordinal": memory.ordinal(transfer_key(fact), once=False),
                        }
                    )
                case Settlement():
                    rare.setdefault("settlements", []).append(
                        {
                            "frame": frame,
                            "symbol": fact.symbol,
                            "order_id": fact.order_id,
                            "executed_qty": fact.executed_qty,
                        }
                    )
                case Doubt():
                    rare.setdefault("doubts", []).append({"frame": frame, **msgspec.structs.asdict(fact)})
                case Resolution():
                    rare.setdefault("decisions", []).append(
                        {"frame": frame, "discrepancy_id": fact.discrepancy_id, "resolution": fact.resolution}
                    )
                case _:
                    assert_never(fact)
    step = None if walk is None else json.dumps(asdict(walk))
    header = (account, session_id, source, gap_id, asked_seq, question, clockless, lag_ms, step, through_ms)
    return Batch(header, frames, tuple(orders), tuple(fills), tuple(balances), rare)


async def apply(conn: Any, batch: Batch, *, fence: int | None = None) -> Applied:
    """Write the batch in one transaction. ``conn`` is an asyncpg connection outside a transaction.

    ``fence``: the leader's number; the database refuses one that was replaced (``wire.postgres`` raises Fenced).
    Raises what asyncpg raises; the caller sends the same batch again after a lost connection, 40001 or 40P01.
    """
    row = await conn.fetchrow(call(), *batch.arguments(fence))
    return Applied(
        row["first_seq"],
        row["last_seq"],
        row["fills_new"],
        row["orders_changed"],
        row["others_changed"],
        row["repeated"],
        row["digest"],
        batch.header[-1] or None,
    )


def call(schema: str = "ledger") -> str:
    """The statement that hands ``Batch.arguments`` to the apply function of this schema."""
    return f"SELECT * FROM {schema}.apply({_PLACES})"
