r"""What each CSV file holds: one sentence of SQL per format, with the account, from_ms and to_ms as $1, $2 and $3.

Always holds: columns are named as in ``ledger_v1``, what is added stands at the end; a range is half-open, [from_ms,
to_ms); the order of rows is total and the same under every collation, so the same rows give the same bytes. Amounts
stand as stored, digit for digit, never with an exponent; a null is an empty cell. ``seq`` is left out: it moves when
evidence is added to a row that says the same as before. Pure: only text.

Text is quoted, what does not show itself in it is an escape (``escapes``), and an apostrophe keeps a spreadsheet from
running it, read with commas or with semicolons. A column ``…_utc`` is the time as spreadsheets take it, to the second.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.escapes import UNSEEN

_FORMULA = r"""(^|;)(["' ]*[=+@＝＋－＠-])""".replace("'", "''")
"""Where a cell begins as a formula does, be it after blanks and quotes; who reads with semicolons has a cell after
each. A tab is an escape before that. The wide signs count: spreadsheets take them for the narrow ones."""
_HIDDEN = "".join(f"\\U{max(first, 1):08X}-\\U{last:08X}" for first, last in UNSEEN if not 0xD800 <= first <= 0xDFFF)
"""The characters of ``escapes``, as PostgreSQL writes a class; it keeps neither NUL nor halves of pairs."""


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A format: its name on the command line, the rows it holds, its columns of text, and what it is for.

    ``lacks_fills``: whether an execution that no fill tells would have been a row; ``is_state``: it is of one instant,
    the end of the range.
    """

    name: str
    query: str
    words: tuple[str, ...]
    meaning: str
    lacks_fills: bool = False
    is_state: bool = False


def _word(column: str) -> str:
    """Text of the venue, of a client or of a person: shown whole, and run by no spreadsheet."""
    shown = f"""
        SELECT string_agg(CASE WHEN u.c !~ '[{_HIDDEN}]' THEN u.c
                               WHEN ascii(u.c) <= 255 THEN '\\x' || lpad(to_hex(ascii(u.c)), 2, '0')
                               WHEN ascii(u.c) <= 65535 THEN '\\u' || lpad(to_hex(ascii(u.c)), 4, '0')
                               ELSE '\\U' || lpad(to_hex(ascii(u.c)), 8, '0') END, '' ORDER BY u.n)
        FROM regexp_split_to_table({column}, '') WITH ORDINALITY u(c, n)"""
    return (
        f"CASE WHEN {column} ~ '[{_HIDDEN}]|{_FORMULA}'"
        f" THEN regexp_replace(({shown}), '{_FORMULA}', '\\1''\\2', 'g') ELSE {column} END AS {_bare(column)}"
    )


def _utc(column: str) -> str:
    """A timestamptz as ISO 8601 in UTC, to the ms, whatever time zone the session has."""
    written = f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
    return f"{written} AS {_bare(column)}"


def _sheet_time(column: str) -> str:
    """The same as spreadsheets take for a time, to the second."""
    name = f"{_bare(column).removesuffix('_at')}_utc"
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS {name}"


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
           {_utc("f.executed_at")}, f.executed_ms, f.source, f.fill_id, f.first_seq,
           {_sheet_time("f.executed_at")}, {_word("m.base")}, {_word("m.quote")}
    FROM ledger_v1.fills f LEFT JOIN ledger_read.markets m ON m.account = f.account AND m.symbol = f.symbol
    WHERE f.account = $1 AND f.executed_ms >= $2 AND f.executed_ms < $3
    ORDER BY f.executed_ms, f.symbol COLLATE "C", f.order_id, f.first_seq, split_part(f.fill_id, '-', 2)::integer
    """,
    ("account", "symbol", "side", "fee_asset", "source", "fill_id", "base", "quote"),
    "every execution of the range",
    lacks_fills=True,
)
"""Every execution of the range, by the time of execution."""

# The contract has no created_ms; created_at holds whole ms, so this is the number it was made from. An order that is
# known from a trade only has no time of its own yet: its first fill tells when it was there at the latest.
ORDERS = CsvFile(
    "orders-csv",
    f"""
    SELECT {_word("o.account")}, {_word("o.symbol")}, o.order_id, {_word("o.client_order_id")}, {_word("o.side")},
           {_word("o.type")}, {_word("o.time_in_force")}, o.price, o.orig_qty, o.executed_qty, o.executed_quote,
           {_word("o.status")}, {_utc("o.created_at")}, t.created_ms, {_utc("o.updated_at")}, o.updated_ms,
           {_sheet_time("o.created_at")}, {_sheet_time("o.updated_at")}
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
    ("account", "symbol", "client_order_id", "side", "type", "time_in_force", "status"),
    "every order placed in the range, in its newest state",
)
"""Every order placed in the range, in its newest state. Placed: created, else last updated, else first filled."""

# The history holds several states of one ms; which is newest only the table tells (k), by the rule of db/apply.sql.
BALANCES = CsvFile(
    "balances-csv",
    f"""
    SELECT {_word("h.account")}, {_word("h.asset")}, h.free, h.locked, h.free + h.locked AS total,
           {_utc("t.as_of")}, h.as_of_ms, h.source, {_sheet_time("t.as_of")}, {_utc("e.at")}, $3::bigint AS at_ms
    FROM ledger_read.balances b
    CROSS JOIN LATERAL (
        SELECT x.* FROM ledger_read.balance_history x
        WHERE x.account = b.account AND x.asset = b.asset AND x.as_of_ms < $3
        ORDER BY x.as_of_ms DESC, x.k DESC, x.free DESC, x.locked DESC LIMIT 1
    ) h
    CROSS JOIN LATERAL (SELECT to_timestamp(h.as_of_ms / 1000.0) AS as_of) t
    CROSS JOIN LATERAL (SELECT to_timestamp(least($3::bigint, 253402300799999) / 1000.0) AS at) e
    WHERE b.account = $1 AND $2::bigint <= $3
    ORDER BY h.asset COLLATE "C"
    """,
    ("account", "asset", "source"),
    "the balance of every asset at --to",
    is_state=True,
)
"""The balance of every asset at the end of the range: the newest state told before it. Its start changes nothing."""

# When something is missing nobody knows but that it was while the order lived; one without any time may be anywhere.
MISSING_IN_RANGE = """
    FROM ledger_v1.missing_executions x
    JOIN ledger_v1.orders o ON o.account = x.account AND o.symbol = x.symbol AND o.order_id = x.order_id
    LEFT JOIN ledger_read.markets m ON m.account = x.account AND m.symbol = x.symbol
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM o.created_at) * 1000)::bigint AS created_ms) t
    WHERE x.account = $1 AND coalesce(t.created_ms < $3, true) AND (coalesce(o.updated_ms >= $2, true) OR o.is_open)
