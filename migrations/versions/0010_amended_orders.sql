ALTER TABLE ledger.transfers ADD COLUMN ordinal integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN ledger.transfers.ordinal IS 'which of the equal movements of one instant it is, counted within its session';
ALTER TABLE ledger.transfers DROP CONSTRAINT transfers_pkey;
ALTER TABLE ledger.transfers ADD CONSTRAINT transfers_pkey PRIMARY KEY (account, asset, at_ms, kind, amount, ordinal);
COMMENT ON COLUMN ledger.inbox.problem IS 'why it could not be understood, or a remark about fields left out of what was; null when all of it was';
