ALTER TABLE ledger.venue_state ADD COLUMN paused_error text;
ALTER TABLE ledger.venue_state ADD COLUMN paused_since timestamptz;
COMMENT ON COLUMN ledger.venue_state.paused_error IS 'why the database refuses to write for this account; null: it does not';
COMMENT ON COLUMN ledger.venue_state.paused_since IS 'since when, database clock; null: it does not';
