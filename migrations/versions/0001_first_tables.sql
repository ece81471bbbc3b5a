CREATE TABLE ledger.accounts (
    account TEXT NOT NULL,
    rest_origin TEXT,
    key_fingerprint TEXT,
    head_seq BIGINT DEFAULT 0 NOT NULL,
    head_gap BIGINT DEFAULT 0 NOT NULL,
    head_discrepancy BIGINT DEFAULT 0 NOT NULL,
    stream_frames BIGINT DEFAULT 0 NOT NULL,
    unreadable_frames BIGINT DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (account)
);

COMMENT ON TABLE ledger.accounts IS 'One row per mirrored account; its row lock orders all writes of the account.';

COMMENT ON COLUMN ledger.accounts.account IS 'the name the user gave this account; never changes';

COMMENT ON COLUMN ledger.accounts.rest_origin IS 'scheme, host and port of the REST API this account belongs to';

COMMENT ON COLUMN ledger.accounts.key_fingerprint IS 'keyed hash of the API key last used; the key itself is stored nowhere';

COMMENT ON COLUMN ledger.accounts.head_seq IS 'seq of the newest journal row';

COMMENT ON COLUMN ledger.accounts.head_gap IS 'number of the newest gap';

COMMENT ON COLUMN ledger.accounts.head_discrepancy IS 'number of the newest discrepancy';

COMMENT ON COLUMN ledger.accounts.stream_frames IS 'stream frames kept so far';

COMMENT ON COLUMN ledger.accounts.unreadable_frames IS 'stream frames kept that could not be understood';

COMMENT ON COLUMN ledger.accounts.created_at IS 'when the account was first mirrored';

CREATE TABLE ledger.answers (
    account TEXT NOT NULL,
    question TEXT NOT NULL,
    body_sha256 BYTEA NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT answers_pkey PRIMARY KEY (account, question)
);

COMMENT ON TABLE ledger.answers IS 'The last REST answer kept per question: an equal one that changes nothing is not kept again.';

COMMENT ON COLUMN ledger.answers.account IS 'account the question was asked for';

COMMENT ON COLUMN ledger.answers.question IS 'method, path and parameters, without credentials';

COMMENT ON COLUMN ledger.answers.body_sha256 IS 'SHA-256 of the last answer kept';

COMMENT ON COLUMN ledger.answers.seq IS 'journal row that keeps it';

CREATE TABLE ledger.balance_history (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    as_of_ms BIGINT NOT NULL,
    free NUMERIC NOT NULL,
    locked NUMERIC NOT NULL,
    k INTEGER NOT NULL,
    source TEXT NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT balance_history_pkey PRIMARY KEY (account, asset, as_of_ms, free, locked),
    CONSTRAINT balance_history_free_is_real CHECK (free >= 0 AND free < 'Infinity'),
    CONSTRAINT balance_history_locked_is_real CHECK (locked >= 0 AND locked < 'Infinity'),
    CONSTRAINT balance_history_source_is_known CHECK (source IN ('stream', 'rest'))
);

CREATE INDEX balance_history_seq_idx ON ledger.balance_history (account, seq);

COMMENT ON TABLE ledger.balance_history IS 'Every balance the venue told, one row per distinct state.';

COMMENT ON COLUMN ledger.balance_history.account IS 'account that held the asset';

COMMENT ON COLUMN ledger.balance_history.asset IS 'asset';

COMMENT ON COLUMN ledger.balance_history.as_of_ms IS 'the venue''s clock of this state; ms since 1970 UTC';

COMMENT ON COLUMN ledger.balance_history.free IS 'available to trade or withdraw';

COMMENT ON COLUMN ledger.balance_history.locked IS 'reserved by open orders';

COMMENT ON COLUMN ledger.balance_history.k IS 'which distinct value of this asset and clock within its session';

COMMENT ON COLUMN ledger.balance_history.source IS 'stream or rest';

