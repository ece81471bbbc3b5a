-- An account belongs to a venue once it has accepted the account's key: one of which nothing is kept belongs to none yet.
UPDATE ledger.accounts SET rest_origin = NULL, key_fingerprint = NULL WHERE head_seq = 0;
COMMENT ON COLUMN ledger.accounts.rest_origin IS 'scheme, host and port of the REST API this account belongs to; null: none has accepted its key yet';
-- A gap is there from its first second, so it may have no end yet.
-- squawk-ignore ban-drop-not-null
ALTER TABLE ledger.gaps ALTER COLUMN until_ms DROP NOT NULL;
COMMENT ON COLUMN ledger.gaps.until_ms IS 'when the stream was live again, venue clock; null: it is not yet; ms since 1970 UTC';
ALTER TABLE ledger.venue_state ADD COLUMN stream_error TEXT;
COMMENT ON COLUMN ledger.venue_state.stream_error IS 'why the stream could not be opened at the last attempt; null: it is open';
