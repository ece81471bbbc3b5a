-- Which orders must be asked for again at REST. One table says so (ledger.order_checks); what the orders and fills
-- themselves show is entered here, and taken out once they show it no more.

DROP FUNCTION IF EXISTS ledger.find_order_checks;
-- Enter the orders of which the rows themselves show that they must be asked for: fills that may be doubled frames, fills known to be
-- missing on an order that has moved on since, a status nobody knows, an open discrepancy that says that the venue would
-- not tell of it, or not so that it could be read. Take out those that show it no more.
-- p_lag_ms: REST may trail the stream by this much, so what moved is due so much later.
-- No plan may read the whole table: the planner takes orders that differ from what they were for to be most of them.
CREATE FUNCTION ledger.find_order_checks(p_account text, p_lag_ms bigint) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM ledger.order_checks c
    WHERE c.account = p_account AND CASE
        -- The venue rightly has none of it: whatever the rows show, there is nobody to ask.
        WHEN c.reason <> 'absent' AND EXISTS (
            SELECT FROM ledger.order_checks x WHERE x.account = p_account AND x.symbol = c.symbol
            AND x.order_id = c.order_id AND x.reason = 'absent') THEN true
        ELSE CASE c.reason
        WHEN 'provisional_fill' THEN NOT EXISTS (
            SELECT FROM ledger.fills f WHERE f.account = p_account AND f.symbol = c.symbol AND f.order_id = c.order_id
            AND f.state = 'provisional')
        WHEN 'missing_fills' THEN NOT EXISTS (
            SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = c.symbol AND o.order_id = c.order_id
            AND o.wounded AND o.seq > o.told_seq)
        WHEN 'quantity_differs' THEN NOT EXISTS (
            SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = c.symbol AND o.order_id = c.order_id
            AND o.status = 'FILLED' AND o.orig_qty > 0 AND o.orig_qty <> greatest(o.venue_executed_qty, o.fills_qty))
        WHEN 'unknown_status' THEN NOT EXISTS (
            SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = c.symbol AND o.order_id = c.order_id
            AND o.status_rank < 3 AND NOT ledger.status_is_known(o.status))
        WHEN 'refused' THEN NOT EXISTS (
            SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.resolved_at IS NULL
            AND d.kind IN ('rest_row', 'order_refused') AND d.symbol = c.symbol AND d.order_id = c.order_id)
        -- Executed after all: the venue's answer was of before.
        WHEN 'absent' THEN EXISTS (
            SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = c.symbol AND o.order_id = c.order_id
            AND greatest(o.venue_executed_qty, o.fills_qty) > 0)
    END END;
    INSERT INTO ledger.order_checks (account, symbol, order_id, reason, due_ms)
    SELECT p_account, x.symbol, x.order_id, x.reason, coalesce(x.moved_ms, 0) + p_lag_ms
    FROM (
        SELECT f.symbol, f.order_id, 'provisional_fill' AS reason, max(greatest(f.stream_ms, o.updated_ms)) AS moved_ms
        FROM ledger.fills f
        LEFT JOIN ledger.orders o ON o.account = f.account AND o.symbol = f.symbol AND o.order_id = f.order_id
        WHERE f.account = p_account AND f.state = 'provisional' GROUP BY f.symbol, f.order_id
        UNION ALL
        SELECT o.symbol, o.order_id, 'missing_fills', o.updated_ms FROM ledger.orders o
        WHERE o.account = p_account AND o.wounded AND o.seq > o.told_seq
        UNION ALL
        SELECT o.symbol, o.order_id, 'quantity_differs', o.updated_ms FROM ledger.orders o
        WHERE o.account = p_account AND o.status = 'FILLED' AND o.orig_qty > 0
          AND o.orig_qty <> greatest(o.venue_executed_qty, o.fills_qty)
        UNION ALL
        SELECT o.symbol, o.order_id, 'unknown_status', o.updated_ms FROM ledger.orders o
        WHERE o.account = p_account AND o.status_rank < 3 AND NOT ledger.status_is_known(o.status)
        UNION
        SELECT d.symbol, d.order_id, 'refused', NULL FROM ledger.discrepancies d
        WHERE d.account = p_account AND d.resolved_at IS NULL AND d.kind IN ('rest_row', 'order_refused')
          AND d.symbol IS NOT NULL AND d.order_id IS NOT NULL
    ) x
    WHERE NOT EXISTS (SELECT FROM ledger.order_checks c WHERE c.account = p_account AND c.symbol = x.symbol
                      AND c.order_id = x.order_id AND c.reason IN (x.reason, 'absent'))
    ORDER BY x.symbol, x.order_id, x.reason LIMIT 10000
    ON CONFLICT DO NOTHING;
END
$$;

-- These orders must be asked for; one that is entered already keeps its time. p_due_ms null: never again.
CREATE OR REPLACE FUNCTION ledger.add_order_checks(
    p_account text, p_symbol text[], p_order_id bigint[], p_reason text, p_due_ms bigint, p_tries integer,
    p_ends_coverage boolean
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.order_checks AS c (account, symbol, order_id, reason, due_ms, tries, ends_coverage)
    SELECT p_account, u.symbol, u.order_id, p_reason, p_due_ms, p_tries, p_ends_coverage
    FROM unnest(p_symbol, p_order_id) AS u(symbol, order_id)
    ORDER BY u.symbol, u.order_id
    ON CONFLICT (account, symbol, order_id, reason) DO UPDATE
        SET ends_coverage = c.ends_coverage OR excluded.ends_coverage
$$;

-- The order was asked for in vain, or in part: once more at p_due_ms.
CREATE OR REPLACE FUNCTION ledger.put_off_order_checks(
    p_account text, p_symbol text, p_order_id bigint, p_reasons text[], p_due_ms bigint
) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.order_checks SET due_ms = p_due_ms, tries = tries + 1
    WHERE account = p_account AND symbol = p_symbol AND order_id = p_order_id AND reason = ANY (p_reasons)
$$;

-- An answer settles these reasons, unless the order moved after p_quiet_ms, which the answer may not know of.
CREATE OR REPLACE FUNCTION ledger.end_order_checks(
    p_account text, p_symbol text, p_order_id bigint, p_reasons text[], p_quiet_ms bigint
) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM ledger.order_checks c
    WHERE c.account = p_account AND c.symbol = p_symbol AND c.order_id = p_order_id AND c.reason = ANY (p_reasons)
      AND NOT EXISTS (SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = p_symbol
                      AND o.order_id = p_order_id AND o.updated_ms > p_quiet_ms)
$$;
