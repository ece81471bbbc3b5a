COMMENT ON COLUMN ledger.inbox.raw IS 'exactly the bytes that came: a stream frame, a REST answer, or some rows of one';

COMMENT ON COLUMN ledger.inbox.question IS 'rest: method, path and parameters, without credentials; GET#0-24/1000: these rows of the answer';

DROP INDEX ledger.balances_seq_idx;

-- One check of all amounts a table: each check is read from its text again by every statement that writes.
ALTER TABLE ledger.orders
    DROP CONSTRAINT orders_price_is_real,
    DROP CONSTRAINT orders_orig_qty_is_real,
    DROP CONSTRAINT orders_venue_executed_qty_is_real,
    DROP CONSTRAINT orders_venue_executed_quote_is_real,
    DROP CONSTRAINT orders_status_executed_is_real,
    DROP CONSTRAINT orders_fills_qty_is_real,
    DROP CONSTRAINT orders_fills_quote_is_real,
    ADD CONSTRAINT orders_amounts_are_real CHECK (greatest(price, orig_qty, venue_executed_qty, venue_executed_quote, status_executed, fills_qty, fills_quote) < 'Infinity' AND least(price, orig_qty, venue_executed_qty, venue_executed_quote, status_executed, fills_qty, fills_quote) >= 0);

ALTER TABLE ledger.fills
    DROP CONSTRAINT fills_price_is_real,
    DROP CONSTRAINT fills_qty_is_real,
    DROP CONSTRAINT fills_quote_qty_is_real,
    DROP CONSTRAINT fills_doubt_executed_is_real,
    DROP CONSTRAINT fills_fee_is_real,
    DROP CONSTRAINT fills_qty_is_positive,
    DROP CONSTRAINT fills_identity_is_known,
    DROP CONSTRAINT fills_stream_identity_is_whole,
    ADD CONSTRAINT fills_amounts_are_real CHECK (greatest(price, quote_qty, doubt_executed, qty, fee) < 'Infinity' AND least(price, quote_qty, doubt_executed) >= 0 AND qty > 0 AND fee > '-Infinity'),
    ADD CONSTRAINT fills_identity_is_whole CHECK ((trade_id IS NOT NULL OR stream_key IS NOT NULL) AND (stream_key IS NULL) = (stream_ordinal IS NULL) AND (stream_key IS NULL) = (stream_ms IS NULL));

ALTER TABLE ledger.balances
    DROP CONSTRAINT balances_free_is_real,
    DROP CONSTRAINT balances_locked_is_real,
    ADD CONSTRAINT balances_amounts_are_real CHECK (greatest(free, locked) < 'Infinity' AND least(free, locked) >= 0);

ALTER TABLE ledger.balance_history
    DROP CONSTRAINT balance_history_free_is_real,
    DROP CONSTRAINT balance_history_locked_is_real,
    ADD CONSTRAINT balance_history_amounts_are_real CHECK (greatest(free, locked) < 'Infinity' AND least(free, locked) >= 0);

ALTER TABLE ledger.snapshot_votes
    DROP CONSTRAINT snapshot_votes_free_is_real,
    DROP CONSTRAINT snapshot_votes_locked_is_real,
    ADD CONSTRAINT snapshot_votes_amounts_are_real CHECK (greatest(free, locked) < 'Infinity' AND least(free, locked) >= 0);

ALTER TABLE ledger.transfers
    DROP CONSTRAINT transfers_amount_is_real,
    ADD CONSTRAINT transfers_amounts_are_real CHECK (amount < 'Infinity' AND amount > '-Infinity');

ALTER TABLE ledger.discrepancies
    DROP CONSTRAINT discrepancies_residual_is_real,
    ADD CONSTRAINT discrepancies_amounts_are_real CHECK (residual < 'Infinity' AND residual > '-Infinity');

ALTER TABLE ledger.explained
    DROP CONSTRAINT explained_base_total_is_real,
    DROP CONSTRAINT explained_total_is_real,
    DROP CONSTRAINT explained_effects_is_real,
    DROP CONSTRAINT explained_residual_is_real,
    DROP CONSTRAINT explained_vote_is_real,
    ADD CONSTRAINT explained_amounts_are_real CHECK (greatest(base_total, total, effects, residual, vote) < 'Infinity' AND least(base_total, total) >= 0 AND least(effects, residual, vote) > '-Infinity');
