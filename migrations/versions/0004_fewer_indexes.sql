-- A call is recognised by its batch, not by each of its rows, and the fills of an order are found by the key of its
-- trades: two indexes fewer that every frame and every fill has to be entered in.
ALTER TABLE ledger.batches
    ADD COLUMN session_id uuid,
    ADD COLUMN frame_no bigint,
    ADD CONSTRAINT batches_session_frame_key UNIQUE (account, session_id, frame_no);

COMMENT ON COLUMN ledger.batches.session_id IS 'session of the call; null: written by a release that told calls apart by their rows';

COMMENT ON COLUMN ledger.batches.frame_no IS 'number of its first frame within the session';

ALTER TABLE ledger.inbox DROP CONSTRAINT inbox_session_frame_key;

DROP INDEX ledger.fills_trade_key;

CREATE UNIQUE INDEX fills_trade_key ON ledger.fills (account, symbol, order_id, trade_id);

DROP INDEX ledger.fills_order_idx;
