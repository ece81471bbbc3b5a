-- Orders that were filled with another quantity than they are known to have been for: few, and looked for often.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX orders_differing_idx ON ledger.orders (account, symbol, order_id)
    WHERE status = 'FILLED' AND orig_qty > 0 AND orig_qty <> greatest(venue_executed_qty, fills_qty);
