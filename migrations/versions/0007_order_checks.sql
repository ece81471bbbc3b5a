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
CREATE TABLE ledger.observations (
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    value TEXT NOT NULL,
    first_ms BIGINT NOT NULL,
    seq BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT observations_pkey PRIMARY KEY (account, kind, subject)
);
COMMENT ON TABLE ledger.observations IS 'What was seen once and counts only when it is seen again, some time later (see ledger.observe).';
COMMENT ON COLUMN ledger.observations.account IS 'account it was seen of';
COMMENT ON COLUMN ledger.observations.kind IS 'snapshot: a balance that contradicts newer-looking ones of the stream; residual: an unexplained part of a balance; lock: one of a locked amount';
COMMENT ON COLUMN ledger.observations.subject IS 'asset';
COMMENT ON COLUMN ledger.observations.value IS 'what was seen, as text: another value is another observation';
COMMENT ON COLUMN ledger.observations.first_ms IS 'when it was seen first, by the clock of who looked; ms since 1970 UTC';
COMMENT ON COLUMN ledger.observations.seq IS 'newest journal row when it was seen first; 0 where that does not matter';
INSERT INTO ledger.observations (account, kind, subject, value, first_ms, seq)
SELECT account, 'snapshot', asset, trim_scale(free) || ' ' || trim_scale(locked), asked_ms, asked_seq FROM ledger.snapshot_votes;
INSERT INTO ledger.observations (account, kind, subject, value, first_ms)
SELECT account, 'residual', asset, trim_scale(vote)::text, floor(extract(epoch FROM vote_at) * 1000)::bigint
FROM ledger.explained WHERE vote IS NOT NULL AND vote_at IS NOT NULL;
DROP TABLE ledger.snapshot_votes;
ALTER TABLE ledger.explained
    DROP CONSTRAINT explained_amounts_are_real,
    DROP COLUMN vote,
    DROP COLUMN vote_at,
    ADD CONSTRAINT explained_amounts_are_real CHECK (greatest(base_total, total, effects, residual) < 'Infinity' AND least(base_total, total) >= 0 AND least(effects, residual) > '-Infinity');
