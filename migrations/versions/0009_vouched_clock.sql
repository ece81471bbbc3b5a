ALTER TABLE ledger.coverage ADD COLUMN through_at timestamptz;
ALTER TABLE ledger.venue_state ADD COLUMN key_at timestamptz;
COMMENT ON COLUMN ledger.coverage.through_at IS 'what the database clock said when live_through_ms moved last: as much time has passed since as this clock says, whatever the venue is said to show; null: not known';
COMMENT ON COLUMN ledger.venue_state.key_at IS 'key_ms by the database clock; null: not known';
UPDATE ledger.coverage SET through_at = beat_at WHERE symbol = '*'