"""
MISSING = CsvFile(
    "missing-csv",
    f"""
    SELECT {_word("x.account")}, {_word("x.symbol")}, x.order_id, x.missing_qty, x.missing_quote, x.average_price,
           {_word("o.side")}, {_utc("o.created_at")}, t.created_ms, {_utc("o.updated_at")}, o.updated_ms,
           {_sheet_time("o.created_at")}, {_sheet_time("o.updated_at")},
           {_word("m.base")}, {_word("m.quote")}
    {MISSING_IN_RANGE}
    ORDER BY coalesce(t.created_ms, o.updated_ms), x.symbol COLLATE "C", x.order_id
    """,
    ("account", "symbol", "side", "base", "quote"),
    "what the venue executed of orders of the range and no fill tells",
)
"""What fills-csv lacks: orders that lived in the range and executed more than their fills tell."""

TRANSFERS = CsvFile(
    "transfers-csv",
    f"""
    SELECT {_word("t.account")}, {_word("t.asset")}, t.amount, t.kind, {_utc("t.at")}, t.at_ms, t.source,
           {_sheet_time("t.at")}
    FROM ledger_v1.transfers t
    WHERE t.account = $1 AND t.at_ms >= $2 AND t.at_ms < $3
    ORDER BY t.at_ms, t.asset COLLATE "C", t.kind COLLATE "C", t.amount, t.seq
    """,
    ("account", "asset", "kind", "source"),
    "deposits, withdrawals and other movements of the range",
)
"""Every movement of the range that is no trade."""

JOURNAL = CsvFile(
    "journal",
    f"""
    SELECT {_word("j.account")}, j.seq, j.source, j.session_id, j.frame_no, {_utc("j.received_at")}, {_word("j.kind")},
           j.venue_ms, encode(j.raw, 'hex') AS raw_hex, {_word("j.problem")}, {_sheet_time("j.received_at")}
    FROM ledger_v1.journal j
    WHERE j.account = $1 AND extract(epoch FROM j.received_at) * 1000 >= $2
      AND extract(epoch FROM j.received_at) * 1000 < $3
    ORDER BY j.seq
    """,
    ("account", "source", "session_id", "kind", "raw_hex", "problem"),
    "every frame and answer received in the range, its bytes in hex",
)
"""The evidence: what came in the range, by this machine's clock, byte for byte."""

FORMATS = {file.name: file for file in (FILLS, ORDERS, BALANCES, MISSING, TRANSFERS, JOURNAL)}
"""Every format by its name."""