COMMENT ON COLUMN ledger.balance_history.seq IS 'journal row that told it';

CREATE TABLE ledger.balances (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    free NUMERIC NOT NULL,
    locked NUMERIC NOT NULL,
    as_of_ms BIGINT NOT NULL,
    k INTEGER NOT NULL,
    source TEXT NOT NULL,
    position_seq BIGINT,
    seq BIGINT NOT NULL,
    CONSTRAINT balances_pkey PRIMARY KEY (account, asset),
    CONSTRAINT balances_free_is_real CHECK (free >= 0 AND free < 'Infinity'),
    CONSTRAINT balances_locked_is_real CHECK (locked >= 0 AND locked < 'Infinity'),
    CONSTRAINT balances_source_is_known CHECK (source IN ('stream', 'rest'))
);

CREATE INDEX balances_seq_idx ON ledger.balances (account, seq);

COMMENT ON TABLE ledger.balances IS 'Newest known balance of every asset ever seen; zero stays a row.';

COMMENT ON COLUMN ledger.balances.account IS 'account that holds the asset';

COMMENT ON COLUMN ledger.balances.asset IS 'asset';

COMMENT ON COLUMN ledger.balances.free IS 'available to trade or withdraw';

COMMENT ON COLUMN ledger.balances.locked IS 'reserved by open orders';

COMMENT ON COLUMN ledger.balances.as_of_ms IS 'the venue''s clock of this state; ms since 1970 UTC';

COMMENT ON COLUMN ledger.balances.k IS 'which distinct value of this asset and clock within its session';

COMMENT ON COLUMN ledger.balances.source IS 'stream or rest';

COMMENT ON COLUMN ledger.balances.position_seq IS 'journal row of the newest stream position that counted';

COMMENT ON COLUMN ledger.balances.seq IS 'journal row that last changed this row';

CREATE TABLE ledger.coverage (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    complete_from_ms BIGINT,
    live_through_ms BIGINT,
    live BOOLEAN DEFAULT false NOT NULL,
    beat_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT coverage_pkey PRIMARY KEY (account, symbol)
);

COMMENT ON TABLE ledger.coverage IS 'How far the live stream reached; holes in it are rows of gaps.';

COMMENT ON COLUMN ledger.coverage.account IS 'account';

COMMENT ON COLUMN ledger.coverage.symbol IS 'market, or * for every market, by live time';

COMMENT ON COLUMN ledger.coverage.complete_from_ms IS 'start of what is known without a hole; null: the beginning; ms since 1970 UTC';

COMMENT ON COLUMN ledger.coverage.live_through_ms IS 'end of the time the stream covered so far, venue clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.coverage.live IS 'whether the stream was up at the last beat';

COMMENT ON COLUMN ledger.coverage.beat_at IS 'last sign of life of the service, database clock';

CREATE TABLE ledger.discrepancies (
    account TEXT NOT NULL,
    discrepancy_id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    expected TEXT,
    actual TEXT,
    residual NUMERIC,
    digest BYTEA NOT NULL,
    evidence_seq BIGINT NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    resolution TEXT,
    seq BIGINT NOT NULL,
    CONSTRAINT discrepancies_pkey PRIMARY KEY (account, discrepancy_id),
    CONSTRAINT discrepancies_residual_is_real CHECK (residual > '-Infinity' AND residual < 'Infinity'),
    CONSTRAINT discrepancies_digest_key UNIQUE (account, digest)
);

CREATE INDEX discrepancies_open_idx ON ledger.discrepancies (account, discrepancy_id) WHERE resolved_at IS NULL;

CREATE INDEX discrepancies_seq_idx ON ledger.discrepancies (account, seq);

COMMENT ON TABLE ledger.discrepancies IS 'Everything that does not fit, with its evidence; the first truth stays in place.';

COMMENT ON COLUMN ledger.discrepancies.account IS 'account';

COMMENT ON COLUMN ledger.discrepancies.discrepancy_id IS 'number within the account: 1, 2, 3 …';

