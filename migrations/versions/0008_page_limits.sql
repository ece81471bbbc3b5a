CREATE TABLE ledger.page_limits (
    account text NOT NULL,
    kind text NOT NULL,
    rows integer NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT page_limits_rows_are_some CHECK (rows > 0),
    CONSTRAINT page_limits_pkey PRIMARY KEY (account, kind)
);
COMMENT ON TABLE ledger.page_limits IS 'How many rows a page is asked for where the venue refused the usual number.';
COMMENT ON COLUMN ledger.page_limits.account IS 'account that is asked for';
COMMENT ON COLUMN ledger.page_limits.kind IS 'allOrders or myTrades';
COMMENT ON COLUMN ledger.page_limits.rows IS 'rows a page is asked for: the venue refused to be asked for more';
COMMENT ON COLUMN ledger.page_limits.at IS 'when it last refused, database clock';

CREATE TABLE ledger.refused_markets (
    account text NOT NULL,
    symbol text NOT NULL,
    from_ms bigint NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    due_ms bigint NOT NULL,
    refused_seq bigint NOT NULL DEFAULT 0,
    CONSTRAINT refused_markets_pkey PRIMARY KEY (account, symbol)
);
COMMENT ON TABLE ledger.refused_markets IS 'Markets of which the venue refused to tell; asked again with growing pauses, gone once it tells.';
COMMENT ON COLUMN ledger.refused_markets.account IS 'account that is asked for';
COMMENT ON COLUMN ledger.refused_markets.symbol IS 'market of which the venue refused to tell';
COMMENT ON COLUMN ledger.refused_markets.from_ms IS 'start of what could not be asked for, venue clock; 0: the beginning; ms since 1970 UTC';
COMMENT ON COLUMN ledger.refused_markets.tries IS 'how often it was refused since the venue last told of it';
COMMENT ON COLUMN ledger.refused_markets.due_ms IS 'when it is asked again, venue clock; ms since 1970 UTC';
COMMENT ON COLUMN ledger.refused_markets.refused_seq IS 'newest journal row at the last refusal: what comes later may make the answer another one';

ALTER TABLE ledger.walks ADD COLUMN served_from_ms bigint;
COMMENT ON COLUMN ledger.walks.served_from_ms IS 'the venue refused to tell what is older, venue clock; null: it did not; ms since 1970 UTC';
