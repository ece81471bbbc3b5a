"""What an export of a range lacks, as far as it is known: asked in the same snapshot as its rows, said in sentences.

An export is whole when everything of its range is covered and nothing of it was set aside. What makes it less is here;
an empty list of ``sentences`` is the claim that nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger.export.csv_files import MISSING_IN_RANGE, CsvFile
from ledger.output import moment

_FIRST_BALANCE = """
    SELECT min(h.as_of_ms) FROM ledger_read.balances b CROSS JOIN LATERAL (
        SELECT x.as_of_ms FROM ledger_read.balance_history x WHERE x.account = b.account AND x.asset = b.asset
        ORDER BY x.as_of_ms LIMIT 1) h
    WHERE b.account = $1
"""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Counts and instants (ms UTC) about one range of one account; all is well at the defaults and a range covered."""

    missing_orders: int
    """Orders that executed more than the fills tell; 0 for a format that would not hold those."""
    provisional_fills: int
    """Fills in the range that may be a frame sent twice."""
    open_gaps: int
    coverage_holes: int
    """Open discrepancies that say that something of the range was refused, set aside or could not be read."""
    quarantined: int
    """Frames and answers of the range or later whose facts are not in the rows."""
    complete_from_ms: int | None
    """From when on all is known; None: from the beginning."""
    complete_through_ms: int | None
    """Up to when all is known; None: nothing yet."""
    balances_from_ms: int | None
    """Balances alone: when the first one known here was reported; None: none was, or it is another format."""
    to_is_future: bool
    file: CsvFile
    from_ms: int
    to_ms: int

    @property
    def sentences(self) -> list[str]:
        """What a reader of the file must know; none where it is whole."""
        said = []
        if self.missing_orders:
            orders = _many(self.missing_orders, "order")
            said.append(f"{orders} executed more than these fills tell; see: sdx-ledger export missing-csv")
        if self.provisional_fills:
            said.append(f"{_many(self.provisional_fills, 'fill')} provisional: the same frame may have come twice")
        if self.open_gaps:
            said.append(f"{_many(self.open_gaps, 'gap')} in this range not read yet; see: sdx-ledger status")
        if self.coverage_holes:
            said.append(
                f"{_many(self.coverage_holes, 'hole')} in what is known of this range: refused, or not readable; "
                "see: sdx-ledger discrepancy list"
            )
        if self.quarantined:
            said.append(
                f"{_many(self.quarantined, 'frame or answer', 'frames or answers')} kept and not in the rows; "
                "see: sdx-ledger quarantine list"
            )
        if self.to_is_future:
            said.append(f"--to is in the future ({moment(self.to_ms)}): what happens until then is not in it")
        if self.file.is_state and self.balances_from_ms is None:
            said.append("no balance is known yet")
        elif self.balances_from_ms is not None and self.balances_from_ms >= self.to_ms:
            said.append(f"the first balance known is of {moment(self.balances_from_ms)}")
        if self.complete_from_ms is not None and self.complete_from_ms > self.from_ms:
            said.append(f"known from {moment(self.complete_from_ms)} on only")
        if self.complete_through_ms is None:
            said.append("nothing is complete yet")
        elif self.complete_through_ms < self.to_ms:
            said.append(f"complete through {moment(self.complete_through_ms)} only")
        return said

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        names = ("missing_orders", "provisional_fills", "open_gaps", "coverage_holes", "quarantined")
        times = ("complete_from_ms", "complete_through_ms", "balances_from_ms", "to_is_future")
        return {name: getattr(self, name) for name in (*names, *times)} | {"sentences": self.sentences}


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or f'{one}s'}"


async def shortfall(conn: Any, file: CsvFile, account: str, from_ms: int, to_ms: int, *, now_ms: int) -> Shortfall:
    """Ask; ``conn`` is an asyncpg connection, ``now_ms`` this machine's clock."""
    bounds = (account, from_ms, to_ms)
    missing = provisional = 0
    if file.lacks_fills:
        missing = await conn.fetchval(f"SELECT count(*) {MISSING_IN_RANGE}", *bounds)
        provisional = await conn.fetchval(
            "SELECT count(*) FROM ledger_read.fills WHERE account = $1 AND state = 'provisional'"
            " AND executed_ms >= $2 AND executed_ms < $3",
            *bounds,
        )
    first_balance_ms = await conn.fetchval(_FIRST_BALANCE, account) if file.is_state else None
    row = await conn.fetchrow(
        """
        SELECT (SELECT count(*) FROM ledger_v1.gaps g WHERE g.account = $1 AND g.closed_at IS NULL
                AND coalesce(g.from_ms < $3, true) AND coalesce(g.until_ms >= $2, true)) AS open_gaps,
               (SELECT count(*) FROM ledger_v1.discrepancies d WHERE d.account = $1 AND d.resolved_at IS NULL
                AND d.kind <> 'quarantined' AND d.uncovered_from_ms < $3) AS coverage_holes,
               (SELECT count(*) FROM ledger_v1.quarantine q WHERE q.account = $1
                AND extract(epoch FROM q.received_at) * 1000 >= $2) AS quarantined,
               c.complete_from_ms, c.complete_through_ms
        FROM (SELECT) one LEFT JOIN ledger_v1.coverage c ON c.account = $1 AND c.symbol = '*'
        """,
        *bounds,
    )
    return Shortfall(
        missing_orders=missing,
        provisional_fills=provisional,
        **dict(row),
        balances_from_ms=first_balance_ms,
        to_is_future=to_ms > now_ms,
        file=file,
        from_ms=from_ms,
        to_ms=to_ms,
    )
