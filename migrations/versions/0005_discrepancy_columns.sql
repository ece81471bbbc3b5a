ALTER TABLE ledger.discrepancies ADD COLUMN symbol text;
ALTER TABLE ledger.discrepancies ADD COLUMN order_id bigint;
ALTER TABLE ledger.discrepancies ADD COLUMN trade_id bigint;
ALTER TABLE ledger.discrepancies ADD COLUMN asset text;
ALTER TABLE ledger.discrepancies ADD COLUMN uncovered_from_ms bigint;
COMMENT ON COLUMN ledger.discrepancies.symbol IS 'market it is about; null: none, or not known';
COMMENT ON COLUMN ledger.discrepancies.order_id IS 'order it is about; null: none';
COMMENT ON COLUMN ledger.discrepancies.trade_id IS 'trade it is about; null: none, or one without an id';
COMMENT ON COLUMN ledger.discrepancies.asset IS 'asset it is about; null: none';
COMMENT ON COLUMN ledger.discrepancies.uncovered_from_ms IS 'while it is open, coverage of its market (of all markets where symbol is null) ends at this instant of the venue clock, 0: nothing is covered; null: coverage is not touched; ms since 1970 UTC';

-- A symbol may hold a slash, so the parts are told apart from the end.
UPDATE ledger.discrepancies d SET symbol = p.part[1], order_id = p.part[2]::bigint
FROM (SELECT x.account, x.discrepancy_id, regexp_match(x.subject, '^(.+)/(\d{1,18})$') AS part FROM ledger.discrepancies x
      WHERE x.kind IN ('terminal_conflict', 'order_shrank', 'order_unknown')) p
WHERE d.account = p.account AND d.discrepancy_id = p.discrepancy_id AND p.part IS NOT NULL;
UPDATE ledger.discrepancies d SET symbol = p.part[1], order_id = p.part[2]::bigint
FROM (SELECT x.account, x.discrepancy_id, regexp_match(x.subject, '^(.+)/(\d{1,18})/[^/]+$') AS part FROM ledger.discrepancies x
      WHERE x.kind IN ('order_conflict', 'fill_conflict', 'double_frame')) p
WHERE d.account = p.account AND d.discrepancy_id = p.discrepancy_id AND p.part IS NOT NULL;
UPDATE ledger.discrepancies SET symbol = subject WHERE kind = 'symbol_refused';
UPDATE ledger.discrepancies SET asset = subject WHERE kind IN ('unexplained_balance', 'unexplained_lock', 'unjudged_balance');

CREATE INDEX discrepancies_uncovered_idx ON ledger.discrepancies (account, symbol)
    WHERE resolved_at IS NULL AND uncovered_from_ms IS NOT NULL;