COMMENT ON COLUMN ledger.discrepancies.kind IS 'what does not fit: fill_conflict, order_conflict, terminal_conflict, rest_row, double_frame …';

COMMENT ON COLUMN ledger.discrepancies.subject IS 'what it is about: an order, a fill, an asset, a row of a page';

COMMENT ON COLUMN ledger.discrepancies.expected IS 'what was held before';

COMMENT ON COLUMN ledger.discrepancies.actual IS 'what came';

COMMENT ON COLUMN ledger.discrepancies.residual IS 'unexplained amount, signed as the balance moved; null where there is none';

COMMENT ON COLUMN ledger.discrepancies.digest IS 'SHA-256 of kind, subject, expected and actual: told once only';

COMMENT ON COLUMN ledger.discrepancies.evidence_seq IS 'journal row that shows it';

COMMENT ON COLUMN ledger.discrepancies.opened_at IS 'when the evidence arrived';

COMMENT ON COLUMN ledger.discrepancies.resolved_at IS 'when it was settled; null: open';

COMMENT ON COLUMN ledger.discrepancies.resolution IS 'how it was settled';

COMMENT ON COLUMN ledger.discrepancies.seq IS 'journal row that last changed this row';

CREATE TABLE ledger.fills (
    account TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    first_index INTEGER NOT NULL,
    symbol TEXT NOT NULL,
    order_id BIGINT NOT NULL,
    trade_id BIGINT,
    stream_key UUID,
    stream_ordinal INTEGER,
    stream_ms BIGINT,
    side TEXT,
    price NUMERIC NOT NULL,
    qty NUMERIC NOT NULL,
    quote_qty NUMERIC NOT NULL,
    quote_derived BOOLEAN DEFAULT false NOT NULL,
    fee NUMERIC,
    fee_asset TEXT,
    is_maker BOOLEAN,
    executed_ms BIGINT NOT NULL,
    source TEXT NOT NULL,
    state TEXT NOT NULL,
    doubt_executed NUMERIC,
    seq BIGINT NOT NULL,
    CONSTRAINT fills_pkey PRIMARY KEY (account, first_seq, first_index),
    CONSTRAINT fills_price_is_real CHECK (price >= 0 AND price < 'Infinity'),
    CONSTRAINT fills_qty_is_real CHECK (qty >= 0 AND qty < 'Infinity'),
    CONSTRAINT fills_quote_qty_is_real CHECK (quote_qty >= 0 AND quote_qty < 'Infinity'),
    CONSTRAINT fills_doubt_executed_is_real CHECK (doubt_executed >= 0 AND doubt_executed < 'Infinity'),
    CONSTRAINT fills_fee_is_real CHECK (fee > '-Infinity' AND fee < 'Infinity'),
    CONSTRAINT fills_qty_is_positive CHECK (qty > 0),
    CONSTRAINT fills_identity_is_known CHECK (trade_id IS NOT NULL OR stream_key IS NOT NULL),
    CONSTRAINT fills_stream_identity_is_whole CHECK ((stream_key IS NULL) = (stream_ordinal IS NULL) AND (stream_key IS NULL) = (stream_ms IS NULL)),
    CONSTRAINT fills_source_is_known CHECK (source IN ('stream', 'rest')),
    CONSTRAINT fills_state_is_known CHECK (state IN ('confirmed', 'provisional', 'voided'))
);

CREATE INDEX fills_executed_idx ON ledger.fills (account, executed_ms);

CREATE INDEX fills_provisional_idx ON ledger.fills (account, symbol, order_id) WHERE state = 'provisional';

CREATE INDEX fills_seq_idx ON ledger.fills (account, seq);

CREATE UNIQUE INDEX fills_stream_key ON ledger.fills (account, symbol, order_id, stream_key, stream_ordinal) WHERE stream_key IS NOT NULL;

