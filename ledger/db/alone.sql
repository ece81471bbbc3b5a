-- An order told once in its call, as nearly all are on a quiet account, takes a shorter way to the same rows.
--
-- The statements of ledger.apply fold any number of frames. For one frame, starting them costs more than all that is
-- written. Each function here does the plain case of one of them: nothing known before, nothing to pair, nothing odd.
-- What is not plain it leaves, and says so, to the statement for all cases. Which way was taken shows in no row.

DROP FUNCTION IF EXISTS ledger.land_alone;
-- Write a fill that no row knows and that no other can pair with. Returns what it adds to its order's sums; null: left.
CREATE FUNCTION ledger.land_alone(p_account text, p_fill ledger.told_fill, p_head bigint) RETURNS ledger.fills_sum
LANGUAGE plpgsql AS $$
DECLARE
    v_sum ledger.fills_sum;
BEGIN
    IF p_fill.ordinal > 1 THEN
        RETURN NULL;   -- twin or double? Not for this place to say.
    END IF;
    INSERT INTO ledger.fills (
        account, first_seq, first_index, symbol, order_id, trade_id, stream_key, stream_ordinal, stream_ms,
        side, price, qty, quote_qty, quote_derived, fee, fee_asset, is_maker, executed_ms, source, state, seq
    )
    SELECT p_account, p_head + p_fill.frame, p_fill.index, p_fill.symbol, p_fill.order_id, p_fill.trade_id, p_fill.key,
           p_fill.ordinal, CASE WHEN p_fill.key IS NOT NULL THEN p_fill.ms END, p_fill.side, p_fill.price::numeric,
           p_fill.qty::numeric,
           coalesce(p_fill.quote::numeric, p_fill.price::numeric * p_fill.qty::numeric), p_fill.quote IS NULL,
           p_fill.fee::numeric, p_fill.fee_asset, p_fill.maker, p_fill.ms, 'stream', 'confirmed', p_head + p_fill.frame
    WHERE CASE WHEN p_fill.trade_id IS NULL THEN (
        SELECT f.trade_id FROM ledger.fills f WHERE f.account = p_account AND f.symbol = p_fill.symbol
        AND f.order_id = p_fill.order_id AND f.trade_id IS NOT NULL ORDER BY f.trade_id LIMIT 1
    ) IS NULL ELSE (
        SELECT f.stream_key FROM ledger.fills f WHERE f.account = p_account AND f.symbol = p_fill.symbol
        AND f.order_id = p_fill.order_id AND f.stream_key IS NOT NULL AND f.state <> 'voided'
        ORDER BY f.stream_key, f.stream_ordinal LIMIT 1
    ) IS NULL END
    ON CONFLICT DO NOTHING
    RETURNING symbol, order_id, qty, quote_qty, p_fill.frame INTO v_sum;
    RETURN v_sum;
END
$$;

DROP FUNCTION IF EXISTS ledger.move_alone;
-- Write an order that is new or that this frame moves on, with the p_sum of a fill that came along. False: left, since the
-- frame is not the newest word or contradicts what is known.
CREATE FUNCTION ledger.move_alone(
    p_account text, p_order ledger.told_order, p_sum ledger.fills_sum, p_head bigint
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.orders AS t (
        account, symbol, order_id, client_order_id, side, type, time_in_force, price, orig_qty,
        venue_executed_qty, venue_executed_quote, status, status_rank, status_decided, status_executed,
        status_ms, created_ms, updated_ms, fills_qty, fills_quote, told_seq, wounded, terms_ms, terms_asked_ms, seq
    ) VALUES (
        p_account, p_order.symbol, p_order.order_id, p_order.client, p_order.side, p_order.type, p_order.tif,
        p_order.price::numeric, p_order.orig::numeric, p_order.executed::numeric, p_order.quote::numeric,
        nullif(p_order.status, ''), ledger.status_rank(p_order.status),
        coalesce(p_order.decides AND ledger.status_rank(p_order.status) = 3, false), coalesce(p_order.executed::numeric, 0),
        coalesce(p_order.updated, 0), p_order.created, p_order.updated, coalesce(p_sum.qty, 0), coalesce(p_sum.quote, 0),
        CASE WHEN p_order.executed IS NOT NULL THEN p_head + p_order.frame END,
        coalesce(p_order.executed::numeric > coalesce(p_sum.qty, 0), false),
        CASE WHEN p_order.orig IS NULL AND p_order.price IS NULL AND p_order.client IS NULL THEN 0
             ELSE coalesce(p_order.updated, 0) END, 0, p_head + p_order.frame
    )
    ON CONFLICT (account, symbol, order_id) DO UPDATE SET
        client_order_id = coalesce(t.client_order_id, excluded.client_order_id), side = coalesce(t.side, excluded.side),
        type = coalesce(t.type, excluded.type), time_in_force = coalesce(t.time_in_force, excluded.time_in_force),
        price = coalesce(t.price, excluded.price), orig_qty = coalesce(t.orig_qty, excluded.orig_qty),
        venue_executed_qty = greatest(t.venue_executed_qty, excluded.venue_executed_qty),
        venue_executed_quote = greatest(t.venue_executed_quote, excluded.venue_executed_quote),
        status = excluded.status, status_rank = excluded.status_rank, status_decided = excluded.status_decided,
        status_executed = excluded.status_executed, status_ms = excluded.status_ms,
        created_ms = least(t.created_ms, excluded.created_ms), updated_ms = greatest(t.updated_ms, excluded.updated_ms),
        fills_qty = t.fills_qty + excluded.fills_qty, fills_quote = t.fills_quote + excluded.fills_quote,
        told_seq = coalesce(excluded.told_seq, t.told_seq),
        wounded = CASE WHEN excluded.told_seq IS NULL THEN t.wounded
            ELSE greatest(t.venue_executed_qty, excluded.venue_executed_qty) > t.fills_qty + excluded.fills_qty END,
        terms_ms = greatest(t.terms_ms, excluded.terms_ms),
        terms_asked_ms = CASE WHEN excluded.terms_ms > t.terms_ms THEN 0 ELSE t.terms_asked_ms END,
        seq = excluded.seq
    WHERE t.status_rank < 3
      AND (excluded.status_rank, excluded.status_decided, excluded.status_executed, excluded.status_ms,
           ledger.status_tie(excluded.status))
        > (t.status_rank, t.status_decided, t.status_executed, t.status_ms, ledger.status_tie(t.status))
      AND (t.status IS DISTINCT FROM excluded.status OR excluded.terms_ms > 0 OR p_sum.qty IS NOT NULL)
      AND (t.side <> excluded.side OR t.type <> excluded.type OR t.time_in_force <> excluded.time_in_force
           OR t.client_order_id <> excluded.client_order_id OR t.price <> excluded.price
           OR t.orig_qty <> excluded.orig_qty) IS NOT TRUE;
    RETURN FOUND;
END
$$;
