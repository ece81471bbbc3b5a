-- An account belongs to a venue once it has accepted the account's key: one of which nothing is kept belongs to none yet.
UPDATE ledger.accounts SET rest_origin = NULL, key_fingerprint = NULL WHERE head_seq = 0;
COMMENT ON COLUMN ledger.accounts.rest_origin IS 'scheme, host and port of the REST API this account belongs to; null: none has accepted its key yet';