CREATE UNIQUE INDEX fills_trade_key ON ledger.fills (account, symbol, order_id, trade_id) WHERE trade_id IS NOT NULL;

COMMENT ON TABLE ledger.fills IS 'Every execution the venue told, once.';

COMMENT ON COLUMN ledger.fills.account IS 'account whose order was executed';

COMMENT ON COLUMN ledger.fills.first_seq IS 'journal row that first told the fill; never changes';

COMMENT ON COLUMN ledger.fills.first_index IS 'position of the fill within that row; never changes';

COMMENT ON COLUMN ledger.fills.symbol IS 'market';

COMMENT ON COLUMN ledger.fills.order_id IS 'the venue''s order id';

COMMENT ON COLUMN ledger.fills.trade_id IS 'the venue''s trade id; null until the venue tells';

COMMENT ON COLUMN ledger.fills.stream_key IS 'digest of the stream frame''s content, where it had no trade id';

COMMENT ON COLUMN ledger.fills.stream_ordinal IS 'which of the equal frames of one session, from 1';

COMMENT ON COLUMN ledger.fills.stream_ms IS 'transaction time of the stream frame; ms since 1970 UTC';

COMMENT ON COLUMN ledger.fills.side IS 'BUY or SELL; null: not told';

COMMENT ON COLUMN ledger.fills.price IS 'price of this execution, quote asset per base asset';

COMMENT ON COLUMN ledger.fills.qty IS 'quantity of this execution, base asset';

COMMENT ON COLUMN ledger.fills.quote_qty IS 'total of this execution, quote asset';

COMMENT ON COLUMN ledger.fills.quote_derived IS 'true when quote_qty is price x qty, exactly, since the venue gave no total';

COMMENT ON COLUMN ledger.fills.fee IS 'fee as the venue charged it, in fee_asset; null: not told';

COMMENT ON COLUMN ledger.fills.fee_asset IS 'asset of the fee; null: not told or no fee';

COMMENT ON COLUMN ledger.fills.is_maker IS 'true when the order was resting; null: not told';

COMMENT ON COLUMN ledger.fills.executed_ms IS 'when it was executed; REST''s time once REST told the trade; ms since 1970 UTC';

COMMENT ON COLUMN ledger.fills.source IS 'who brought it first: stream or rest';

COMMENT ON COLUMN ledger.fills.state IS 'confirmed, provisional (an equal frame of one session: twin or double?) or voided (it was a double)';

COMMENT ON COLUMN ledger.fills.doubt_executed IS 'provisional: executed quantity of the order at the last settling read';

COMMENT ON COLUMN ledger.fills.seq IS 'journal row that last changed this row';

CREATE TABLE ledger.gaps (
    account TEXT NOT NULL,
    gap_id BIGINT NOT NULL,
    cause TEXT NOT NULL,
    from_ms BIGINT,
    until_ms BIGINT NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    fills_found INTEGER DEFAULT 0 NOT NULL,
    orders_changed INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT gaps_pkey PRIMARY KEY (account, gap_id)
);

CREATE INDEX gaps_open_idx ON ledger.gaps (account, gap_id) WHERE closed_at IS NULL;

COMMENT ON TABLE ledger.gaps IS 'Times in which stream frames may have been missed.';

COMMENT ON COLUMN ledger.gaps.account IS 'account whose stream was away';

COMMENT ON COLUMN ledger.gaps.gap_id IS 'number of the gap within the account: 1, 2, 3 …';

COMMENT ON COLUMN ledger.gaps.cause IS 'start, lost, silent, listen key …: why frames may have been missed';

COMMENT ON COLUMN ledger.gaps.from_ms IS 'last instant known to be covered, venue clock; null: from the beginning; ms since 1970 UTC';

COMMENT ON COLUMN ledger.gaps.until_ms IS 'when the stream was live again, venue clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.gaps.opened_at IS 'when the row was written, database clock';

COMMENT ON COLUMN ledger.gaps.closed_at IS 'when the walk over REST was complete; null: open';

