COMMENT ON COLUMN ledger.inbox.raw IS 'exactly the bytes that came: a stream frame, a REST answer, or some rows of one';

COMMENT ON COLUMN ledger.inbox.question IS 'rest: method, path and parameters, without credentials; GET#0-49/1000: these rows of the answer';

DROP INDEX ledger.balances_seq_idx;
