ALTER TABLE ledger.orders ADD COLUMN terms_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger.orders ADD COLUMN terms_asked_ms bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ledger.orders.terms_ms IS 'venue time of the report that last gave quantity, price and client id, which an amendment may change, ms since 1970 UTC; 0: it gave none';
COMMENT ON COLUMN ledger.orders.terms_asked_ms IS 'when REST was asked for that report, ms since 1970 UTC; 0: the stream brought it';
CREATE TABLE ledger.order_amendments (
    account text NOT NULL,
    symbol text NOT NULL,
    order_id bigint NOT NULL,
    field text NOT NULL,
    value text NOT NULL,
    reported_ms bigint NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT order_amendments_field_is_known CHECK (field IN ('orig_qty', 'price', 'client_order_id')),
    CONSTRAINT order_amendments_pkey PRIMARY KEY (account, symbol, order_id, field, value)
);
CREATE INDEX order_amendments_seq_idx ON ledger.order_amendments (account, seq);
COMMENT ON TABLE ledger.order_amendments IS 'What quantity, price and client id of an order were before it was amended in place.';
COMMENT ON COLUMN ledger.order_amendments.account IS 'account that placed the order';
COMMENT ON COLUMN ledger.order_amendments.symbol IS 'market';
COMMENT ON COLUMN ledger.order_amendments.order_id IS 'the venue''s order id';
COMMENT ON COLUMN ledger.order_amendments.field IS 'orig_qty, price or client_order_id';
COMMENT ON COLUMN ledger.order_amendments.value IS 'what it was by an older report; amounts without needless zeros';
COMMENT ON COLUMN ledger.order_amendments.reported_ms IS 'newest venue time at which it was reported, 0: none was given; ms since 1970 UTC';
COMMENT ON COLUMN ledger.order_amendments.seq IS 'journal row that showed that it is not the newest';

ALTER TABLE ledger.transfers ADD COLUMN ordinal integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN ledger.transfers.ordinal IS 'which of the equal movements of one instant it is, counted within its session';
ALTER TABLE ledger.transfers DROP CONSTRAINT transfers_pkey;
ALTER TABLE ledger.transfers ADD CONSTRAINT transfers_pkey PRIMARY KEY (account, asset, at_ms, kind, amount, ordinal);
COMMENT ON COLUMN ledger.inbox.problem IS 'why it could not be understood, or a remark about fields left out of what was; null when all of it was';