COMMENT ON COLUMN ledger.gaps.fills_found IS 'fills the walk brought that were not known';

COMMENT ON COLUMN ledger.gaps.orders_changed IS 'orders the walk changed';

CREATE TABLE ledger.inbox (
    account TEXT NOT NULL,
    seq BIGINT NOT NULL,
    source TEXT NOT NULL,
    session_id UUID NOT NULL,
    frame_no BIGINT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    venue_ms BIGINT,
    asked_seq BIGINT,
    question TEXT,
    raw BYTEA NOT NULL,
    problem TEXT,
    CONSTRAINT inbox_pkey PRIMARY KEY (account, seq),
    CONSTRAINT inbox_session_frame_key UNIQUE (account, session_id, frame_no),
    CONSTRAINT inbox_source_is_known CHECK (source IN ('stream', 'rest', 'operator')),
    CONSTRAINT inbox_numbers_are_positive CHECK (seq > 0 AND frame_no > 0)
);

CREATE INDEX inbox_problem_idx ON ledger.inbox (account, seq) WHERE problem IS NOT NULL;

COMMENT ON TABLE ledger.inbox IS 'The journal: everything the venue said, kept before it is understood. Append-only.';

COMMENT ON COLUMN ledger.inbox.account IS 'account the frame belongs to';

COMMENT ON COLUMN ledger.inbox.seq IS 'number of the row within the account: 1, 2, 3 …, in commit order';

COMMENT ON COLUMN ledger.inbox.source IS 'stream, rest or operator';

COMMENT ON COLUMN ledger.inbox.session_id IS 'one socket connection or one reconcile run';

COMMENT ON COLUMN ledger.inbox.frame_no IS 'number of the frame within its session, from 1';

COMMENT ON COLUMN ledger.inbox.received_at IS 'when it arrived, by the clock of this machine';

COMMENT ON COLUMN ledger.inbox.kind IS 'event type of a stream frame, name of the call of a REST answer';

COMMENT ON COLUMN ledger.inbox.venue_ms IS 'stream: the event''s own time; rest: when the question was asked, by the venue''s clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.inbox.asked_seq IS 'rest: newest seq of the account when the question was asked';

COMMENT ON COLUMN ledger.inbox.question IS 'rest: method, path and parameters, without credentials';

COMMENT ON COLUMN ledger.inbox.raw IS 'exactly the bytes that came; a rest row is one response body';

COMMENT ON COLUMN ledger.inbox.problem IS 'why it could not be understood; null when it was';

CREATE TABLE ledger.orders (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    order_id BIGINT NOT NULL,
    client_order_id TEXT,
    side TEXT,
    type TEXT,
    time_in_force TEXT,
    price NUMERIC,
    orig_qty NUMERIC,
    venue_executed_qty NUMERIC,
    venue_executed_quote NUMERIC,
    status TEXT,
    status_rank SMALLINT DEFAULT -1 NOT NULL,
    status_decided BOOLEAN DEFAULT false NOT NULL,
    status_executed NUMERIC DEFAULT 0 NOT NULL,
    status_ms BIGINT DEFAULT 0 NOT NULL,
    created_ms BIGINT,
    updated_ms BIGINT,
    fills_qty NUMERIC DEFAULT 0 NOT NULL,
    fills_quote NUMERIC DEFAULT 0 NOT NULL,
    told_seq BIGINT,
    wounded BOOLEAN DEFAULT false NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT orders_pkey PRIMARY KEY (account, symbol, order_id),
    CONSTRAINT orders_price_is_real CHECK (price >= 0 AND price < 'Infinity'),
    CONSTRAINT orders_orig_qty_is_real CHECK (orig_qty >= 0 AND orig_qty < 'Infinity'),
    CONSTRAINT orders_venue_executed_qty_is_real CHECK (venue_executed_qty >= 0 AND venue_executed_qty < 'Infinity'),
    CONSTRAINT orders_venue_executed_quote_is_real CHECK (venue_executed_quote >= 0 AND venue_executed_quote < 'Infinity'),
    CONSTRAINT orders_status_executed_is_real CHECK (status_executed >= 0 AND status_executed < 'Infinity'),
    CONSTRAINT orders_fills_qty_is_real CHECK (fills_qty >= 0 AND fills_qty < 'Infinity'),
    CONSTRAINT orders_fills_quote_is_real CHECK (fills_quote >= 0 AND fills_quote < 'Infinity')
);

