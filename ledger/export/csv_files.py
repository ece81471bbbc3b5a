"""What each CSV file holds: one sentence of SQL per format, with the account, from_ms and to_ms as $1, $2 and $3.

Always holds: columns are named as in ``ledger_v1``; a range is half-open, [from_ms, to_ms); the order of rows is total
and the same under every collation, so the same rows give the same bytes. Amounts stand as stored, digit for digit,
never with an exponent; a null is an empty cell. ``seq`` is left out: it moves when evidence is added to a row that
says the same as before. Pure: only text.
"""

from __future__ import annotations

from dataclasses import dataclass

_FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"
"""A spreadsheet runs a cell that begins with one of these; the last four are the full-width forms."""


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A format: its name on the command line, and the rows it holds."""

    name: str
    query: str


def _word(column: str) -> str:
    """Text of the venue or of a client, with a leading apostrophe where a spreadsheet would take it for a formula."""
    starts = ", ".join(str(ord(start)) for start in _FORMULA_STARTS)
    return f"CASE WHEN ascii({column}) IN ({starts}) THEN '''' || {column} ELSE {column} END AS {_bare(column)}"


def _utc(column: str) -> str:
    """A timestamptz as ISO 8601 in UTC, to the ms, whatever time zone the session has."""
    written = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
    return f"{written} AS {_bare(column)}"


def _flag(column: str) -> str:
    """true or false, where COPY would write t or f."""
    return f"{column}::text AS {_bare(column)}"


def _bare(column: str) -> str:
    return column.split(".")[1]


FILLS = CsvFile(
    "fills-csv",
    f"""
    SELECT {_word("f.account")}, {_word("f.symbol")}, f.order_id, f.trade_id, {_word("f.side")}, f.price, f.qty,
           f.quote_qty, {_flag("f.quote_derived")}, f.fee, {_word("f.fee_asset")}, {_flag("f.is_maker")},
           {_utc("f.executed_at")}, f.executed_ms, f.source, f.fill_id, f.first_seq
    FROM ledger_v1.fills f
    WHERE f.account = $1 AND f.executed_ms >= $2 AND f.executed_ms < $3
    ORDER BY f.executed_ms, f.symbol COLLATE "C", f.order_id, f.first_seq, split_part(f.fill_id, '-', 2)::integer
    """,
)
"""Every execution of the range, by the time of execution."""

# The contract has no created_ms; created_at holds whole ms, so this is the number it was made from. An order that is
# known from a trade only has no time of its own yet: its first fill tells when it was there at the latest.
ORDERS = CsvFile(
    "orders-csv",
    f"""
    SELECT {_word("o.account")}, {_word("o.symbol")}, o.order_id, {_word("o.client_order_id")}, {_word("o.side")},
           {_word("o.type")}, {_word("o.time_in_force")}, o.price, o.orig_qty, o.executed_qty, o.executed_quote,
           {_word("o.status")}, {_utc("o.created_at")}, t.created_ms, {_utc("o.updated_at")}, o.updated_ms
    FROM ledger_v1.orders o
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM o.created_at) * 1000)::bigint AS created_ms) t
    CROSS JOIN LATERAL (
        SELECT coalesce(t.created_ms, o.updated_ms, (
            SELECT min(f.executed_ms) FROM ledger_v1.fills f
            WHERE f.account = o.account AND f.symbol = o.symbol AND f.order_id = o.order_id)) AS placed_ms
    ) p
    WHERE o.account = $1 AND p.placed_ms >= $2 AND p.placed_ms < $3
    ORDER BY p.placed_ms, o.symbol COLLATE "C", o.order_id
    """,
)
"""Every order placed in the range, in its newest state. Placed: created, else last updated, else first filled."""

# The history holds several states of one ms; which is newest only the table tells (k), by the rule of db/apply.sql.
BALANCES = CsvFile(
    "balances-csv",
    f"""
    SELECT {_word("h.account")}, {_word("h.asset")}, h.free, h.locked, h.free + h.locked AS total,
           {_utc("t.as_of")}, h.as_of_ms, h.source
    FROM ledger.balances b
    CROSS JOIN LATERAL (
        SELECT x.* FROM ledger.balance_history x
        WHERE x.account = b.account AND x.asset = b.asset AND x.as_of_ms < $3
        ORDER BY x.as_of_ms DESC, x.k DESC, x.free DESC, x.locked DESC LIMIT 1
    ) h
    CROSS JOIN LATERAL (SELECT to_timestamp(h.as_of_ms / 1000.0) AS as_of) t
    WHERE b.account = $1 AND $2::bigint <= $3
    ORDER BY h.asset COLLATE "C"
    """,
)
"""The balance of every asset at the end of the range: the newest state told before it. Its start changes nothing."""

FORMATS = {file.name: file for file in (FILLS, ORDERS, BALANCES)}
"""Every format by its name."""
