CREATE TABLE ledger.order_checks (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    order_id BIGINT NOT NULL,
    reason TEXT NOT NULL,
    due_ms BIGINT,
    tries INTEGER DEFAULT 0 NOT NULL,
    ends_coverage BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT order_checks_pkey PRIMARY KEY (account, symbol, order_id, reason)
);
COMMENT ON TABLE ledger.order_checks IS 'Orders that must be asked for again at REST: why, when, and how often it was tried; gone once an answer settles it.';
COMMENT ON COLUMN ledger.order_checks.account IS 'account that placed the order';
COMMENT ON COLUMN ledger.order_checks.symbol IS 'market';
COMMENT ON COLUMN ledger.order_checks.order_id IS 'the venue''s order id';
COMMENT ON COLUMN ledger.order_checks.reason IS 'moved_in_gap, provisional_fill, missing_fills, unknown_to_venue, unknown_status or another; absent: the venue has no such order, which agrees with what is known';
COMMENT ON COLUMN ledger.order_checks.due_ms IS 'when it is asked for next, venue clock; null: not again, the answer stands; ms since 1970 UTC';
COMMENT ON COLUMN ledger.order_checks.tries IS 'how often it was asked in vain';
COMMENT ON COLUMN ledger.order_checks.ends_coverage IS 'true once a discrepancy was opened that ends coverage because of it';
CREATE INDEX order_checks_due_idx ON ledger.order_checks (account, due_ms);
INSERT INTO ledger.order_checks (account, symbol, order_id, reason, due_ms)
SELECT account, symbol, order_id, 'moved_in_gap', since_ms FROM ledger.suspects;
DROP TABLE ledger.suspects;
