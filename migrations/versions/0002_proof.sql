ALTER TABLE ledger.accounts ADD COLUMN head_digest BYTEA;

COMMENT ON COLUMN ledger.accounts.head_digest IS 'digest of the newest batch: what the next one is chained to';

ALTER TABLE ledger.accounts ADD COLUMN fence BIGINT DEFAULT 0 NOT NULL;

COMMENT ON COLUMN ledger.accounts.fence IS 'number of the newest leader: whoever carries an older one may write nothing';

ALTER TABLE ledger.gaps ADD COLUMN opened_seq BIGINT DEFAULT 0 NOT NULL;

COMMENT ON COLUMN ledger.gaps.opened_seq IS 'newest journal row when it was written';

ALTER TABLE ledger.venue_state ADD COLUMN key_digest BYTEA;

COMMENT ON COLUMN ledger.venue_state.key_digest IS 'SHA-256 of the listen key last used; the key itself is not kept';

ALTER TABLE ledger.venue_state ADD COLUMN key_ms BIGINT;

COMMENT ON COLUMN ledger.venue_state.key_ms IS 'when the venue last confirmed that listen key, venue clock; ms since 1970 UTC';

ALTER TABLE ledger.coverage ADD COLUMN walked_gap BIGINT;

COMMENT ON COLUMN ledger.coverage.walked_gap IS 'a market''s row: newest gap over which it was walked; null on the row of every market';

ALTER TABLE ledger.discrepancies ADD COLUMN at_ms BIGINT;

COMMENT ON COLUMN ledger.discrepancies.at_ms IS 'instant of the balance that shows it, venue clock; null: none; ms since 1970 UTC';

CREATE INDEX fills_order_idx ON ledger.fills (account, symbol, order_id);

CREATE TABLE ledger.batches (
    account TEXT NOT NULL,
    last_seq BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    clockless BOOLEAN DEFAULT false NOT NULL,
    lag_ms BIGINT DEFAULT 0 NOT NULL,
    marks BYTEA NOT NULL,
    digest BYTEA NOT NULL,
    CONSTRAINT batches_pkey PRIMARY KEY (account, last_seq),
    CONSTRAINT batches_rows_are_in_order CHECK (first_seq <= last_seq)
);

COMMENT ON TABLE ledger.batches IS 'The chain over the journal: one row per call that wrote it. Append-only.';

COMMENT ON COLUMN ledger.batches.account IS 'account the rows belong to';

COMMENT ON COLUMN ledger.batches.last_seq IS 'last journal row of the batch';

COMMENT ON COLUMN ledger.batches.first_seq IS 'first journal row of the batch';

COMMENT ON COLUMN ledger.batches.clockless IS 'positions without a venue clock were left out: an older socket tells them';

COMMENT ON COLUMN ledger.batches.lag_ms IS 'how far REST was taken to trail the stream, ms';

COMMENT ON COLUMN ledger.batches.marks IS 'first 8 bytes of each row''s digest, in order: finds the row that differs';

COMMENT ON COLUMN ledger.batches.digest IS 'SHA-256 of the digest before, clockless, lag_ms and all row digests in order';

CREATE TABLE ledger.walks (
    account TEXT NOT NULL,
    gap_id BIGINT NOT NULL,
    symbol TEXT NOT NULL,
    kind TEXT NOT NULL,
    start_ms BIGINT NOT NULL,
    end_ms BIGINT,
    asked_ms BIGINT NOT NULL,
    done BOOLEAN DEFAULT false NOT NULL,
    answers INTEGER DEFAULT 0 NOT NULL,
    rows BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT walks_pkey PRIMARY KEY (account, gap_id, symbol, kind)
);

COMMENT ON TABLE ledger.walks IS 'How far the walk of an open gap has come, moved with the rows; gone once the gap is closed.';

COMMENT ON COLUMN ledger.walks.account IS 'account whose history is walked';

COMMENT ON COLUMN ledger.walks.gap_id IS 'oldest of the gaps being walked';

COMMENT ON COLUMN ledger.walks.symbol IS 'market';

COMMENT ON COLUMN ledger.walks.kind IS 'allOrders or myTrades';

COMMENT ON COLUMN ledger.walks.start_ms IS 'everything before is applied: where the next question starts; ms since 1970 UTC';

COMMENT ON COLUMN ledger.walks.end_ms IS 'where the next question ends; null: open end; ms since 1970 UTC';

COMMENT ON COLUMN ledger.walks.asked_ms IS 'when the newest answer was asked for, venue clock; ms since 1970 UTC';

COMMENT ON COLUMN ledger.walks.done IS 'the newest answer was the last page';

COMMENT ON COLUMN ledger.walks.answers IS 'answers so far';

COMMENT ON COLUMN ledger.walks.rows IS 'rows so far';

CREATE TABLE ledger.suspects (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    order_id BIGINT NOT NULL,
    since_ms BIGINT NOT NULL,
    CONSTRAINT suspects_pkey PRIMARY KEY (account, symbol, order_id)
);

