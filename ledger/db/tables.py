"""The tables of schema ``ledger``: what is stored, in which unit, from which source.

Always holds: ``account`` comes first in every key; amounts are NUMERIC without a scale and refuse NaN and Infinity;
times named ``_ms`` are the venue's milliseconds since 1970 UTC. Alembic compares its migrations with this metadata.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, TIMESTAMP, UUID

from ledger.db.code import SCHEMA

metadata = MetaData(schema=SCHEMA)

DISTRIBUTED = frozenset(
    {
        "inbox",
        "batches",
        "answers",
        "orders",
        "order_amendments",
        "fills",
        "balances",
        "balance_history",
        "observations",
        "transfers",
        "quarantine",
        "gaps",
        "walks",
        "order_checks",
        "page_limits",
        "refused_markets",
        "coverage",
        "discrepancies",
        "markets",
        "explained",
        "leases",
        "venue_state",
    }
)
"""Tables that a distributed engine spreads by ``account``."""
REFERENCE = frozenset({"accounts"})
"""Small tables that a distributed engine copies to every node."""


def _text(name: str, comment: str, *, null: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=null, comment=comment)


def _ms(name: str, comment: str, *, null: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=null, comment=f"{comment}; ms since 1970 UTC")


def _seq(comment: str) -> Column[Any]:
    return Column("seq", BigInteger, nullable=False, comment=comment)


def _at(name: str, comment: str, *, null: bool = False) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True), nullable=null, comment=comment)


def _amount(name: str, comment: str, *, null: bool = False, default: str | None = None) -> Column[Any]:
    server_default = None if default is None else text(default)
    return Column(name, Numeric, nullable=null, server_default=server_default, comment=comment)


def _count(name: str, comment: str, kind: Any = BigInteger) -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=text("0"), comment=comment)


def _flag(name: str, comment: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False, server_default=text("false"), comment=comment)


def _amounts(table: str, *names: str, positive: tuple[str, ...] = (), signed: tuple[str, ...] = ()) -> CheckConstraint:
    """Amounts of zero or more, of more than zero and of either sign; none of them NaN or infinite.

    NaN and Infinity sort above every number, so one look at the greatest refuses both. One check a table, since each is
    read from its text again by every statement that writes: seven of them cost an event a tenth.
    """
    rules = [f"{_of_all('greatest', (*names, *positive, *signed))} < 'Infinity'"]
    if names:
        rules.append(f"{_of_all('least', names)} >= 0")
    rules += [f"{name} > 0" for name in positive]
    if signed:
        rules.append(f"{_of_all('least', signed)} > '-Infinity'")
    return CheckConstraint(" AND ".join(rules), name=f"{table}_amounts_are_real")


def _of_all(which: str, names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{which}({', '.join(names)})"


def _one_of(table: str, name: str, *values: str) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({allowed})", name=f"{table}_{name}_is_known")


def _table(name: str, key: tuple[str, ...], *parts: Any, comment: str) -> Table:
    # No foreign key to accounts: every write locks the account's row first, and a check per row would cost more.
    return Table(name, metadata, *parts, PrimaryKeyConstraint(*key, name=f"{name}_pkey"), comment=comment)


accounts = _table(
    "accounts",
    ("account",),
    _text("account", "the name the user gave this account; never changes"),
    _text(
        "rest_origin",
        "scheme, host and port of the REST API this account belongs to; null: none has accepted its key yet",
        null=True,
    ),
    _text("key_fingerprint", "keyed hash of the API key last used; the key itself is stored nowhere", null=True),
    _count("head_seq", "seq of the newest journal row"),
    Column("head_digest", BYTEA, nullable=True, comment="digest of the newest batch: what the next one is chained to"),
    _count("fence", "number of the newest leader: whoever carries an older one may write nothing"),
    _count("head_gap", "number of the newest gap"),
    _count("head_discrepancy", "number of the newest discrepancy"),
    _count("stream_frames", "stream frames kept so far"),
    _count("unreadable_frames", "stream frames kept that could not be understood"),
    _at("created_at", "when the account was first mirrored"),
    comment="One row per mirrored account; its row lock orders all writes of the account.",
)

inbox = _table(
    "inbox",
    ("account", "seq"),
    _text("account", "account the frame belongs to"),
    _seq("number of the row within the account: 1, 2, 3 …, in commit order"),
    _text("source", "stream, rest or operator"),
    Column("session_id", UUID, nullable=False, comment="one socket connection or one reconcile run"),
    Column("frame_no", BigInteger, nullable=False, comment="number of the frame within its session, from 1"),
    _at("received_at", "when it arrived, by the clock of this machine"),
    _text("kind", "event type of a stream frame, name of the call of a REST answer"),
    _ms(
        "venue_ms",
        "stream: the event's own time; rest: when the question was asked, by the venue's clock",
        null=True,
    ),
    Column(
        "asked_seq",
        BigInteger,
        nullable=True,
        comment="rest: newest seq of the account when the question was asked",
    ),
    _text(
        "question",
        "rest: method, path and parameters, without credentials; GET#0-24/1000: these rows of the answer",
        null=True,
    ),
    Column(
        "raw",
        BYTEA,
        nullable=False,
        comment="exactly the bytes that came: a stream frame, a REST answer, or some rows of one",
    ),
    _text(
        "problem",
        "why it could not be understood, or a remark about fields left out of what was; null when all of it was",
        null=True,
    ),
    _one_of("inbox", "source", "stream", "rest", "operator"),
    CheckConstraint("seq > 0 AND frame_no > 0", name="inbox_numbers_are_positive"),
    Index("inbox_problem_idx", "account", "seq", postgresql_where=text("problem IS NOT NULL")),
    comment="The journal: everything the venue said, kept before it is understood. Append-only.",
)

batches = _table(
    "batches",
    ("account", "last_seq"),
    _text("account", "account the rows belong to"),
    Column("last_seq", BigInteger, nullable=False, comment="last journal row of the batch"),
    Column("first_seq", BigInteger, nullable=False, comment="first journal row of the batch"),
    _flag("clockless", "positions without a venue clock were left out: an older socket tells them"),
    _count("lag_ms", "how far REST was taken to trail the stream, ms"),
    Column(
        "marks",
        BYTEA,
        nullable=False,
        comment="first 8 bytes of each row's digest, in order: finds the row that differs",
    ),
    Column(
        "digest",
        BYTEA,
        nullable=False,
        comment="SHA-256 of the digest before, clockless, lag_ms and all row digests in order",
    ),
    Column(
        "session_id",
        UUID,
        nullable=True,
        comment="session of the call; null: written by a release that told calls apart by their rows",
    ),
    Column("frame_no", BigInteger, nullable=True, comment="number of its first frame within the session"),
    UniqueConstraint("account", "session_id", "frame_no", name="batches_session_frame_key"),
    CheckConstraint("first_seq <= last_seq", name="batches_rows_are_in_order"),
    comment="The chain over the journal: one row per call that wrote it. Append-only.",
)

answers = _table(
    "answers",
    ("account", "question"),
    _text("account", "account the question was asked for"),
    _text("question", "method, path and parameters, without credentials"),
    Column("body_sha256", BYTEA, nullable=False, comment="SHA-256 of the last answer kept"),
    _seq("journal row that keeps it"),
    comment="The last REST answer kept per question: an equal one that changes nothing is not kept again.",
)

orders = _table(
    "orders",
    ("account", "symbol", "order_id"),
    _text("account", "account that placed the order"),
    _text("symbol", "market, base and quote asset concatenated"),
    Column("order_id", BigInteger, nullable=False, comment="the venue's order id, unique within the symbol"),
    _text("client_order_id", "the id the client gave the order; null: not told", null=True),
    _text("side", "BUY or SELL; null: not told", null=True),
    _text("type", "LIMIT, MARKET or another type of the venue; null: not told", null=True),
    _text("time_in_force", "GTC, IOC, FOK or another; null: not told", null=True),
    _amount("price", "limit price in quote asset; null: not told", null=True),
    _amount("orig_qty", "ordered quantity in base asset; null: not told", null=True),
    _amount(
        "venue_executed_qty",
        "largest executed quantity the venue told, in base asset; null: never told",
        null=True,
    ),
    _amount(
        "venue_executed_quote",
        "largest executed total the venue told, in quote asset; null: never told",
        null=True,
    ),
    _text("status", "the venue's status; null: known from a trade only", null=True),
    Column(
        "status_rank",
        SmallInteger,
        nullable=False,
        server_default=text("-1"),
        comment="ledger.status_rank(status): terminal beats open",
    ),
    _flag("status_decided", "true when GET order gave this terminal status"),
    _amount("status_executed", "executed quantity that came with the status, 0 when none did", default="0"),
    _count("status_ms", "venue time that came with the status, ms since 1970 UTC; 0 when none did"),
    _ms("created_ms", "when the order was created", null=True),
    _ms("updated_ms", "newest transaction time the venue told", null=True),
    _amount("fills_qty", "sum of qty over the confirmed fills", default="0"),
    _amount("fills_quote", "sum of quote_qty over the confirmed fills", default="0"),
    Column(
        "told_seq", BigInteger, nullable=True, comment="journal row in which the venue last told the executed quantity"
    ),
    _flag("wounded", "true when fills were missing as the venue last told the executed quantity"),
    _seq("journal row that last changed this row"),
    _count(
        "terms_ms",
        "venue time of the report that last gave quantity, price and client id, which an amendment may change, ms since"
        " 1970 UTC; 0: it gave none",
    ),
    _count("terms_asked_ms", "when REST was asked for that report, ms since 1970 UTC; 0: the stream brought it"),
    _amounts(
        "orders",
        "price",
        "orig_qty",
        "venue_executed_qty",
        "venue_executed_quote",
        "status_executed",
        "fills_qty",
        "fills_quote",
    ),
    Index("orders_seq_idx", "account", "seq"),
    Index("orders_open_idx", "account", "symbol", "order_id", postgresql_where=text("status_rank < 3")),
    Index(
        "orders_missing_idx",
        "account",
        "symbol",
        "order_id",
        postgresql_where=text("venue_executed_qty > fills_qty"),
    ),
    Index(
        "orders_untold_idx",
        "account",
        "symbol",
        "order_id",
        postgresql_where=text("status IS NULL OR orig_qty IS NULL"),
    ),
    Index(
        "orders_wounded_idx",
        "account",
        "symbol",
        "order_id",
        postgresql_where=text("wounded AND seq > told_seq"),
    ),
    Index(
        "orders_differing_idx",
        "account",
        "symbol",
        "order_id",
        postgresql_where=text(
            "status = 'FILLED' AND orig_qty > 0 AND orig_qty <> greatest(venue_executed_qty, fills_qty)"
        ),
    ),
    comment="Newest state of every order, merged from stream and REST.",
)

order_amendments = _table(
    "order_amendments",
    ("account", "symbol", "order_id", "field", "value"),
    _text("account", "account that placed the order"),
    _text("symbol", "market"),
    Column("order_id", BigInteger, nullable=False, comment="the venue's order id"),
    _text("field", "orig_qty, price or client_order_id"),
    _text("value", "what it was by an older report; amounts without needless zeros"),
    Column(
        "reported_ms",
        BigInteger,
        nullable=False,
        comment="newest venue time at which it was reported, 0: none was given; ms since 1970 UTC",
    ),
    _seq("journal row that showed that it is not the newest"),
    _one_of("order_amendments", "field", "orig_qty", "price", "client_order_id"),
    Index("order_amendments_seq_idx", "account", "seq"),
    comment="What quantity, price and client id of an order were before it was amended in place.",
)

fills = _table(
    "fills",
    ("account", "first_seq", "first_index"),
    _text("account", "account whose order was executed"),
    Column("first_seq", BigInteger, nullable=False, comment="journal row that first told the fill; never changes"),
    Column("first_index", Integer, nullable=False, comment="position of the fill within that row; never changes"),
    _text("symbol", "market"),
    Column("order_id", BigInteger, nullable=False, comment="the venue's order id"),
    Column("trade_id", BigInteger, nullable=True, comment="the venue's trade id; null until the venue tells"),
    Column(
        "stream_key",
        UUID,
        nullable=True,
        comment="digest of the stream frame's content, where it had no trade id",
    ),
    Column("stream_ordinal", Integer, nullable=True, comment="which of the equal frames of one session, from 1"),
    _ms("stream_ms", "transaction time of the stream frame", null=True),
    _text("side", "BUY or SELL; null: not told", null=True),
    _amount("price", "price of this execution, quote asset per base asset"),
    _amount("qty", "quantity of this execution, base asset"),
    _amount("quote_qty", "total of this execution, quote asset"),
    _flag("quote_derived", "true when quote_qty is price x qty, exactly, since the venue gave no total"),
    _amount("fee", "fee as the venue charged it, in fee_asset; null: not told", null=True),
    _text("fee_asset", "asset of the fee; null: not told or no fee", null=True),
    Column("is_maker", Boolean, nullable=True, comment="true when the order was resting; null: not told"),
    _ms("executed_ms", "when it was executed; REST's time once REST told the trade"),
    _text("source", "who brought it first: stream or rest"),
    _text(
        "state",
        "confirmed, provisional (an equal frame of one session: twin or double?) or voided (it was a double)",
    ),
    _amount("doubt_executed", "provisional: executed quantity of the order at the last settling read", null=True),
    _seq("journal row that last changed this row"),
    _amounts("fills", "price", "quote_qty", "doubt_executed", positive=("qty",), signed=("fee",)),
    CheckConstraint(
        "(trade_id IS NOT NULL OR stream_key IS NOT NULL)"
        " AND (stream_key IS NULL) = (stream_ordinal IS NULL) AND (stream_key IS NULL) = (stream_ms IS NULL)",
        name="fills_identity_is_whole",
    ),
    _one_of("fills", "source", "stream", "rest"),
    _one_of("fills", "state", "confirmed", "provisional", "voided"),
    Index(
        "fills_trade_key",
        "account",
        "symbol",
        "order_id",
        "trade_id",
        unique=True,
    ),
    Index(
        "fills_stream_key",
        "account",
        "symbol",
        "order_id",
        "stream_key",
        "stream_ordinal",
        unique=True,
        postgresql_where=text("stream_key IS NOT NULL"),
    ),
    Index("fills_executed_idx", "account", "executed_ms"),
    Index("fills_seq_idx", "account", "seq"),
    Index(
        "fills_provisional_idx",
        "account",
        "symbol",
        "order_id",
        postgresql_where=text("state = 'provisional'"),
    ),
    comment="Every execution the venue told, once.",
)

balances = _table(
    "balances",
    ("account", "asset"),
    _text("account", "account that holds the asset"),
    _text("asset", "asset"),
    _amount("free", "available to trade or withdraw"),
    _amount("locked", "reserved by open orders"),
    _ms("as_of_ms", "the venue's clock of this state"),
    Column(
        "k",
        Integer,
        nullable=False,
        comment="which distinct value of this asset and clock within its session",
    ),
    _text("source", "stream or rest"),
    Column(
        "position_seq",
        BigInteger,
        nullable=True,
        comment="journal row of the newest stream position that counted",
    ),
    _seq("journal row that last changed this row"),
    _amounts("balances", "free", "locked"),
    _one_of("balances", "source", "stream", "rest"),
    comment="Newest known balance of every asset ever seen; zero stays a row.",
)

balance_history = _table(
    "balance_history",
    ("account", "asset", "as_of_ms", "free", "locked"),
    _text("account", "account that held the asset"),
    _text("asset", "asset"),
    _ms("as_of_ms", "the venue's clock of this state"),
    _amount("free", "available to trade or withdraw"),
    _amount("locked", "reserved by open orders"),
    Column(
        "k",
        Integer,
        nullable=False,
        comment="which distinct value of this asset and clock within its session",
    ),
    _text("source", "stream or rest"),
    _seq("journal row that told it"),
    _amounts("balance_history", "free", "locked"),
    _one_of("balance_history", "source", "stream", "rest"),
    Index("balance_history_seq_idx", "account", "seq"),
    comment="Every balance the venue told, one row per distinct state.",
)

observations = _table(
    "observations",
    ("account", "kind", "subject"),
    _text("account", "account it was seen of"),
    _text(
        "kind",
        "snapshot: a balance that contradicts newer-looking ones of the stream; residual: an unexplained part of a"
        " balance; lock: one of a locked amount",
    ),
    _text("subject", "asset"),
    _text("value", "what was seen, as text: another value is another observation"),
    _ms("first_ms", "when it was seen first, by the clock of who looked"),
    _count("seq", "newest journal row when it was seen first; 0 where that does not matter"),
    comment="What was seen once and counts only when it is seen again, some time later (see ledger.observe).",
)

transfers = _table(
    "transfers",
    ("account", "asset", "at_ms", "kind", "amount", "ordinal"),
    _text("account", "account the asset moved into or out of"),
    _text("asset", "asset"),
    _ms("at_ms", "when it was credited or debited"),
    _text("kind", "opening, deposit, withdrawal, airdrop, fee or other"),
    _amount("amount", "positive: into the account; negative: out of it"),
    _text("source", "stream or operator"),
    _seq("journal row that told it"),
    Column(
        "ordinal",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="which of the equal movements of one instant it is, counted within its session",
    ),
    _amounts("transfers", signed=("amount",)),
    _one_of("transfers", "kind", "opening", "deposit", "withdrawal", "airdrop", "fee", "other"),
    _one_of("transfers", "source", "stream", "operator"),
    Index("transfers_seq_idx", "account", "seq"),
    comment="Movements that are not trades.",
)

gaps = _table(
    "gaps",
    ("account", "gap_id"),
    _text("account", "account whose stream was away"),
    Column("gap_id", BigInteger, nullable=False, comment="number of the gap within the account: 1, 2, 3 …"),
    _text("cause", "start, lost, silent, listen key …: why frames may have been missed"),
    _ms("from_ms", "last instant known to be covered, venue clock; null: from the beginning", null=True),
    _ms("until_ms", "when the stream was live again, venue clock; null: it is not yet", null=True),
    _at("opened_at", "when the row was written, database clock"),
    _count("opened_seq", "newest journal row when it was written"),
    _at("closed_at", "when the walk over REST was complete; null: open", null=True),
    _count("fills_found", "fills the walk brought that were not known", Integer),
    _count("orders_changed", "orders the walk changed", Integer),
    Index("gaps_open_idx", "account", "gap_id", postgresql_where=text("closed_at IS NULL")),
    comment="Times in which stream frames may have been missed.",
)

walks = _table(
    "walks",
    ("account", "gap_id", "symbol", "kind"),
    _text("account", "account whose history is walked"),
    Column("gap_id", BigInteger, nullable=False, comment="oldest of the gaps being walked"),
    _text("symbol", "market"),
    _text("kind", "allOrders or myTrades"),
    _ms("start_ms", "everything before is applied: where the next question starts"),
    _ms("end_ms", "where the next question ends; null: open end", null=True),
    _ms("asked_ms", "when the newest answer was asked for, venue clock"),
    _flag("done", "the newest answer was the last page"),
    _count("answers", "answers so far", Integer),
    _count("rows", "rows so far"),
    _ms("served_from_ms", "the venue refused to tell what is older, venue clock; null: it did not", null=True),
    comment="How far the walk of an open gap has come, moved with the rows; gone once the gap is closed.",
)

page_limits = _table(
    "page_limits",
    ("account", "kind"),
    _text("account", "account that is asked for"),
    _text("kind", "allOrders or myTrades"),
    Column("rows", Integer, nullable=False, comment="rows a page is asked for: the venue refused to be asked for more"),
    _at("at", "when it last refused, database clock"),
    CheckConstraint("rows > 0", name="page_limits_rows_are_some"),
    comment="How many rows a page is asked for where the venue refused the usual number.",
)

refused_markets = _table(
    "refused_markets",
    ("account", "symbol"),
    _text("account", "account that is asked for"),
    _text("symbol", "market of which the venue refused to tell"),
    _ms("from_ms", "start of what could not be asked for, venue clock; 0: the beginning"),
    _count("tries", "how often it was refused since the venue last told of it", Integer),
    _ms("due_ms", "when it is asked again, venue clock"),
    _count("refused_seq", "newest journal row at the last refusal: what comes later may make the answer another one"),
    comment="Markets of which the venue refused to tell; asked again with growing pauses, gone once it tells.",
)

order_checks = _table(
    "order_checks",
    ("account", "symbol", "order_id", "reason"),
    _text("account", "account that placed the order"),
    _text("symbol", "market"),
    Column("order_id", BigInteger, nullable=False, comment="the venue's order id"),
    _text(
        "reason",
        "moved_in_gap, provisional_fill, missing_fills, unknown_to_venue, unknown_status or another; absent: the venue"
        " has no such order, which agrees with what is known",
    ),
    _ms("due_ms", "when it is asked for next, venue clock; null: not again, the answer stands", null=True),
    _count("tries", "how often it was asked in vain", Integer),
    _flag("ends_coverage", "true once a discrepancy was opened that ends coverage because of it"),
    Index("order_checks_due_idx", "account", "due_ms"),
    comment="Orders that must be asked for again at REST: why, when, and how often it was tried; gone once an answer"
    " settles it.",
)

quarantine = _table(
    "quarantine",
    ("account", "seq"),
    _text("account", "account the row belongs to"),
    _seq("journal row that is kept without its facts"),
    _text("problem", "what the database said at the last try"),
    _text("sqlstate", "SQLSTATE of that; null: an older release did not keep it", null=True),
    Column("tries", Integer, nullable=False, comment="how often its facts were tried, from 1"),
    _at("last_try_at", "when the last try was"),
    Column("applied_seq", BigInteger, nullable=True, comment="journal row that brought its facts; null: none did yet"),
    Index("quarantine_open_idx", "account", "seq", postgresql_where=text("applied_seq IS NULL")),
    comment="Frames and answers that were kept without their facts, since their content was refused.",
)

coverage = _table(
    "coverage",
    ("account", "symbol"),
    _text("account", "account"),
    _text("symbol", "market, or * for every market, by live time"),
    _ms("complete_from_ms", "start of what is known without a hole; null: the beginning", null=True),
    Column(
        "walked_gap",
        BigInteger,
        nullable=True,
        comment="a market's row: newest gap over which it was walked; null on the row of every market",
    ),
    _ms("live_through_ms", "end of the time the stream covered so far, venue clock", null=True),
    _flag("live", "whether the stream was up at the last beat"),
    _at("beat_at", "last sign of life of the service, database clock", null=True),
    _at(
        "through_at",
        "what the database clock said when live_through_ms moved last: as much time has passed since as this clock "
        "says, whatever the venue is said to show; null: not known",
        null=True,
    ),
    comment="How far the live stream reached; holes in it are rows of gaps.",
)

discrepancies = _table(
    "discrepancies",
    ("account", "discrepancy_id"),
    _text("account", "account"),
    Column("discrepancy_id", BigInteger, nullable=False, comment="number within the account: 1, 2, 3 …"),
    _text(
        "kind",
        "what does not fit: fill_conflict, order_conflict, terminal_conflict, rest_row, double_frame …",
    ),
    _text("subject", "what it is about: an order, a fill, an asset, a row of a page"),
    _text("expected", "what was held before", null=True),
    _text("actual", "what came", null=True),
    _amount("residual", "unexplained amount, signed as the balance moved; null where there is none", null=True),
    Column(
        "digest",
        BYTEA,
        nullable=False,
        comment="SHA-256 of kind, subject, expected and actual: told once only",
    ),
    Column("evidence_seq", BigInteger, nullable=False, comment="journal row that shows it"),
    _at("opened_at", "when the evidence arrived"),
    _at("resolved_at", "when it was settled; null: open", null=True),
    _text("resolution", "how it was settled", null=True),
    _seq("journal row that last changed this row"),
    _amounts("discrepancies", signed=("residual",)),
    _ms("at_ms", "instant of the balance that shows it, venue clock; null: none", null=True),
    _text("symbol", "market it is about; null: none, or not known", null=True),
    Column("order_id", BigInteger, comment="order it is about; null: none"),
    Column("trade_id", BigInteger, comment="trade it is about; null: none, or one without an id"),
    _text("asset", "asset it is about; null: none", null=True),
    _ms(
        "uncovered_from_ms",
        "while it is open, coverage of its market (of all markets where symbol is null) ends at this instant of the "
        "venue clock, 0: nothing is covered; null: coverage is not touched",
        null=True,
    ),
    UniqueConstraint("account", "digest", name="discrepancies_digest_key"),
    Index("discrepancies_seq_idx", "account", "seq"),
    Index("discrepancies_open_idx", "account", "discrepancy_id", postgresql_where=text("resolved_at IS NULL")),
    Index(
        "discrepancies_uncovered_idx",
        "account",
        "symbol",
        postgresql_where=text("resolved_at IS NULL AND uncovered_from_ms IS NOT NULL"),
    ),
    comment="Everything that does not fit, with its evidence; the first truth stays in place.",
)

markets = _table(
    "markets",
    ("account", "symbol"),
    _text("account", "account"),
    _text("symbol", "market, base and quote asset concatenated"),
    _text("base", "asset that is bought or sold"),
    _text("quote", "asset it is paid in"),
    _text("source", "venue, setting or inferred: the only split of the symbol into two assets the account has held"),
    _one_of("markets", "source", "venue", "setting", "inferred"),
    comment="Which two assets a market trades; without it a fill moves no balance that could be explained.",
)

explained = _table(
    "explained",
    ("account", "asset"),
    _text("account", "account that holds the asset"),
    _text("asset", "asset"),
    _ms("base_ms", "instant of the first balance truth: what was before explains itself"),
    _amount("base_total", "free + locked at that instant"),
    _ms("through_ms", "instant up to which everything is explained"),
    _amount("total", "free + locked at that instant"),
    _amount("effects", "what fills, fees and transfers between the two instants add up to"),
    _amount("residual", "unexplained so far: total - base_total - effects, once seen twice"),
    _seq("newest journal row that went into it"),
    _amounts("explained", "base_total", "total", signed=("effects", "residual")),
    comment="Per asset, how far its balance is explained by what the venue told; the rest is in discrepancies.",
)

leases = _table(
    "leases",
    ("account",),
    _text("account", "account that is mirrored"),
    Column("holder", UUID, nullable=False, comment="the process that leads"),
    Column("fence", BigInteger, nullable=False, comment="its fencing number; a later leader has a larger one"),
    _text("host", "machine and process id of the leader, for people"),
    _at("taken_at", "when it took the lead, database clock"),
    _at("until_at", "until when nobody else may take it, unless it is renewed; database clock"),
    comment="Who mirrors the account now; all others stand by.",
)

venue_state = _table(
    "venue_state",
    ("account",),
    _text("account", "account"),
    _text(
        "mode",
        "trades, orders_quote or orders: what the venue lets us recover; null: not probed yet",
        null=True,
    ),
    _at("probed_at", "when the venue's capabilities were last probed", null=True),
    _ms("blocked_until_ms", "the venue asked for silence until then, this machine's clock", null=True),
    Column(
        "key_digest", BYTEA, nullable=True, comment="SHA-256 of the listen key last used; the key itself is not kept"
    ),
    _ms("key_ms", "when the venue last confirmed that listen key, venue clock", null=True),
    _at("key_at", "key_ms by the database clock; null: not known", null=True),
    Column("weight_used", Integer, nullable=True, comment="REST weight spent in the last minute"),
    _text("last_error", "newest error of the service, without secrets", null=True),
    _text("stream_error", "why the stream could not be opened at the last attempt; null: it is open", null=True),
    _at("last_error_at", "when it happened", null=True),
    _text("paused_error", "why the database refuses to write for this account; null: it does not", null=True),
    _at("paused_since", "since when, database clock; null: it does not", null=True),
    comment="What the service knows of the venue and of its own health; for status, and kept over restarts.",
)