CREATE INDEX orders_missing_idx ON ledger.orders (account, symbol, order_id) WHERE venue_executed_qty > fills_qty;

CREATE INDEX orders_open_idx ON ledger.orders (account, symbol, order_id) WHERE status_rank < 3;

CREATE INDEX orders_seq_idx ON ledger.orders (account, seq);

CREATE INDEX orders_untold_idx ON ledger.orders (account, symbol, order_id) WHERE status IS NULL OR orig_qty IS NULL;

CREATE INDEX orders_wounded_idx ON ledger.orders (account, symbol, order_id) WHERE wounded AND seq > told_seq;

COMMENT ON TABLE ledger.orders IS 'Newest state of every order, merged from stream and REST.';

COMMENT ON COLUMN ledger.orders.account IS 'account that placed the order';

COMMENT ON COLUMN ledger.orders.symbol IS 'market, base and quote asset concatenated';

COMMENT ON COLUMN ledger.orders.order_id IS 'the venue''s order id, unique within the symbol';

COMMENT ON COLUMN ledger.orders.client_order_id IS 'the id the client gave the order; null: not told';

COMMENT ON COLUMN ledger.orders.side IS 'BUY or SELL; null: not told';

COMMENT ON COLUMN ledger.orders.type IS 'LIMIT, MARKET or another type of the venue; null: not told';

COMMENT ON COLUMN ledger.orders.time_in_force IS 'GTC, IOC, FOK or another; null: not told';

COMMENT ON COLUMN ledger.orders.price IS 'limit price in quote asset; null: not told';

COMMENT ON COLUMN ledger.orders.orig_qty IS 'ordered quantity in base asset; null: not told';

COMMENT ON COLUMN ledger.orders.venue_executed_qty IS 'largest executed quantity the venue told, in base asset; null: never told';

COMMENT ON COLUMN ledger.orders.venue_executed_quote IS 'largest executed total the venue told, in quote asset; null: never told';

COMMENT ON COLUMN ledger.orders.status IS 'the venue''s status; null: known from a trade only';

COMMENT ON COLUMN ledger.orders.status_rank IS 'ledger.status_rank(status): terminal beats open';

COMMENT ON COLUMN ledger.orders.status_decided IS 'true when GET order gave this terminal status';

COMMENT ON COLUMN ledger.orders.status_executed IS 'executed quantity that came with the status, 0 when none did';

COMMENT ON COLUMN ledger.orders.status_ms IS 'venue time that came with the status, ms since 1970 UTC; 0 when none did';

COMMENT ON COLUMN ledger.orders.created_ms IS 'when the order was created; ms since 1970 UTC';

COMMENT ON COLUMN ledger.orders.updated_ms IS 'newest transaction time the venue told; ms since 1970 UTC';

COMMENT ON COLUMN ledger.orders.fills_qty IS 'sum of qty over the confirmed fills';

COMMENT ON COLUMN ledger.orders.fills_quote IS 'sum of quote_qty over the confirmed fills';

COMMENT ON COLUMN ledger.orders.told_seq IS 'journal row in which the venue last told the executed quantity';

COMMENT ON COLUMN ledger.orders.wounded IS 'true when fills were missing as the venue last told the executed quantity';

COMMENT ON COLUMN ledger.orders.seq IS 'journal row that last changed this row';