COMMENT ON TABLE ledger.suspects IS 'Orders that moved while a gap was healed: asked for once more when they have been quiet, then gone.';

COMMENT ON COLUMN ledger.suspects.account IS 'account that placed the order';

COMMENT ON COLUMN ledger.suspects.symbol IS 'market';

COMMENT ON COLUMN ledger.suspects.order_id IS 'the venue''s order id';

COMMENT ON COLUMN ledger.suspects.since_ms IS 'end of the gap in which fills of the order may have been lost, venue clock; ms since 1970 UTC';

CREATE TABLE ledger.markets (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    base TEXT NOT NULL,
    quote TEXT NOT NULL,
    source TEXT NOT NULL,
    CONSTRAINT markets_pkey PRIMARY KEY (account, symbol),
    CONSTRAINT markets_source_is_known CHECK (source IN ('venue', 'setting', 'inferred'))
);

COMMENT ON TABLE ledger.markets IS 'Which two assets a market trades; without it a fill moves no balance that could be explained.';

COMMENT ON COLUMN ledger.markets.account IS 'account';

COMMENT ON COLUMN ledger.markets.symbol IS 'market, base and quote asset concatenated';

COMMENT ON COLUMN ledger.markets.base IS 'asset that is bought or sold';

COMMENT ON COLUMN ledger.markets.quote IS 'asset it is paid in';

COMMENT ON COLUMN ledger.markets.source IS 'venue, setting or inferred: the only split of the symbol into two assets the account has held';

CREATE TABLE ledger.explained (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    base_ms BIGINT NOT NULL,
    base_total NUMERIC NOT NULL,
    through_ms BIGINT NOT NULL,
    total NUMERIC NOT NULL,
    effects NUMERIC NOT NULL,
    residual NUMERIC NOT NULL,
    vote NUMERIC,
    vote_at TIMESTAMP WITH TIME ZONE,
    seq BIGINT NOT NULL,
    CONSTRAINT explained_pkey PRIMARY KEY (account, asset),
    CONSTRAINT explained_base_total_is_real CHECK (base_total >= 0 AND base_total < 'Infinity'),
    CONSTRAINT explained_total_is_real CHECK (total >= 0 AND total < 'Infinity'),
    CONSTRAINT explained_effects_is_real CHECK (effects > '-Infinity' AND effects < 'Infinity'),
    CONSTRAINT explained_residual_is_real CHECK (residual > '-Infinity' AND residual < 'Infinity'),
    CONSTRAINT explained_vote_is_real CHECK (vote > '-Infinity' AND vote < 'Infinity')
);

COMMENT ON TABLE ledger.explained IS 'Per asset, how far its balance is explained by what the venue told; the rest is in discrepancies.';

COMMENT ON COLUMN ledger.explained.account IS 'account that holds the asset';

COMMENT ON COLUMN ledger.explained.asset IS 'asset';

COMMENT ON COLUMN ledger.explained.base_ms IS 'instant of the first balance truth: what was before explains itself; ms since 1970 UTC';

COMMENT ON COLUMN ledger.explained.base_total IS 'free + locked at that instant';

COMMENT ON COLUMN ledger.explained.through_ms IS 'instant up to which everything is explained; ms since 1970 UTC';

COMMENT ON COLUMN ledger.explained.total IS 'free + locked at that instant';

COMMENT ON COLUMN ledger.explained.effects IS 'what fills, fees and transfers between the two instants add up to';

COMMENT ON COLUMN ledger.explained.residual IS 'unexplained so far: total - base_total - effects, once seen twice';

COMMENT ON COLUMN ledger.explained.vote IS 'another residual seen once; a second look at least 5 s later decides; null: none';

COMMENT ON COLUMN ledger.explained.vote_at IS 'when it was seen, database clock';

COMMENT ON COLUMN ledger.explained.seq IS 'newest journal row that went into it';

CREATE TABLE ledger.leases (
    account TEXT NOT NULL,
    holder UUID NOT NULL,
    fence BIGINT NOT NULL,
    host TEXT NOT NULL,
    taken_at TIMESTAMP WITH TIME ZONE NOT NULL,
    until_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT leases_pkey PRIMARY KEY (account)
);

COMMENT ON TABLE ledger.leases IS 'Who mirrors the account now; all others stand by.';

COMMENT ON COLUMN ledger.leases.account IS 'account that is mirrored';

COMMENT ON COLUMN ledger.leases.holder IS 'the process that leads';

COMMENT ON COLUMN ledger.leases.fence IS 'its fencing number; a later leader has a larger one';

COMMENT ON COLUMN ledger.leases.host IS 'machine and process id of the leader, for people';

COMMENT ON COLUMN ledger.leases.taken_at IS 'when it took the lead, database clock';

COMMENT ON COLUMN ledger.leases.until_at IS 'until when nobody else may take it, unless it is renewed; database clock';
