-- Explained balances: between two balance truths an asset moves by its fills, fees and transfers, or it is told.
--
-- Judged is at a cut: an instant up to which everything is known. What is not explained there is never absorbed; it is
-- seen twice before it is told. ledger.explain moves its own bookkeeping (ledger.explained) and returns what is to be
-- told; the caller writes that through ledger.apply, so that every discrepancy has its journal row.

DROP FUNCTION IF EXISTS ledger.movements;
-- What moves a balance, one row per asset: both legs of a confirmed fill, its fee, and transfers. The asset is null
-- where the market of a fill is not known, the amount where its side is not. Simple enough to be planned with its caller.
CREATE FUNCTION ledger.movements(p_account text)
RETURNS TABLE (asset text, at_ms bigint, amount numeric, symbol text, seq bigint, first_seq bigint)
LANGUAGE sql STABLE AS $$
    SELECT leg.asset, f.executed_ms, leg.amount, f.symbol, f.seq, f.first_seq
    FROM ledger.fills f
    LEFT JOIN ledger.markets m ON m.account = f.account AND m.symbol = f.symbol
    CROSS JOIN LATERAL (VALUES
        ('base', m.base, CASE f.side WHEN 'BUY' THEN f.qty WHEN 'SELL' THEN -f.qty END),
        ('quote', m.quote, CASE f.side WHEN 'BUY' THEN -f.quote_qty WHEN 'SELL' THEN f.quote_qty END),
        ('fee', f.fee_asset, -f.fee)
    ) AS leg(part, asset, amount)
    WHERE f.account = p_account AND f.state = 'confirmed'
      AND (leg.part <> 'fee' OR (leg.asset IS NOT NULL AND leg.amount IS NOT NULL))
    UNION ALL
    SELECT t.asset, t.at_ms, t.amount, NULL, t.seq, t.seq FROM ledger.transfers t WHERE t.account = p_account
$$;

-- The newest balance truth of an asset at an instant; no row when nothing was known yet.
CREATE OR REPLACE FUNCTION ledger.truth_at(p_account text, p_asset text, p_at_ms bigint)
RETURNS TABLE (free numeric, locked numeric, total numeric, as_of_ms bigint, seq bigint)
LANGUAGE sql STABLE AS $$
    SELECT h.free, h.locked, h.free + h.locked, h.as_of_ms, h.seq FROM ledger.balance_history h
    WHERE h.account = p_account AND h.asset = p_asset AND h.as_of_ms <= p_at_ms
    ORDER BY h.as_of_ms DESC, h.k DESC, h.free DESC, h.locked DESC LIMIT 1
$$;