CREATE TABLE ledger.snapshot_votes (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    free NUMERIC NOT NULL,
    locked NUMERIC NOT NULL,
    asked_ms BIGINT NOT NULL,
    asked_seq BIGINT NOT NULL,
    CONSTRAINT snapshot_votes_pkey PRIMARY KEY (account, asset),
    CONSTRAINT snapshot_votes_free_is_real CHECK (free >= 0 AND free < 'Infinity'),
    CONSTRAINT snapshot_votes_locked_is_real CHECK (locked >= 0 AND locked < 'Infinity')
);

COMMENT ON TABLE ledger.snapshot_votes IS 'Snapshots that disagree with newer-looking stream states; two that agree win (see db/apply.sql).';

COMMENT ON COLUMN ledger.snapshot_votes.account IS 'account of the snapshot';

COMMENT ON COLUMN ledger.snapshot_votes.asset IS 'asset whose snapshot value differs from the stream''s';

COMMENT ON COLUMN ledger.snapshot_votes.free IS 'free as the snapshot told it';

COMMENT ON COLUMN ledger.snapshot_votes.locked IS 'locked as the snapshot told it';

COMMENT ON COLUMN ledger.snapshot_votes.asked_ms IS 'when the first agreeing snapshot was asked, by the venue''s clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.snapshot_votes.asked_seq IS 'newest seq when that snapshot was asked';

CREATE TABLE ledger.transfers (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    amount NUMERIC NOT NULL,
    source TEXT NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT transfers_pkey PRIMARY KEY (account, asset, at_ms, kind, amount),
    CONSTRAINT transfers_amount_is_real CHECK (amount > '-Infinity' AND amount < 'Infinity'),
    CONSTRAINT transfers_kind_is_known CHECK (kind IN ('opening', 'deposit', 'withdrawal', 'airdrop', 'fee', 'other')),
    CONSTRAINT transfers_source_is_known CHECK (source IN ('stream', 'operator'))
);

CREATE INDEX transfers_seq_idx ON ledger.transfers (account, seq);

COMMENT ON TABLE ledger.transfers IS 'Movements that are not trades.';

COMMENT ON COLUMN ledger.transfers.account IS 'account the asset moved into or out of';

COMMENT ON COLUMN ledger.transfers.asset IS 'asset';

COMMENT ON COLUMN ledger.transfers.at_ms IS 'when it was credited or debited; ms since 1970 UTC';

COMMENT ON COLUMN ledger.transfers.kind IS 'opening, deposit, withdrawal, airdrop, fee or other';

COMMENT ON COLUMN ledger.transfers.amount IS 'positive: into the account; negative: out of it';

COMMENT ON COLUMN ledger.transfers.source IS 'stream or operator';

COMMENT ON COLUMN ledger.transfers.seq IS 'journal row that told it';

CREATE TABLE ledger.venue_state (
    account TEXT NOT NULL,
    mode TEXT,
    probed_at TIMESTAMP WITH TIME ZONE,
    blocked_until_ms BIGINT,
    weight_used INTEGER,
    last_error TEXT,
    last_error_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT venue_state_pkey PRIMARY KEY (account)
);

COMMENT ON TABLE ledger.venue_state IS 'What the service knows of the venue and of its own health; for status, and kept over restarts.';

COMMENT ON COLUMN ledger.venue_state.account IS 'account';

COMMENT ON COLUMN ledger.venue_state.mode IS 'trades, orders_quote or orders: what the venue lets us recover; null: not probed yet';

COMMENT ON COLUMN ledger.venue_state.probed_at IS 'when the venue''s capabilities were last probed';

COMMENT ON COLUMN ledger.venue_state.blocked_until_ms IS 'the venue asked for silence until then, this machine''s clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.venue_state.weight_used IS 'REST weight spent in the last minute';

COMMENT ON COLUMN ledger.venue_state.last_error IS 'newest error of the service, without secrets';

COMMENT ON COLUMN ledger.venue_state.last_error_at IS 'when it happened';