CREATE OR REPLACE FUNCTION ledger_v1.ms(p_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT floor(extract(epoch FROM p_at) * 1000)::bigint
$$;
COMMENT ON FUNCTION ledger_v1.ms IS 'A time as the columns named _ms tell it: ms since 1970 UTC.';

CREATE OR REPLACE FUNCTION ledger_v1.balance_at(p_account text, p_asset text, p_at_ms bigint)
RETURNS TABLE (free numeric, locked numeric, total numeric, as_of timestamptz, as_of_ms bigint)
LANGUAGE sql STABLE AS $$
    -- Through a view, so that a reader needs no right on the table, and the planner sees through all of it.
    SELECT h.free, h.locked, h.free + h.locked, to_timestamp(h.as_of_ms / 1000.0), h.as_of_ms
    FROM ledger_read.balance_history h
    WHERE h.account = p_account AND h.asset = p_asset AND h.as_of_ms <= p_at_ms
    ORDER BY h.as_of_ms DESC, h.k DESC, h.free DESC, h.locked DESC LIMIT 1
$$;
COMMENT ON FUNCTION ledger_v1.balance_at(text, text, bigint)
    IS 'What an account held of an asset at an instant (ms since 1970 UTC): the newest balance the venue told by then; no row: nothing was told yet.';

CREATE OR REPLACE FUNCTION ledger_v1.balance_at(p_account text, p_asset text, p_at timestamptz)
RETURNS TABLE (free numeric, locked numeric, total numeric, as_of timestamptz, as_of_ms bigint)
LANGUAGE sql STABLE AS $$
    SELECT * FROM ledger_v1.balance_at(p_account, p_asset, ledger_v1.ms(p_at))
$$;
COMMENT ON FUNCTION ledger_v1.balance_at(text, text, timestamptz)
    IS 'What an account held of an asset at an instant: the newest balance the venue told by then; no row: nothing was told yet.';

CREATE OR REPLACE FUNCTION ledger.utc(p_ms bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT to_char(to_timestamp(p_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS "UTC"')
$$;

-- When the venue told what an order executed, by its clock in ms; null where that is not known. Not every venue tells when
-- the order changed, so the last of that may have been executed at any time until then.
CREATE OR REPLACE FUNCTION ledger.executed_told_ms(p_account text, p_told_seq bigint, p_seq bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT i.venue_ms FROM ledger.inbox i WHERE i.account = p_account AND i.seq = coalesce(nullif(p_told_seq, 0), p_seq)
$$;

DROP FUNCTION IF EXISTS ledger.holes;
-- Orders touching an asset, made by p_cut_ms and changed after p_after_seq, of which the venue executed more than fills
-- tell. What the missing part may have moved lies between low and high; exact is what it moved where no fee was taken in
-- this asset. is_whole: all of it is missing since p_through_ms; an older order may have lost executions before. is_late:
-- some of it was told later than p_cut_ms, so it may have been executed later, and its fills may be on their way.
CREATE FUNCTION ledger.holes(p_account text, p_asset text, p_after_seq bigint, p_through_ms bigint, p_cut_ms bigint)
RETURNS TABLE (names text, low numeric, high numeric, exact numeric, is_whole boolean, is_late boolean)
LANGUAGE sql STABLE AS $$
    WITH missing AS (
        SELECT concat_ws('/', o.symbol, o.order_id) AS name, o.side, m.base = p_asset AS is_base,
               o.venue_executed_qty - o.fills_qty AS qty,
               -- A buy never costs more than its limit, and a fee is small.
               coalesce(o.venue_executed_quote - o.fills_quote,
                        CASE WHEN o.side = 'BUY' AND o.price > 0
                             THEN o.price * (o.venue_executed_qty - o.fills_qty) END) AS quote_most,
               o.venue_executed_quote - o.fills_quote AS quote, coalesce(o.created_ms > p_through_ms, false) AS is_new,
               coalesce(ledger.executed_told_ms(o.account, o.told_seq, o.seq) > p_cut_ms, false) AS is_late
        FROM ledger.orders o JOIN ledger.markets m ON m.account = o.account AND m.symbol = o.symbol
        WHERE o.account = p_account AND o.seq > p_after_seq AND o.venue_executed_qty > o.fills_qty
          AND p_asset IN (m.base, m.quote) AND coalesce(o.created_ms <= p_cut_ms, true)
    ), moved AS (
        SELECT x.name, x.side, CASE WHEN x.is_base THEN x.qty ELSE x.quote END AS told,
               CASE WHEN x.is_base THEN x.qty ELSE coalesce(x.quote_most * 1.01, 'Infinity') END AS most,
               (x.side = 'BUY') = x.is_base AS is_credit, x.is_new, x.is_late
        FROM missing x
    )
    SELECT string_agg(v.name, ', ' ORDER BY v.name),
           sum(CASE WHEN v.is_credit THEN 0 ELSE -v.most END),
           sum(CASE WHEN v.is_credit IS FALSE THEN 0 ELSE v.most END),
           CASE WHEN bool_and(v.told IS NOT NULL AND v.side IS NOT NULL)
                THEN sum(CASE WHEN v.is_credit THEN v.told ELSE -v.told END) END,
           bool_and(v.is_new), bool_or(v.is_late)
    FROM moved v HAVING count(*) > 0
$$;

DROP FUNCTION IF EXISTS ledger.steps;
-- At which balance truths after p_through_ms the unexplained part went from p_from to p_to. An excursion that came back
-- (a truth and its fill told a moment apart) leaves nothing.
CREATE FUNCTION ledger.steps(
    p_account text, p_asset text, p_through_ms bigint, p_cut_ms bigint, p_base_total numeric, p_effects numeric,
    p_from numeric, p_to numeric
) RETURNS TABLE (amount numeric, at_ms bigint, total numeric, seq bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    v_levels numeric[] := ARRAY[p_from];
    v_at bigint[] := ARRAY[p_through_ms];
    v_totals numeric[] := ARRAY[NULL::numeric];
    v_seqs bigint[] := ARRAY[NULL::bigint];
    v_level numeric;
    v_same integer;
    r record;
BEGIN
    FOR r IN
        WITH moved AS (
            SELECT m.at_ms, sum(m.amount) AS amount FROM ledger.movements(p_account) m
            WHERE m.asset = p_asset AND m.at_ms > p_through_ms AND m.at_ms <= p_cut_ms
            GROUP BY m.at_ms
        ), truths AS (
            SELECT DISTINCT ON (h.as_of_ms) h.as_of_ms AS at_ms, h.free + h.locked AS total, h.seq
            FROM ledger.balance_history h
            WHERE h.account = p_account AND h.asset = p_asset AND h.as_of_ms > p_through_ms AND h.as_of_ms <= p_cut_ms
            ORDER BY h.as_of_ms, h.k DESC, h.free DESC, h.locked DESC
        ), running AS (
            SELECT coalesce(t.at_ms, m.at_ms) AS at_ms, t.total, t.seq,
                   p_effects - coalesce(sum(m.amount) OVER (), 0)
                   + coalesce(sum(m.amount) OVER (ORDER BY coalesce(t.at_ms, m.at_ms)), 0) AS effects
            FROM truths t FULL JOIN moved m ON m.at_ms = t.at_ms
        )
        SELECT * FROM (
            SELECT x.at_ms, x.total, x.seq, x.total - p_base_total - x.effects AS level
            FROM running x WHERE x.total IS NOT NULL
            UNION ALL
            -- How it ends, whatever the truths on the way say; an older truth speaks for the first instant in question.
            SELECT greatest(t.as_of_ms, p_through_ms + 1), t.total, t.seq, p_to
            FROM ledger.truth_at(p_account, p_asset, p_cut_ms) t
        ) x ORDER BY 1, x.level = p_to
    LOOP
        v_same := array_position(v_levels, r.level);
        IF v_same IS NOT NULL THEN
            v_levels := v_levels[1 : v_same];
            v_at := v_at[1 : v_same];
            v_totals := v_totals[1 : v_same];
            v_seqs := v_seqs[1 : v_same];
        ELSE
            v_levels := v_levels || r.level;
            v_at := v_at || r.at_ms;
            v_totals := v_totals || r.total;
            v_seqs := v_seqs || r.seq;
        END IF;
    END LOOP;
    FOR n IN 2 .. cardinality(v_levels) LOOP
        RETURN QUERY SELECT v_levels[n] - v_levels[n - 1], v_at[n], v_totals[n], v_seqs[n];
    END LOOP;
END
$$;

-- Whether a market of which nobody told the two assets may trade this one: its symbol begins or ends with it.
CREATE OR REPLACE FUNCTION ledger.may_trade(p_symbol text, p_asset text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT starts_with(p_symbol, p_asset) OR right(p_symbol, length(p_asset)) = p_asset
$$;

-- Why a difference cannot be judged now; null: it can.
CREATE OR REPLACE FUNCTION ledger.cannot_judge(p_account text, p_asset text, p_through_ms bigint, p_unknown_market boolean)
RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_unknown_market THEN 'the two assets of one of its markets are not known (set SDX_ASSETS_OF_<SYMBOL>)'
        WHEN EXISTS (SELECT FROM ledger.observations x
                     WHERE x.account = p_account AND x.kind = 'snapshot' AND x.subject = p_asset)
            THEN 'stream and snapshot disagree, a second snapshot decides'
        WHEN EXISTS (
            SELECT FROM ledger.fills f LEFT JOIN ledger.markets m ON m.account = f.account AND m.symbol = f.symbol
            WHERE f.account = p_account AND f.state = 'provisional' AND f.executed_ms <= p_through_ms
              AND (p_asset IN (m.base, m.quote, f.fee_asset) OR (m.symbol IS NULL AND ledger.may_trade(f.symbol, p_asset))))
            THEN 'an execution may be a doubled frame, GET order decides'
        WHEN EXISTS (
            SELECT FROM (SELECT o.symbol FROM ledger.orders o
                         WHERE o.account = p_account AND o.wounded AND o.seq > o.told_seq
                         UNION SELECT c.symbol FROM ledger.order_checks c
                         WHERE c.account = p_account AND c.reason = 'moved_in_gap') x
            LEFT JOIN ledger.markets m ON m.account = p_account AND m.symbol = x.symbol
            WHERE p_asset IN (m.base, m.quote) OR (m.symbol IS NULL AND ledger.may_trade(x.symbol, p_asset)))
            THEN 'an order may have executed more than is known, GET order decides'
    END
$$;

DROP FUNCTION IF EXISTS ledger.explain;
-- Judge every asset at the cut p_through_ms, or at the end of what is covered where that comes first. Called after a
-- snapshot asked later than the cut was applied: the newest truth at or before the cut then holds at the cut.
--
-- Returns what is to be told: open (a residual of an asset, seen twice at least 5 s apart by p_now), resolve (explained
-- since), unjudged (executions are missing: what they moved is not known), and for information seen (once so far, or
-- actual says what may still come) and unsure (with the reason in actual). What was told is recognised by the next call,
-- which then goes on.
CREATE FUNCTION ledger.explain(p_account text, p_through_ms bigint, p_now timestamptz, p_fence bigint)
RETURNS TABLE (
    asset text, verdict text, discrepancy_id bigint, residual numeric, at_ms bigint, evidence_seq bigint, expected text,
    actual text
)
-- How much is new is not known to the planner: it reads from where the index begins.
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_head bigint;
    v_cut bigint;
    v_base_ms bigint;
    v_base_seq bigint;
    v_has_trades boolean;
    v_residual numeric;
    v_delta numeric;
    v_why text;
    v_hole record;
    v_is_hole boolean;
    v_certain numeric;
    a record;
BEGIN
    SELECT l.head_seq INTO v_head FROM ledger.lock_account(p_account, p_fence) l;
    -- By the gaps alone: a row set aside on one market must not stop the judging of every asset.
    v_cut := ledger.gapless_through_ms(p_account, NULL);
    v_cut := CASE WHEN v_cut IS NOT NULL THEN least(p_through_ms, v_cut) END;
    SELECT v.mode = 'trades' INTO v_has_trades FROM ledger.venue_state v WHERE v.account = p_account;
    -- An asset not met before begins at the account's first snapshot; one that was absent there was zero.
    IF EXISTS (SELECT FROM ledger.balances b LEFT JOIN ledger.explained e ON e.account = b.account AND e.asset = b.asset
               WHERE b.account = p_account AND (e.asset IS NULL OR e.seq = 0)) THEN
        SELECT i.seq, greatest(i.venue_ms, (SELECT max(h.as_of_ms) FROM ledger.balance_history h
                                            WHERE h.account = p_account AND h.seq = i.seq))
        INTO v_base_seq, v_base_ms
        FROM ledger.inbox i
        WHERE i.account = p_account AND i.source = 'rest' AND i.kind = 'account' AND i.problem IS NULL
        ORDER BY i.seq LIMIT 1;
    END IF;

    FOR a IN
        WITH held AS MATERIALIZED (
            SELECT b.asset, e.asset IS NULL OR e.seq = 0 AS anew, coalesce(e.base_ms, v_base_ms) AS base_ms,
                   coalesce(e.through_ms, v_base_ms) AS through_ms, coalesce(e.seq, 0) AS seq, e.base_total, e.effects
            FROM ledger.balances b LEFT JOIN ledger.explained e ON e.account = b.account AND e.asset = b.asset
            WHERE b.account = p_account AND coalesce(e.through_ms, v_base_ms) <= v_cut
        ), late AS MATERIALIZED (
            SELECT m.* FROM ledger.movements(p_account) m
            WHERE m.seq > (SELECT min(h.seq) FROM held h WHERE NOT h.anew)
        ), news AS MATERIALIZED (
            -- What was counted already and has changed, or came late, makes the asset start again from its base.
            SELECT h.asset, bool_or(m.first_seq <= h.seq OR (m.at_ms > h.base_ms AND m.at_ms <= h.through_ms)) AS again,
                   sum(m.amount) FILTER (WHERE m.at_ms > h.through_ms AND m.at_ms <= v_cut) AS amount,
                   min(m.seq) FILTER (WHERE m.at_ms > v_cut) AS waiting
            FROM held h JOIN late m ON m.asset = h.asset AND m.seq > h.seq WHERE NOT h.anew GROUP BY h.asset
        ), again AS MATERIALIZED (
            SELECT h.* FROM held h LEFT JOIN news n ON n.asset = h.asset WHERE h.anew OR n.again
        ), whole AS MATERIALIZED (
            SELECT m.* FROM ledger.movements(p_account) m
            WHERE m.at_ms > (SELECT min(g.base_ms) FROM again g)
        ), sums AS (
            SELECT g.asset, sum(m.amount) FILTER (WHERE m.at_ms <= v_cut) AS amount,
                   min(m.seq) FILTER (WHERE m.at_ms > v_cut) AS waiting
            FROM again g JOIN whole m ON m.asset = g.asset AND m.at_ms > g.base_ms GROUP BY g.asset
        ), unknown AS (
            -- A fill of a market nobody knows may have moved every asset its symbol begins or ends with.
            SELECT h.asset, min(m.seq) AS seq
            FROM held h CROSS JOIN LATERAL (
                SELECT l.symbol, l.seq FROM late l WHERE NOT h.anew AND l.asset IS NULL AND l.seq > h.seq
                UNION ALL
                SELECT w.symbol, w.seq FROM whole w WHERE h.anew AND w.asset IS NULL AND w.at_ms > h.base_ms
            ) m
            WHERE ledger.may_trade(m.symbol, h.asset) GROUP BY h.asset
        )
        SELECT h.asset, h.base_ms, h.through_ms, u.seq IS NOT NULL AS unknown_market,
               CASE WHEN h.anew THEN v_base_seq ELSE h.seq END AS since_seq,
               -- What is not counted yet must be looked at again, so the seq looked through ends before it.
               least(v_head, u.seq - 1, CASE WHEN h.anew THEN s.waiting ELSE n.waiting END - 1, (
                   SELECT min(o.seq) - 1 FROM ledger.orders o
                   JOIN ledger.markets m ON m.account = o.account AND m.symbol = o.symbol
                   WHERE o.account = p_account AND o.venue_executed_qty > o.fills_qty AND h.asset IN (m.base, m.quote)
                     AND o.seq > CASE WHEN h.anew THEN v_base_seq ELSE h.seq END
                     AND ledger.executed_told_ms(o.account, o.told_seq, o.seq) > v_cut
               )) AS seq,
               coalesce(h.base_total, (SELECT t.total FROM ledger.truth_at(p_account, h.asset, h.base_ms) t), 0)
                   AS base_total,
               CASE WHEN h.anew OR n.again THEN coalesce(s.amount, 0) ELSE h.effects + coalesce(n.amount, 0) END AS effects,
               coalesce((SELECT t.total FROM ledger.truth_at(p_account, h.asset, v_cut) t), 0) AS total,
               (SELECT coalesce(sum(d.residual), 0) FROM ledger.discrepancies d
                WHERE d.account = p_account AND d.resolved_at IS NULL AND d.kind = 'unexplained_balance'
                AND d.asset = h.asset AND d.at_ms > h.base_ms) AS told
        FROM held h LEFT JOIN news n ON n.asset = h.asset LEFT JOIN sums s ON s.asset = h.asset
        LEFT JOIN unknown u ON u.asset = h.asset
        ORDER BY h.asset
    LOOP
        v_residual := a.total - a.base_total - a.effects;
        v_delta := v_residual - a.told;
        IF v_delta = 0 THEN
            INSERT INTO ledger.explained AS e (account, asset, base_ms, base_total, through_ms, total, effects, residual, seq)
            VALUES (p_account, a.asset, a.base_ms, a.base_total, v_cut, a.total, a.effects, v_residual, a.seq)
            ON CONFLICT (account, asset) DO UPDATE SET through_ms = excluded.through_ms, total = excluded.total,
                effects = excluded.effects, residual = excluded.residual, seq = excluded.seq;
            DELETE FROM ledger.observations x
            WHERE x.account = p_account AND x.kind = 'residual' AND x.subject = a.asset;
            CONTINUE;
        END IF;

        SELECT x.* INTO v_hole FROM ledger.holes(p_account, a.asset, a.since_seq, a.through_ms, v_cut) x;
        v_is_hole := coalesce(v_delta BETWEEN v_hole.low AND v_hole.high, false);
        v_why := coalesce(
            ledger.cannot_judge(p_account, a.asset, v_cut, a.unknown_market),
            CASE WHEN v_is_hole AND v_has_trades THEN 'executions of ' || v_hole.names || ' are still missing' END);
        -- Until it is settled the asset stays where it was last explained.
        INSERT INTO ledger.explained (
            account, asset, base_ms, base_total, through_ms, total, effects, residual, seq
        ) VALUES (
            p_account, a.asset, a.base_ms, a.base_total, a.base_ms, a.base_total, 0, 0, 0
        ) ON CONFLICT (account, asset) DO NOTHING;
        asset := a.asset;
        residual := trim_scale(v_delta);
        discrepancy_id := NULL; at_ms := NULL; evidence_seq := NULL; expected := NULL;
        IF v_why IS NOT NULL THEN
            DELETE FROM ledger.observations x
            WHERE x.account = p_account AND x.kind = 'residual' AND x.subject = a.asset;
            verdict := 'unsure';
            actual := v_why;
            RETURN NEXT;
        ELSIF ledger.observe(p_account, 'residual', a.asset, trim_scale(v_residual)::text, ledger_v1.ms(p_now), 5000)
            IS NOT TRUE OR v_hole.is_late THEN
            -- What was executed later excuses nothing here; which part that is shows once all until then is known.
            verdict := 'seen';
            actual := CASE WHEN v_hole.is_late THEN 'executions of ' || v_hole.names || ' may be on their way' END;
            RETURN NEXT;
        ELSIF v_is_hole THEN
            IF v_delta = v_hole.exact OR EXISTS (
                SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.kind = 'unjudged_balance'
                AND d.asset = a.asset AND d.residual = v_delta AND d.at_ms > a.through_ms
            ) THEN
                -- What the missing executions moved is in missing_executions, or told as not judged: a new stretch begins.
                UPDATE ledger.explained e SET base_ms = v_cut, base_total = a.total, through_ms = v_cut, total = a.total,
                    effects = 0, residual = 0, seq = a.seq
                WHERE e.account = p_account AND e.asset = a.asset;
                DELETE FROM ledger.observations x
                WHERE x.account = p_account AND x.kind = 'residual' AND x.subject = a.asset;
            ELSE
                RETURN QUERY
                SELECT a.asset, 'unjudged', NULL::bigint, trim_scale(v_delta), v_cut, t.seq,
                       format('%s by what is known', trim_scale(a.total - v_delta)),
                       format('%s at %s; the difference cannot be judged: executions of %s are missing',
                              trim_scale(a.total), ledger.utc(v_cut), v_hole.names)
                FROM ledger.truth_at(p_account, a.asset, v_cut) t;
            END IF;
        ELSE
            RETURN QUERY
            SELECT a.asset, 'resolve', d.discrepancy_id, d.residual, NULL::bigint, NULL::bigint, NULL::text,
                   'explained since: the balance, fills, fees and transfers agree at ' || ledger.utc(v_cut)
            FROM ledger.discrepancies d
            WHERE d.account = p_account AND d.resolved_at IS NULL AND d.kind = 'unexplained_balance'
              AND d.asset = a.asset AND d.at_ms > a.base_ms
              AND (v_residual = 0 OR d.discrepancy_id = (
                  SELECT min(x.discrepancy_id) FROM ledger.discrepancies x
                  WHERE x.account = p_account AND x.resolved_at IS NULL AND x.kind = 'unexplained_balance'
                    AND x.asset = a.asset AND x.at_ms > a.base_ms AND x.residual = -v_delta));
            IF NOT FOUND THEN
                -- What missing executions moved for certain, nobody knows when, is no part of what is told.
                v_certain := CASE WHEN v_hole.is_whole AND NOT v_has_trades THEN coalesce(v_hole.exact, 0) ELSE 0 END;
                RETURN QUERY
                SELECT a.asset, 'open', NULL::bigint, trim_scale(s.amount), s.at_ms, s.seq,
                       format('%s by fills, fees and transfers known', trim_scale(s.total - s.amount)),
                       format('%s at %s: %s', trim_scale(s.total), ledger.utc(s.at_ms), concat_ws(', or ',
                              CASE WHEN s.amount > 0 THEN 'a deposit or another credit that no event announced'
                                   ELSE 'a withdrawal, a fee or another debit that no event announced' END,
                              'executions missing on ' || v_hole.names))
                FROM (
                    SELECT x.* FROM ledger.steps(p_account, a.asset, a.through_ms, v_cut, a.base_total, a.effects, a.told,
                                                 v_residual) x
                    WHERE v_certain = 0
                    UNION ALL
                    SELECT v_delta - v_certain, greatest(t.as_of_ms, a.through_ms + 1), t.total, t.seq
                    FROM ledger.truth_at(p_account, a.asset, v_cut) t WHERE v_certain <> 0
                ) s;
            END IF;
        END IF;
    END LOOP;
END
$$;

DROP FUNCTION IF EXISTS ledger.locks_at_rest;
-- What is locked and what the open orders reserve, per asset for which that can be told: every open order fully told, in a
-- status we know and of a plain type, and nothing of it changed in the 2 s before p_through_ms or later.
CREATE FUNCTION ledger.locks_at_rest(p_account text, p_through_ms bigint)
RETURNS TABLE (asset text, locked numeric, reserved numeric, as_of_ms bigint, seq bigint)
LANGUAGE sql STABLE AS $$
    WITH resting AS (
        SELECT m.base, m.quote, o.side, o.type, o.price, o.updated_ms,
               o.orig_qty - coalesce(greatest(o.venue_executed_qty, o.fills_qty), 0) AS left_qty,
               ledger.status_is_known(o.status) AND o.orig_qty IS NOT NULL AND o.updated_ms <= p_through_ms - 2000
               AND (o.type = 'MARKET' OR (o.type IN ('LIMIT', 'LIMIT_MAKER') AND o.side IN ('BUY', 'SELL') AND o.price > 0))
                   AS is_plain
        FROM ledger.orders o LEFT JOIN ledger.markets m ON m.account = o.account AND m.symbol = o.symbol
        WHERE o.account = p_account AND o.status_rank < 3
          -- Archived by the venue: it ended, though nobody heard how.
          AND NOT EXISTS (SELECT FROM ledger.order_checks c WHERE c.account = p_account AND c.symbol = o.symbol
                          AND c.order_id = o.order_id AND c.reason = 'absent')
    ), reserve AS (
        SELECT CASE r.side WHEN 'BUY' THEN r.quote ELSE r.base END AS asset,
               sum(CASE WHEN r.side = 'BUY' THEN r.price * r.left_qty ELSE r.left_qty END) AS amount
        FROM resting r WHERE r.is_plain AND r.type <> 'MARKET' GROUP BY 1
    )
    SELECT b.asset, b.locked, coalesce(r.amount, 0), b.as_of_ms, b.seq
    FROM ledger.balances b LEFT JOIN reserve r ON r.asset = b.asset
    WHERE b.account = p_account AND b.as_of_ms <= p_through_ms - 2000
      AND NOT EXISTS (SELECT FROM resting x WHERE x.base IS NULL
                      OR (x.is_plain IS NOT TRUE AND b.asset IN (x.base, x.quote)))
      AND NOT EXISTS (SELECT FROM ledger.observations v
                      WHERE v.account = p_account AND v.kind = 'snapshot' AND v.subject = b.asset)
    ORDER BY b.asset
$$;

DROP FUNCTION IF EXISTS ledger.learn_markets;
-- Remember which two assets markets trade. A setting beats the venue, the venue beats what was inferred; another answer
-- makes every asset start again from its base. Returns how many were new or changed.
CREATE FUNCTION ledger.learn_markets(p_account text, p_symbol text[], p_base text[], p_quote text[], p_source text)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_ranks text[] := ARRAY['inferred', 'venue', 'setting'];
    v_before boolean;
    v_changed integer;
BEGIN
    PERFORM ledger.lock_account(p_account, NULL);
    v_before := EXISTS (
        SELECT FROM ledger.markets m JOIN unnest(p_symbol, p_base, p_quote) AS u(symbol, base, quote) ON u.symbol = m.symbol
        WHERE m.account = p_account AND (m.base, m.quote) <> (u.base, u.quote)
          AND array_position(v_ranks, p_source) >= array_position(v_ranks, m.source));
    INSERT INTO ledger.markets AS m (account, symbol, base, quote, source)
    SELECT DISTINCT ON (u.symbol) p_account, u.symbol, u.base, u.quote, p_source
    FROM unnest(p_symbol, p_base, p_quote) AS u(symbol, base, quote) ORDER BY u.symbol
    ON CONFLICT (account, symbol) DO UPDATE SET base = excluded.base, quote = excluded.quote, source = excluded.source
    WHERE (m.base, m.quote, m.source) <> (excluded.base, excluded.quote, excluded.source)
      AND array_position(v_ranks, excluded.source) >= array_position(v_ranks, m.source);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    IF v_before THEN
        UPDATE ledger.explained e SET seq = 0 WHERE e.account = p_account;
    END IF;
    RETURN v_changed;
END
$$;

DROP FUNCTION IF EXISTS ledger.infer_markets;
-- Markets nobody told, read from their name: two assets that the account has held make it up, in one way only.
CREATE FUNCTION ledger.infer_markets(p_account text, p_symbol text[]) RETURNS integer
LANGUAGE sql AS $$
    SELECT coalesce(sum(ledger.learn_markets(p_account, ARRAY[s.symbol], ARRAY[s.base], ARRAY[s.quote], 'inferred')), 0)::integer
    FROM (
        SELECT u.symbol, min(a.asset) AS base, min(b.asset) AS quote
        FROM unnest(p_symbol) AS u(symbol)
        JOIN ledger.balances a ON a.account = p_account AND starts_with(u.symbol, a.asset)
        JOIN ledger.balances b ON b.account = p_account AND u.symbol = a.asset || b.asset
        WHERE NOT EXISTS (SELECT FROM ledger.markets m WHERE m.account = p_account AND m.symbol = u.symbol)
        GROUP BY u.symbol HAVING count(*) = 1
    ) s
$$;

-- A difference between what is locked of an asset and what its open orders reserve, seen at p_at_ms (the clock of the
-- service's machine). True: this very one was seen at least p_after_ms before; see ledger.observe.
CREATE OR REPLACE FUNCTION ledger.see_lock(
    p_account text, p_asset text, p_locked numeric, p_reserved numeric, p_at_ms bigint, p_after_ms bigint
) RETURNS boolean
LANGUAGE sql AS $$
    SELECT ledger.observe(p_account, 'lock', p_asset, trim_scale(p_locked - p_reserved)::text, p_at_ms, p_after_ms)
$$;

-- Locks of all other assets are not seen any more, or were told.
CREATE OR REPLACE FUNCTION ledger.forget_locks(p_account text, p_but text[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM ledger.observations WHERE account = p_account AND kind = 'lock' AND subject <> ALL (p_but)
$$;

-- A discrepancy that a person is about to settle, under the account's lock, so that nobody else settles it meanwhile. No
-- row: there is none of this number.
CREATE OR REPLACE FUNCTION ledger.hold_discrepancy(p_account text, p_discrepancy_id bigint)
RETURNS TABLE (kind text, subject text, residual numeric, at_ms bigint, resolved_at timestamptz, resolution text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.lock_account(p_account, NULL);
    RETURN QUERY SELECT d.kind, d.subject, d.residual, d.at_ms, d.resolved_at, d.resolution
    FROM ledger.discrepancies d WHERE d.account = p_account AND d.discrepancy_id = p_discrepancy_id;
END
$$;
