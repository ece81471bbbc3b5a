-- The only writer of facts. Stream frames and REST pages come through ledger.apply alike.
--
-- Always holds: applying the same frames in any order, any number of times, in any batches, ends in the same rows
-- (seq, first_seq and source tell the order of arrival and are the exception). The account's row is locked before
-- anything is read, in a statement of its own: a single statement would keep the snapshot it took before waiting.
-- Rows are written sorted by key. Amounts arrive as decimal text and are cast here, digit for digit.

-- Terminal beats open; what we do not know ranks with PARTIALLY_FILLED. The same table as facts/status.py.
CREATE OR REPLACE FUNCTION ledger.status_rank(p_status text) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_status IS NULL THEN -1
        WHEN p_status = 'PENDING_NEW' THEN 0
        WHEN p_status = 'NEW' THEN 1
        WHEN p_status IN ('FILLED', 'CANCELED', 'EXPIRED', 'EXPIRED_IN_MATCH', 'REJECTED') THEN 3
        ELSE 2
    END::smallint
$$;

-- Whether we know what a status means: that the order is over or that it is not. Null where none was told.
CREATE OR REPLACE FUNCTION ledger.status_is_known(p_status text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_status IN ('PENDING_NEW', 'NEW', 'PARTIALLY_FILLED', 'PENDING_CANCEL', 'FILLED', 'CANCELED', 'EXPIRED',
                        'EXPIRED_IN_MATCH', 'REJECTED')
$$;

-- Which of two statuses wins that agree in all else: one we do not know is more than an execution that came with it.
-- The first character says so, in every collation.
CREATE OR REPLACE FUNCTION ledger.status_tie(p_status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN ledger.status_is_known(coalesce(p_status, 'NEW')) THEN '0' ELSE '1' END || coalesce(p_status, '')
$$;

-- A status with what came along with it, in the order in which statuses win; status is its status_tie.
DO $$
BEGIN
    IF to_regtype('ledger.order_standing') IS NULL THEN
        CREATE TYPE ledger.order_standing AS (rank smallint, decided boolean, executed numeric, updated bigint, status text);
    END IF;
END
$$;

DROP FUNCTION IF EXISTS ledger.doubt;
-- Open a discrepancy, once per content. The caller holds the account's lock. p_seq: the row that tells it; p_evidence:
-- the one that shows it, where that is another. p_residual, p_at_ms: what is unexplained of a balance at an instant.
-- p_uncovered_from_ms: coverage ends there while it is open. Such a one opens again when it is told again after it was
-- settled by itself; a person's decision stands.
CREATE FUNCTION ledger.doubt(
    p_account text, p_kind text, p_subject text, p_expected text, p_actual text, p_seq bigint, p_at timestamptz,
    p_resolution text DEFAULT NULL, p_residual numeric DEFAULT NULL, p_at_ms bigint DEFAULT NULL,
    p_evidence bigint DEFAULT NULL, p_symbol text DEFAULT NULL, p_order_id bigint DEFAULT NULL,
    p_trade_id bigint DEFAULT NULL, p_asset text DEFAULT NULL, p_uncovered_from_ms bigint DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_digest bytea := sha256(convert_to(jsonb_build_array(p_kind, p_subject, p_expected, p_actual)::text, 'UTF8'));
    v_id bigint;
BEGIN
    IF p_uncovered_from_ms IS NOT NULL THEN
        UPDATE ledger.discrepancies d SET resolved_at = NULL, resolution = NULL, seq = p_seq,
            uncovered_from_ms = CASE WHEN d.resolved_at IS NULL THEN least(d.uncovered_from_ms, p_uncovered_from_ms)
                                     ELSE p_uncovered_from_ms END
        WHERE d.account = p_account AND d.digest = v_digest
          AND CASE WHEN d.resolved_at IS NULL THEN p_uncovered_from_ms < coalesce(d.uncovered_from_ms, p_uncovered_from_ms + 1)
                   ELSE d.resolution NOT LIKE '%, says %: %' END;
        IF FOUND THEN
            RETURN 1;
        END IF;
    END IF;
    IF EXISTS (SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.digest = v_digest) THEN
        RETURN 0;
    END IF;
    UPDATE ledger.accounts a SET head_discrepancy = a.head_discrepancy + 1
    WHERE a.account = p_account RETURNING a.head_discrepancy INTO v_id;
    INSERT INTO ledger.discrepancies (
        account, discrepancy_id, kind, subject, expected, actual, digest, evidence_seq, opened_at, resolved_at,
        resolution, seq, residual, at_ms, symbol, order_id, trade_id, asset, uncovered_from_ms
    ) VALUES (
        p_account, v_id, p_kind, p_subject, p_expected, p_actual, v_digest, coalesce(p_evidence, p_seq), p_at,
        CASE WHEN p_resolution IS NOT NULL THEN p_at END, p_resolution, p_seq, p_residual, p_at_ms, p_symbol, p_order_id,
        p_trade_id, p_asset, p_uncovered_from_ms
    );
    RETURN 1;
END
$$;

-- Land one fill that no row has by key, pairing stream frames without a trade id with trades of REST.
--
-- A row has a stream side (stream_key, stream_ordinal, stream_ms), a trade side (trade_id, executed_ms) or both. Sides
-- pair within one order when their numbers are equal and their times differ by at most 1 s, the nearest first; of frames
-- equally near the first of its kind goes before what may be a doubled one. A newcomer takes the nearest partner that is
-- free or that prefers it; the side it displaces looks for another (deferred acceptance). Distances are symmetric, so
-- exactly one stable pairing exists and the order of arrival cannot change it.
CREATE OR REPLACE FUNCTION ledger.land_fill(
    p_account text, p_source text, p_seq bigint, p_index integer, p_symbol text, p_order_id bigint, p_trade_id bigint,
    p_stream_key uuid, p_stream_ordinal integer, p_side text, p_price numeric, p_qty numeric, p_quote numeric,
    p_fee numeric, p_fee_asset text, p_is_maker boolean, p_executed_ms bigint
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v ledger.fills;        -- the side that looks for a place; only one side of it is filled in
    c ledger.fills;        -- the partner found
    v_displaced ledger.fills;
    v_steps integer := 0;
BEGIN
    v.trade_id := p_trade_id;
    v.stream_key := CASE WHEN p_trade_id IS NULL THEN p_stream_key END;
    v.stream_ordinal := CASE WHEN p_trade_id IS NULL THEN p_stream_ordinal END;
    v.stream_ms := CASE WHEN p_trade_id IS NULL THEN p_executed_ms END;
    v.executed_ms := p_executed_ms;
    v.side := p_side;
    v.is_maker := p_is_maker;
    v.fee := p_fee;
    v.fee_asset := p_fee_asset;
    v.quote_qty := coalesce(p_quote, p_price * p_qty);
    v.quote_derived := p_quote IS NULL;
    v.source := p_source;
    LOOP
        v_steps := v_steps + 1;
        ASSERT v_steps < 100000, 'pairing of fills does not end';
        IF v.trade_id IS NULL THEN
            SELECT f.* INTO c FROM ledger.fills f
            WHERE f.account = p_account AND f.symbol = p_symbol AND f.order_id = p_order_id
              AND f.trade_id IS NOT NULL AND f.price = p_price AND f.qty = p_qty
              AND (f.fee = v.fee OR f.fee IS NULL OR v.fee IS NULL)
              AND (f.fee_asset = v.fee_asset OR f.fee_asset IS NULL OR v.fee_asset IS NULL)
              AND (f.side = v.side OR f.side IS NULL OR v.side IS NULL)
              AND abs(f.executed_ms - v.stream_ms) <= 1000
              AND (f.stream_key IS NULL
                   OR (abs(f.executed_ms - v.stream_ms), v.stream_ordinal, v.stream_key)
                    < (abs(f.executed_ms - f.stream_ms), f.stream_ordinal, f.stream_key))
            ORDER BY abs(f.executed_ms - v.stream_ms), f.trade_id LIMIT 1;
        ELSE
            SELECT f.* INTO c FROM ledger.fills f
            WHERE f.account = p_account AND f.symbol = p_symbol AND f.order_id = p_order_id
              AND f.stream_key IS NOT NULL AND f.state <> 'voided' AND f.price = p_price AND f.qty = p_qty
              AND (f.fee = v.fee OR f.fee IS NULL OR v.fee IS NULL)
              AND (f.fee_asset = v.fee_asset OR f.fee_asset IS NULL OR v.fee_asset IS NULL)
              AND (f.side = v.side OR f.side IS NULL OR v.side IS NULL)
              AND abs(v.executed_ms - f.stream_ms) <= 1000
              AND (f.trade_id IS NULL
                   OR (abs(v.executed_ms - f.stream_ms), v.trade_id) < (abs(f.executed_ms - f.stream_ms), f.trade_id))
            ORDER BY abs(v.executed_ms - f.stream_ms), f.stream_ordinal, f.stream_key LIMIT 1;
        END IF;
        IF NOT FOUND THEN
            INSERT INTO ledger.fills (
                account, first_seq, first_index, symbol, order_id, trade_id, stream_key, stream_ordinal, stream_ms,
                side, price, qty, quote_qty, quote_derived, fee, fee_asset, is_maker, executed_ms, source, state, seq
            ) VALUES (
                p_account, p_seq, p_index, p_symbol, p_order_id, v.trade_id, v.stream_key, v.stream_ordinal,
                v.stream_ms, v.side, p_price, p_qty, v.quote_qty, v.quote_derived, v.fee, v.fee_asset, v.is_maker,
                v.executed_ms, v.source,
                CASE WHEN v.trade_id IS NULL AND v.stream_ordinal > 1 THEN 'provisional' ELSE 'confirmed' END, p_seq
            );
            RETURN true;
        END IF;
        v_displaced := c;
        IF v.trade_id IS NULL THEN
            UPDATE ledger.fills f SET
                stream_key = v.stream_key, stream_ordinal = v.stream_ordinal, stream_ms = v.stream_ms,
                side = coalesce(f.side, v.side), fee = coalesce(f.fee, v.fee),
                fee_asset = coalesce(f.fee_asset, v.fee_asset),
                seq = CASE WHEN (f.side IS NULL AND v.side IS NOT NULL) OR (f.fee IS NULL AND v.fee IS NOT NULL)
                           THEN p_seq ELSE f.seq END
            WHERE f.account = p_account AND f.first_seq = c.first_seq AND f.first_index = c.first_index;
            EXIT WHEN c.stream_key IS NULL;
            v_displaced.trade_id := NULL;
            v_displaced.executed_ms := c.stream_ms;
            v_displaced.source := 'stream';
            v_displaced.is_maker := NULL;
            v_displaced.quote_qty := p_price * p_qty;   -- the row's total was the trade's
            v_displaced.quote_derived := true;
        ELSE
            UPDATE ledger.fills f SET
                trade_id = v.trade_id, executed_ms = v.executed_ms, is_maker = v.is_maker,
                side = coalesce(f.side, v.side), fee = coalesce(f.fee, v.fee),
                fee_asset = coalesce(f.fee_asset, v.fee_asset), quote_qty = v.quote_qty,
                quote_derived = v.quote_derived, state = 'confirmed', seq = p_seq
            WHERE f.account = p_account AND f.first_seq = c.first_seq AND f.first_index = c.first_index;
            EXIT WHEN c.trade_id IS NULL;
            v_displaced.stream_key := NULL;
            v_displaced.stream_ordinal := NULL;
            v_displaced.stream_ms := NULL;
            v_displaced.source := 'rest';
        END IF;
        v := v_displaced;
    END LOOP;
    RETURN false;
END
$$;

-- Ids of a market began anew: an order or a trade of this id was over long before this one came to be. The new one is not
-- merged with the old; one discrepancy of the market names both, and ends coverage there until a person has looked.
CREATE OR REPLACE FUNCTION ledger.ids_began_anew(
    p_account text, p_symbol text, p_order_id bigint, p_trade_id bigint, p_held text, p_said text, p_ms bigint,
    p_seq bigint, p_at timestamptz
) RETURNS integer
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger.discrepancies d
               WHERE d.account = p_account AND d.kind = 'ids_began_anew' AND d.symbol = p_symbol) THEN
        RETURN 0;
    END IF;
    RETURN ledger.doubt(
        p_account, 'ids_began_anew', p_symbol, p_held, p_said, p_seq, p_at, p_symbol => p_symbol,
        p_order_id => p_order_id, p_trade_id => p_trade_id, p_uncovered_from_ms => greatest(p_ms - 1, 0));
END
$$;

-- How long after the end of one a thing of the same id must have begun to be another: no report is that late.
CREATE OR REPLACE FUNCTION ledger.anew_after_ms() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 86400000::bigint $$;

-- Whether it is known that the ids of this market began anew after p_over_ms and by p_ms: what had ended before is over.
CREATE OR REPLACE FUNCTION ledger.is_known_anew(p_account text, p_symbol text, p_over_ms bigint, p_ms bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.kind = 'ids_began_anew' AND d.symbol = p_symbol
        AND d.uncovered_from_ms > p_over_ms AND d.uncovered_from_ms < p_ms + ledger.anew_after_ms())
$$;

-- Bring a fill that a row already has by key: nulls are filled in, REST's time wins, other numbers are a discrepancy.
-- Returns 1 when the row changed.
CREATE OR REPLACE FUNCTION ledger.meet_fill(
    p_account text, p_source text, p_seq bigint, p_at timestamptz, p_first_seq bigint, p_first_index integer,
    p_by_trade boolean, p_side text, p_price numeric, p_qty numeric, p_quote numeric, p_fee numeric,
    p_fee_asset text, p_is_maker boolean, p_executed_ms bigint
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    f ledger.fills;
    v_differs boolean;
BEGIN
    SELECT x.* INTO STRICT f FROM ledger.fills x
    WHERE x.account = p_account AND x.first_seq = p_first_seq AND x.first_index = p_first_index;
    IF p_by_trade AND abs(f.executed_ms - p_executed_ms) > ledger.anew_after_ms() THEN
        RETURN ledger.ids_began_anew(
            p_account, f.symbol, f.order_id, f.trade_id,
            concat_ws(' ', 'trade', f.trade_id, 'of order', f.order_id || ':', f.side, f.qty, '@', f.price, 'at',
                      ledger.moment(f.executed_ms) AT TIME ZONE 'UTC'),
            concat_ws(' ', 'trade', f.trade_id, 'of order', f.order_id || ':', p_side, p_qty, '@', p_price, 'at',
                      ledger.moment(p_executed_ms) AT TIME ZONE 'UTC'),
            greatest(f.executed_ms, p_executed_ms), p_seq, p_at);
    END IF;
    v_differs := f.price <> p_price OR f.qty <> p_qty OR f.fee <> p_fee OR f.fee_asset <> p_fee_asset
        OR f.side <> p_side OR (NOT f.quote_derived AND f.quote_qty <> p_quote) OR f.is_maker <> p_is_maker
        OR (p_by_trade AND abs(f.executed_ms - p_executed_ms) > 1000);
    IF v_differs THEN
        RETURN ledger.doubt(
            p_account, 'fill_conflict',
            concat_ws('/', f.symbol, f.order_id, coalesce('t' || f.trade_id, 'f' || f.first_seq || '-' || f.first_index)),
            concat_ws(' ', f.side, f.qty, '@', f.price, 'quote', f.quote_qty, 'fee', f.fee, f.fee_asset, 'at', f.executed_ms),
            concat_ws(' ', p_side, p_qty, '@', p_price, 'quote', p_quote, 'fee', p_fee, p_fee_asset, 'at', p_executed_ms),
            p_seq, p_at, p_symbol => f.symbol, p_order_id => f.order_id, p_trade_id => f.trade_id);
    END IF;
    UPDATE ledger.fills x SET
        side = coalesce(x.side, p_side), fee = coalesce(x.fee, p_fee), fee_asset = coalesce(x.fee_asset, p_fee_asset),
        is_maker = coalesce(x.is_maker, p_is_maker), quote_qty = coalesce(p_quote, x.quote_qty),
        quote_derived = x.quote_derived AND p_quote IS NULL,
        executed_ms = CASE WHEN p_by_trade AND p_source = 'rest' THEN p_executed_ms ELSE x.executed_ms END,
        seq = p_seq
    WHERE x.account = p_account AND x.first_seq = p_first_seq AND x.first_index = p_first_index
      AND ((x.side IS NULL AND p_side IS NOT NULL) OR (x.fee IS NULL AND p_fee IS NOT NULL)
           OR (x.fee_asset IS NULL AND p_fee_asset IS NOT NULL) OR (x.is_maker IS NULL AND p_is_maker IS NOT NULL)
           OR (x.quote_derived AND p_quote IS NOT NULL)
           OR (p_by_trade AND p_source = 'rest' AND x.executed_ms <> p_executed_ms));
    RETURN CASE WHEN FOUND THEN 1 ELSE 0 END;
END
$$;

-- Judge the provisional fills of one order against its executed quantity, read late enough for REST to know.
-- Two settling reads in a row must agree; what the executed quantity needs is confirmed, the rest was doubled frames.
-- Needed are those that make the sum exact where some do (of a twin and a double only the twin fits), else what fits.
CREATE OR REPLACE FUNCTION ledger.settle_order(
    p_account text, p_symbol text, p_order_id bigint, p_executed numeric, p_seq bigint, p_at timestamptz
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    f ledger.fills;
    v_room numeric;
    v_needed text[];
    v_changed integer := 0;
BEGIN
    SELECT p_executed - coalesce(sum(x.qty) FILTER (WHERE x.state = 'confirmed'), 0) INTO v_room
    FROM ledger.fills x WHERE x.account = p_account AND x.symbol = p_symbol AND x.order_id = p_order_id;
    WITH RECURSIVE doubtful AS (
        SELECT x.qty, x.first_seq || '-' || x.first_index AS id,
               row_number() OVER (ORDER BY x.stream_ms, x.stream_key, x.stream_ordinal) AS n
        FROM ledger.fills x WHERE x.account = p_account AND x.symbol = p_symbol AND x.order_id = p_order_id
          AND x.state = 'provisional'
    ), chosen AS (
        SELECT 0::bigint AS n, 0::numeric AS qty, '{}'::text[] AS ids
        UNION ALL
        SELECT d.n, c.qty + CASE WHEN t.taken THEN d.qty ELSE 0 END, CASE WHEN t.taken THEN c.ids || d.id ELSE c.ids END
        FROM chosen c JOIN doubtful d ON d.n = c.n + 1 CROSS JOIN (VALUES (true), (false)) AS t(taken)
        WHERE d.n <= 12 AND c.qty + CASE WHEN t.taken THEN d.qty ELSE 0 END <= v_room   -- at most 4096 choices
    )
    SELECT c.ids INTO v_needed FROM chosen c WHERE c.qty = v_room ORDER BY cardinality(c.ids), c.n LIMIT 1;
    FOR f IN
        SELECT x.* FROM ledger.fills x
        WHERE x.account = p_account AND x.symbol = p_symbol AND x.order_id = p_order_id AND x.state = 'provisional'
        ORDER BY x.stream_ms, x.stream_key, x.stream_ordinal
    LOOP
        v_changed := v_changed + 1;
        IF f.doubt_executed IS DISTINCT FROM p_executed THEN
            UPDATE ledger.fills x SET doubt_executed = p_executed
            WHERE x.account = p_account AND x.first_seq = f.first_seq AND x.first_index = f.first_index;
        ELSIF (v_needed IS NULL AND f.qty <= v_room) OR f.first_seq || '-' || f.first_index = ANY (v_needed) THEN
            v_room := v_room - f.qty;
            UPDATE ledger.fills x SET state = 'confirmed', seq = p_seq
            WHERE x.account = p_account AND x.first_seq = f.first_seq AND x.first_index = f.first_index;
        ELSE
            UPDATE ledger.fills x SET state = 'voided', seq = p_seq
            WHERE x.account = p_account AND x.first_seq = f.first_seq AND x.first_index = f.first_index;
            PERFORM ledger.doubt(
                p_account, 'double_frame', concat_ws('/', p_symbol, p_order_id, 'f' || f.first_seq || '-' || f.first_index),
                'executed quantity ' || p_executed, 'one fill of ' || f.qty || ' @ ' || f.price || ' more',
                p_seq, p_at, 'voided: the executed quantity, read twice, does not need it', p_symbol => p_symbol,
                p_order_id => p_order_id);
        END IF;
    END LOOP;
    RETURN v_changed;
END
$$;

-- Bring a complete account snapshot: an absent asset is zero. Newer stream states stay, unless two snapshots at least
-- 5 s, and no less than REST may trail, apart agree and no position of that asset came in between: then the snapshot wins
-- whatever the clocks say. (Two within that time may both be of before the last position.)
DROP FUNCTION IF EXISTS ledger.bring_snapshot;
CREATE FUNCTION ledger.bring_snapshot(
    p_account text, p_snapshot jsonb, p_asked_ms bigint, p_asked_seq bigint, p_lag_ms bigint, p_seq bigint
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    s record;
    v_ms bigint := (p_snapshot ->> 'as_of_ms')::bigint;
    v_new_ms bigint;
    v_new_k integer;
    v_seen boolean;
    v_changed integer := 0;
BEGIN
    FOR s IN
        SELECT coalesce(n.asset, b.asset) AS asset, coalesce(n.free, 0) AS free, coalesce(n.locked, 0) AS locked,
               b.asset IS NOT NULL AS known, b.free AS had_free, b.locked AS had_locked, b.as_of_ms, b.k, b.position_seq
        FROM (SELECT r ->> 'asset' AS asset, (r ->> 'free')::numeric AS free, (r ->> 'locked')::numeric AS locked
              FROM jsonb_array_elements(p_snapshot -> 'balances') r) n
        FULL JOIN (SELECT x.* FROM ledger.balances x WHERE x.account = p_account) b ON b.asset = n.asset
        ORDER BY 1
    LOOP
        IF s.known AND s.free = s.had_free AND s.locked = s.had_locked THEN
            DELETE FROM ledger.observations x
            WHERE x.account = p_account AND x.kind = 'snapshot' AND x.subject = s.asset;
            CONTINUE;
        END IF;
        IF NOT s.known THEN
            v_new_ms := coalesce(v_ms, p_asked_ms);
            v_new_k := 0;
        ELSIF v_ms IS NOT NULL AND v_ms > s.as_of_ms THEN
            v_new_ms := v_ms;
            v_new_k := 0;
        ELSE
            v_seen := ledger.observe(
                p_account, 'snapshot', s.asset, trim_scale(s.free) || ' ' || trim_scale(s.locked), p_asked_ms,
                greatest(5000, p_lag_ms), p_asked_seq, coalesce(s.position_seq, 0));
            v_changed := v_changed + (v_seen IS NULL)::integer;
            CONTINUE WHEN v_seen IS NOT TRUE;
            v_new_ms := greatest(s.as_of_ms, v_ms);
            v_new_k := s.k + 1;
        END IF;
        INSERT INTO ledger.balances AS b (account, asset, free, locked, as_of_ms, k, source, seq)
        VALUES (p_account, s.asset, s.free, s.locked, v_new_ms, v_new_k, 'rest', p_seq)
        ON CONFLICT (account, asset) DO UPDATE SET free = excluded.free, locked = excluded.locked,
            as_of_ms = excluded.as_of_ms, k = excluded.k, source = 'rest', seq = p_seq;
        INSERT INTO ledger.balance_history AS h (account, asset, as_of_ms, free, locked, k, source, seq)
        VALUES (p_account, s.asset, v_new_ms, s.free, s.locked, v_new_k, 'rest', p_seq)
        ON CONFLICT (account, asset, as_of_ms, free, locked) DO UPDATE SET k = excluded.k WHERE excluded.k > h.k;
        DELETE FROM ledger.observations x
        WHERE x.account = p_account AND x.kind = 'snapshot' AND x.subject = s.asset;
        v_changed := v_changed + 1;
    END LOOP;
    RETURN v_changed;
END
$$;

-- What the frames of a batch say, each naming its frame by its place (1 …); they come as text, a row each (rows.py).
-- Another shape of a type takes a migration.
DO $$
BEGIN
    IF to_regtype('ledger.told_order') IS NULL THEN
        CREATE TYPE ledger.told_order AS (
            frame integer, symbol text, order_id bigint, status text, side text, type text, tif text, client text,
            price text, orig text, executed text, quote text, created bigint, updated bigint, decides boolean
        );
        CREATE TYPE ledger.told_fill AS (
            frame integer, index integer, symbol text, order_id bigint, trade_id bigint, key uuid, ordinal integer,
            side text, price text, qty text, quote text, fee text, fee_asset text, maker boolean, ms bigint
        );
        CREATE TYPE ledger.told_balance AS (frame integer, asset text, free text, locked text, ms bigint, k integer);
        -- An order touched by fills: what its confirmed fills add up to, or what came on top.
        CREATE TYPE ledger.fills_sum AS (symbol text, order_id bigint, qty numeric, quote numeric, frame integer);
    END IF;
END
$$;

-- Whether a journal row with this problem was understood all the same: only a field that describes was left out. The same
-- word as in venue/reading.py.
CREATE OR REPLACE FUNCTION ledger.is_remark(p_problem text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT starts_with(p_problem, 'remark: ')
$$;

-- A time told in ms.
CREATE OR REPLACE FUNCTION ledger.moment(p_ms bigint) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT timestamptz '1970-01-01 00:00:00+00' + p_ms * interval '1 millisecond'
$$;

-- An order in words, for a person.
CREATE OR REPLACE FUNCTION ledger.order_in_words(
    p_order_id bigint, p_side text, p_qty numeric, p_status text, p_created_ms bigint, p_updated_ms bigint
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT concat_ws(' ', 'order', p_order_id || ':', p_side, trim_scale(p_qty), p_status,
                     'created at ' || (ledger.moment(p_created_ms) AT TIME ZONE 'UTC'),
                     'last changed at ' || (ledger.moment(p_updated_ms) AT TIME ZONE 'UTC'))
$$;

-- Keep what an order's quantity, price and client id were by older reports, beside the newest that the order shows now.
-- p_order: the order as it was before this call (was_…) and which it is; p_told: the call's reports.
CREATE OR REPLACE FUNCTION ledger.keep_amended(
    p_account text, p_order jsonb, p_told ledger.told_order[], p_seq bigint
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_symbol text := p_order ->> 'symbol';
    v_id bigint := (p_order ->> 'id')::bigint;
BEGIN
    INSERT INTO ledger.order_amendments AS a (account, symbol, order_id, field, value, reported_ms, seq)
    SELECT p_account, v_symbol, v_id, x.field, x.value, max(x.ms), p_seq
    FROM (
        SELECT v.field, v.value, (p_order ->> 'was_ms')::bigint AS ms
        FROM (VALUES ('client_order_id', p_order ->> 'was_client'), ('price', p_order ->> 'was_price'),
                     ('orig_qty', p_order ->> 'was_orig')) AS v(field, value)
        UNION ALL
        SELECT v.field, v.value, coalesce(u.updated, 0)
        FROM unnest(p_told) AS u
        CROSS JOIN LATERAL (VALUES ('client_order_id', u.client), ('price', trim_scale(u.price::numeric)::text),
                                   ('orig_qty', trim_scale(u.orig::numeric)::text)) AS v(field, value)
        WHERE u.symbol = v_symbol AND u.order_id = v_id
    ) x
    JOIN ledger.orders o ON o.account = p_account AND o.symbol = v_symbol AND o.order_id = v_id
    WHERE x.value <> CASE x.field WHEN 'client_order_id' THEN o.client_order_id WHEN 'price' THEN trim_scale(o.price)::text
                     ELSE trim_scale(o.orig_qty)::text END
    GROUP BY x.field, x.value ORDER BY x.field, x.value
    ON CONFLICT (account, symbol, order_id, field, value) DO UPDATE SET reported_ms = excluded.reported_ms
        WHERE excluded.reported_ms > a.reported_ms;
END
$$;

DROP FUNCTION IF EXISTS ledger.is_long_over;
-- Whether something that began at p_ms began long after this order was over. Where an order's only time is its creation
-- nobody knows when it ended: unless all of it is there, what comes late may be part of it, but for a market whose ids are
-- known to have begun anew since.
CREATE FUNCTION ledger.is_long_over(
    p_account text, p_symbol text, p_rank smallint, p_created_ms bigint, p_updated_ms bigint, p_executed numeric,
    p_fills_qty numeric, p_ms bigint
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(p_rank = 3 AND p_ms > p_updated_ms + ledger.anew_after_ms()
        AND (p_created_ms IS NULL OR p_updated_ms > p_created_ms OR p_fills_qty >= nullif(p_executed, 0)
             OR ledger.is_known_anew(p_account, p_symbol, p_updated_ms, p_ms)), false)
$$;

-- Whether a report of this side at p_ms is of another order than the one held with its id, last changed at p_held_ms: the
-- side of an order never changes. Quantity, price and client id may, type and time in force only describe, and what stands
-- for its creation may be the time of a change. Two sides nearer in time than that are a contradiction, not another order.
CREATE OR REPLACE FUNCTION ledger.is_of_other_side(p_held text, p_side text, p_held_ms bigint, p_ms bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(p_held <> p_side AND abs(p_ms - p_held_ms) > ledger.anew_after_ms(), false)
$$;

DROP FUNCTION IF EXISTS ledger.of_ids_began_anew;
-- The rows of one answer of REST that belong to a later generation of ids than what is kept, or than earlier rows of the
-- same answer: symbol, id, trade (null: an order), frame, ms, and both in words. Null: none, as nearly always.
CREATE FUNCTION ledger.of_ids_began_anew(
    p_account text, p_orders ledger.told_order[], p_fills ledger.told_fill[]
) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('symbol', x.symbol, 'id', x.order_id, 'trade', x.trade_id, 'frame', x.frame,
                                        'ms', x.ms, 'held', x.held, 'said', x.said) ORDER BY x.ms)
    FROM (
        SELECT u.symbol, u.order_id, u.trade_id, u.frame, u.ms,
               ledger.order_in_words(o.order_id, o.side, greatest(o.orig_qty, o.fills_qty), o.status, o.created_ms, o.updated_ms)
                   AS held,
               concat_ws(' ', 'order', u.order_id || ':', u.side, u.qty, '@', u.price, 'executed at',
                         ledger.moment(u.ms) AT TIME ZONE 'UTC') AS said
        FROM unnest(p_fills) AS u
        JOIN LATERAL (
            SELECT t.* FROM ledger.orders t WHERE t.account = p_account AND (t.symbol, t.order_id) >= (u.symbol, u.order_id)
            ORDER BY t.symbol, t.order_id LIMIT 1
        ) o ON o.symbol = u.symbol AND o.order_id = u.order_id
        WHERE ledger.is_long_over(p_account, u.symbol, o.status_rank, o.created_ms, o.updated_ms, o.venue_executed_qty,
                                  o.fills_qty, u.ms)
           OR ledger.is_of_other_side(o.side, u.side, o.updated_ms, u.ms)
        UNION ALL
        SELECT u.symbol, u.order_id, NULL, u.frame, u.created,
               ledger.order_in_words(g.order_id, g.side, g.qty, g.status, g.first_ms, NULL),
               ledger.order_in_words(u.order_id, u.side, u.orig::numeric, u.status, u.created, u.updated)
        FROM unnest(p_orders) AS u
        JOIN (
            SELECT n.symbol, n.order_id, min(n.created) AS first_ms, (array_agg(n.side ORDER BY n.created))[1] AS side,
                   (array_agg(n.orig::numeric ORDER BY n.created))[1] AS qty,
                   (array_agg(n.status ORDER BY n.created))[1] AS status
            FROM unnest(p_orders) AS n GROUP BY n.symbol, n.order_id
            HAVING max(n.created) - min(n.created) > ledger.anew_after_ms()
        ) g ON g.symbol = u.symbol AND g.order_id = u.order_id
        WHERE u.created > g.first_ms + ledger.anew_after_ms()
    ) x
$$;

DROP FUNCTION IF EXISTS ledger.apply;
-- Write one batch of frames of one session with the facts they carry, in its own transaction.
--
-- The frames are numbered from p_frame_no on, one array for each of their columns (p_problems: null where none has one).
-- p_raw: the bytes of all of them, the nth ends with the nth byte of p_ends. Arrays come as text, which costs the driver
-- a fraction of an array of its own.
-- p_rare: snapshots, transfers, settlements, doubts and decisions as JSON, null when there are none; frames to be listed in
-- quarantine, and those that are applied again, with the source they came from. p_through_ms: the
-- stream is live and complete to this instant of the venue's clock (0: live, but behind); null leaves coverage alone.
-- p_gap: count into this gap. p_clockless: positions without a venue clock were left out. p_lag_ms: REST may trail the
-- stream by this much. p_walk: how far the walk has
-- come with this answer (see ledger.move_walk). p_fence: the leader's number; null where nobody leads.
CREATE FUNCTION ledger.apply(
    p_account text, p_session uuid, p_source text, p_gap bigint, p_asked_seq bigint, p_question text,
    p_clockless boolean, p_lag_ms bigint, p_walk jsonb, p_through_ms bigint, p_fence bigint,
    p_frame_no bigint, p_received_ms text, p_kinds text, p_venue_ms text, p_problems text[], p_raw bytea, p_ends text,
    p_orders text, p_fills text, p_balances text, p_rare jsonb,
    OUT first_seq bigint, OUT last_seq bigint, OUT fills_new integer, OUT orders_changed integer,
    OUT others_changed integer, OUT repeated boolean, OUT digest bytea
)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_head bigint;
    v_digest bytea;
    v_marks bytea;
    v_received_ms bigint[] := p_received_ms::bigint[];
    v_kinds text[] := p_kinds::text[];
    v_venue_ms bigint[] := p_venue_ms::bigint[];
    v_ends integer[] := p_ends::integer[];
    v_frames integer := coalesce(array_length(v_ends, 1), 0);
    v_same boolean := false;
    v_hash bytea;
    v_fresh integer[];
    v_met integer[];
    v_pairing boolean;
    v_rows integer;
    v_unreadable bigint := 0;
    v_sums ledger.fills_sum[];   -- whole sums where v_sum_whole, else what came on top
    v_sum_whole boolean := false;
    v_conflicts jsonb;
    v_settled jsonb;
    v_anew jsonb;
    -- When REST was asked for what it reports; between two of its answers of one update time the later one counts.
    v_asked_ms bigint := 0;
    v_fill ledger.told_fill;
    v_orders ledger.told_order[] := p_orders::ledger.told_order[];
    v_fills ledger.told_fill[] := p_fills::ledger.told_fill[];
    v_balances ledger.told_balance[] := p_balances::ledger.told_balance[];
    -- Told once in this call: the shorter way is tried (alone.sql).
    v_alone boolean := p_source = 'stream' AND p_rare IS NULL AND cardinality(v_orders) = 1
        AND (v_fills IS NULL OR cardinality(v_fills) = 1
             AND (v_fills[1]).symbol = (v_orders[1]).symbol AND (v_fills[1]).order_id = (v_orders[1]).order_id);
    v_sum ledger.fills_sum;
    v_frame_no bigint;
    v_at timestamptz;
    v_row_digest bytea;
    -- Who said it: of a row applied again (db/quarantine.py) the source it came from.
    v_source text := coalesce(p_rare ->> 'source', p_source);
    r record;
BEGIN
    fills_new := 0; orders_changed := 0; others_changed := 0; repeated := false;

    -- An assignment, not a query: no executor is started for it.
    r := ledger.lock_account(p_account, p_fence);
    v_head := r.head_seq;
    v_digest := r.head_digest;

    IF v_frames > 0 THEN
        -- Calls of a session share no frame, so of those that begin before this one's end the last tells.
        SELECT b.first_seq, b.last_seq, b.frame_no INTO first_seq, last_seq, v_frame_no FROM ledger.batches b
        WHERE b.account = p_account AND b.session_id = p_session AND b.frame_no < p_frame_no + v_frames
        ORDER BY b.frame_no DESC LIMIT 1;
        IF v_frame_no = p_frame_no AND last_seq - first_seq + 1 >= v_frames THEN
            repeated := true;   -- the answer of an earlier call was lost: everything is in place already
            RETURN;
        ELSIF v_frame_no + last_seq - first_seq >= p_frame_no THEN
            RAISE EXCEPTION 'session % has frames % to % in the journal, got % to %', p_session, v_frame_no,
                v_frame_no + last_seq - first_seq, p_frame_no, p_frame_no + v_frames - 1 USING ERRCODE = 'SDX02';   -- no content: a mistake of the caller
        END IF;
    END IF;
    first_seq := v_head + 1;
    last_seq := v_head + v_frames;
    IF p_question IS NOT NULL THEN
        v_hash := sha256(p_raw);
        v_same := EXISTS (SELECT FROM ledger.answers w WHERE w.account = p_account AND w.question = p_question
                          AND w.body_sha256 = v_hash);
    END IF;

    IF p_source = 'rest' AND v_frames > 0 THEN
        v_asked_ms := coalesce(v_venue_ms[1], 0);
        v_anew := ledger.of_ids_began_anew(p_account, v_orders, v_fills);
        IF v_anew IS NOT NULL THEN
            v_orders := nullif(ARRAY(SELECT u FROM unnest(v_orders) AS u WHERE NOT EXISTS (
                SELECT FROM jsonb_array_elements(v_anew) a WHERE a ->> 'trade' IS NULL AND a ->> 'symbol' = u.symbol
                AND (a ->> 'id')::bigint = u.order_id AND (a ->> 'ms')::bigint = u.created)), '{}');
            v_fills := nullif(ARRAY(SELECT u FROM unnest(v_fills) AS u WHERE NOT EXISTS (
                SELECT FROM jsonb_array_elements(v_anew) a WHERE (a ->> 'trade')::bigint = u.trade_id
                AND a ->> 'symbol' = u.symbol AND (a ->> 'id')::bigint = u.order_id AND (a ->> 'ms')::bigint = u.ms)), '{}');
        END IF;
    END IF;
    IF v_alone AND v_fills IS NOT NULL THEN
        v_sum := ledger.land_alone(p_account, v_fills[1], v_head);
        v_alone := v_sum.symbol IS NOT NULL;
    END IF;
    IF v_alone AND v_fills IS NOT NULL THEN
        fills_new := 1;
        v_sums := ARRAY[v_sum];
    ELSIF v_fills IS NOT NULL THEN
        WITH f AS (
            SELECT DISTINCT ON (u.symbol, u.order_id, u.trade_id, u.key, u.ordinal)
                   u.symbol, u.order_id, u.trade_id, u.key, u.ordinal, u.ordinality AS n
            FROM unnest(v_fills) WITH ORDINALITY AS u
            ORDER BY u.symbol, u.order_id, u.trade_id, u.key, u.ordinal, u.ordinality
        ), known AS (
            -- The first row from the key on, in the order of the one index that knows it (see the orders below).
            SELECT u.n, u.symbol, u.order_id, u.trade_id,
                   coalesce(t.trade_id = u.trade_id OR (c.stream_key, c.stream_ordinal) = (u.key, u.ordinal), false) AS met
            FROM f u
            LEFT JOIN LATERAL (
                SELECT x.trade_id FROM ledger.fills x WHERE x.account = p_account AND x.symbol = u.symbol
                AND x.order_id = u.order_id AND x.trade_id >= u.trade_id ORDER BY x.trade_id LIMIT 1
            ) t ON true
            LEFT JOIN LATERAL (
                SELECT x.stream_key, x.stream_ordinal FROM ledger.fills x
                WHERE u.trade_id IS NULL AND x.account = p_account AND x.symbol = u.symbol AND x.order_id = u.order_id
                AND x.stream_key IS NOT NULL AND (x.stream_key, x.stream_ordinal) >= (u.key, u.ordinal)
                ORDER BY x.stream_key, x.stream_ordinal LIMIT 1
            ) c ON true
        )
        SELECT array_agg(k.n ORDER BY k.n) FILTER (WHERE NOT k.met),
               coalesce(bool_or(NOT k.met AND CASE WHEN k.trade_id IS NULL THEN (
                   SELECT c.trade_id FROM ledger.fills c WHERE c.account = p_account AND c.symbol = k.symbol
                   AND c.order_id = k.order_id AND c.trade_id IS NOT NULL ORDER BY c.trade_id LIMIT 1) IS NOT NULL
               ELSE (
                   SELECT c.stream_key FROM ledger.fills c WHERE c.account = p_account AND c.symbol = k.symbol
                   AND c.order_id = k.order_id AND c.stream_key IS NOT NULL AND c.state <> 'voided'
                   ORDER BY c.stream_key, c.stream_ordinal LIMIT 1) IS NOT NULL END), false)
               OR (bool_or(k.trade_id IS NULL) AND bool_or(k.trade_id IS NOT NULL))
        INTO v_fresh, v_pairing FROM known k;
        -- What is not fresh meets a row: its own of before, or the first of its doubles in this batch.
        IF coalesce(array_length(v_fresh, 1), 0) < array_length(v_fills, 1) THEN
            SELECT array_agg(n ORDER BY n) INTO v_met FROM generate_subscripts(v_fills, 1) n
            WHERE v_fresh IS NULL OR n <> ALL (v_fresh);
        END IF;

        IF v_fresh IS NOT NULL AND NOT v_pairing THEN
            WITH put AS (
                INSERT INTO ledger.fills (
                    account, first_seq, first_index, symbol, order_id, trade_id, stream_key, stream_ordinal, stream_ms,
                    side, price, qty, quote_qty, quote_derived, fee, fee_asset, is_maker, executed_ms, source, state, seq
                )
                SELECT p_account, v_head + u.frame, u.index, u.symbol, u.order_id, u.trade_id, u.key, u.ordinal,
                       CASE WHEN u.key IS NOT NULL THEN u.ms END, u.side, u.price::numeric, u.qty::numeric,
                       coalesce(u.quote::numeric, u.price::numeric * u.qty::numeric), u.quote IS NULL,
                       u.fee::numeric, u.fee_asset, u.maker, u.ms, v_source,
                       CASE WHEN u.trade_id IS NULL AND u.ordinal > 1 THEN 'provisional' ELSE 'confirmed' END,
                       v_head + u.frame
                FROM unnest(v_fills) WITH ORDINALITY AS u
                WHERE u.ordinality = ANY (v_fresh)
                ORDER BY u.symbol, u.order_id, u.trade_id, u.key, u.ordinal
                RETURNING symbol, order_id, qty, quote_qty, state, seq
            ), sums AS (
                SELECT p.symbol, p.order_id, count(*) AS n, max(p.seq) - v_head AS frame,
                       coalesce(sum(p.qty) FILTER (WHERE p.state = 'confirmed'), 0) AS qty,
                       coalesce(sum(p.quote_qty) FILTER (WHERE p.state = 'confirmed'), 0) AS quote
                FROM put p GROUP BY p.symbol, p.order_id
            )
            SELECT sum(s.n), array_agg(ROW(s.symbol, s.order_id, s.qty, s.quote, s.frame)::ledger.fills_sum)
            INTO fills_new, v_sums FROM sums s;
        ELSIF v_fresh IS NOT NULL THEN
            FOREACH v_rows IN ARRAY v_fresh LOOP
                v_fill := v_fills[v_rows];
                IF ledger.land_fill(
                    p_account, v_source, v_head + v_fill.frame, v_fill.index, v_fill.symbol, v_fill.order_id,
                    v_fill.trade_id, v_fill.key, v_fill.ordinal, v_fill.side, v_fill.price::numeric, v_fill.qty::numeric,
                    v_fill.quote::numeric, v_fill.fee::numeric, v_fill.fee_asset, v_fill.maker, v_fill.ms)
                THEN
                    fills_new := fills_new + 1;
                ELSE
                    others_changed := others_changed + 1;
                END IF;
            END LOOP;
            v_sum_whole := true;
        END IF;

        IF v_met IS NOT NULL THEN
            FOR r IN
                SELECT u.*, t.first_seq, t.first_index
                FROM unnest(v_fills) WITH ORDINALITY AS u
                CROSS JOIN LATERAL (
                    SELECT a.* FROM ledger.fills a WHERE a.account = p_account AND a.symbol = u.symbol
                    AND a.order_id = u.order_id AND a.trade_id = u.trade_id
                    UNION ALL
                    SELECT a.* FROM ledger.fills a WHERE u.trade_id IS NULL AND a.account = p_account
                    AND a.symbol = u.symbol AND a.order_id = u.order_id AND a.stream_key = u.key
                    AND a.stream_ordinal = u.ordinal
                ) t
                WHERE u.ordinality = ANY (v_met)
                  AND (t.price <> u.price::numeric OR t.qty <> u.qty::numeric
                       OR t.fee IS DISTINCT FROM u.fee::numeric OR t.fee_asset IS DISTINCT FROM u.fee_asset
                       OR t.side IS DISTINCT FROM u.side OR t.is_maker IS DISTINCT FROM u.maker
                       OR (u.quote IS NOT NULL AND (t.quote_derived OR t.quote_qty <> u.quote::numeric))
                       OR (u.trade_id IS NOT NULL AND t.executed_ms <> u.ms))
                ORDER BY u.ordinality
            LOOP
                v_rows := ledger.meet_fill(
                    p_account, v_source, v_head + r.frame, ledger.moment(v_received_ms[r.frame]), r.first_seq, r.first_index,
                    r.trade_id IS NOT NULL, r.side, r.price::numeric, r.qty::numeric, r.quote::numeric, r.fee::numeric,
                    r.fee_asset, r.maker, r.ms);
                others_changed := others_changed + v_rows;
                v_sum_whole := v_sum_whole OR v_rows > 0;
            END LOOP;
        END IF;
    END IF;

    -- Settlements change which fills count, so they come before the sums. An answer that may not know yet of the order's
    -- newest move judges nothing: what it has not heard of would count against a twin.
    IF p_rare IS NOT NULL THEN
        FOR r IN SELECT s ->> 'symbol' AS symbol, (s ->> 'order_id')::bigint AS order_id, (s ->> 'executed_qty')::numeric AS qty,
                        (s ->> 'frame')::integer AS frame
                 FROM jsonb_array_elements(p_rare -> 'settlements') s
                 WHERE NOT EXISTS (
                     SELECT FROM ledger.orders o WHERE o.account = p_account AND o.symbol = s ->> 'symbol'
                     AND o.order_id = (s ->> 'order_id')::bigint
                     AND o.updated_ms > v_venue_ms[(s ->> 'frame')::integer] - p_lag_ms)
        LOOP
            v_rows := ledger.settle_order(p_account, r.symbol, r.order_id, r.qty, v_head + r.frame, ledger.moment(v_received_ms[r.frame]));
            others_changed := others_changed + v_rows;
            IF v_rows > 0 THEN
                v_sum_whole := true;
                v_settled := coalesce(v_settled, '[]') || jsonb_build_object('symbol', r.symbol, 'id', r.order_id, 'frame', r.frame);
            END IF;
        END LOOP;
    END IF;
    -- A lost fill may have made room for a doubled frame. The trades say what really happened: where they leave no room
    -- for it, it is provisional again.
    IF v_pairing AND v_fresh IS NOT NULL THEN
        UPDATE ledger.fills t SET state = 'provisional', doubt_executed = NULL
        FROM (SELECT DISTINCT u.symbol, u.order_id FROM unnest(v_fills) AS u
              WHERE u.trade_id IS NOT NULL) k
        JOIN ledger.orders o ON o.account = p_account AND o.symbol = k.symbol AND o.order_id = k.order_id
        WHERE t.account = p_account AND t.symbol = k.symbol AND t.order_id = k.order_id AND t.trade_id IS NULL
          AND t.stream_key IS NOT NULL AND t.stream_ordinal > 1 AND t.state = 'confirmed'
          AND o.venue_executed_qty < (SELECT sum(f.qty) FROM ledger.fills f WHERE f.account = p_account
              AND f.symbol = k.symbol AND f.order_id = k.order_id AND f.state = 'confirmed');
    END IF;
    IF v_sum_whole THEN
        SELECT array_agg(ROW(t.symbol, t.order_id, t.qty, t.quote, t.frame)::ledger.fills_sum) INTO v_sums
        FROM (
            SELECT k.symbol, k.order_id, max(k.frame) AS frame,
                   (SELECT coalesce(sum(f.qty), 0) FROM ledger.fills f WHERE f.account = p_account
                    AND f.symbol = k.symbol AND f.order_id = k.order_id AND f.state = 'confirmed') AS qty,
                   (SELECT coalesce(sum(f.quote_qty), 0) FROM ledger.fills f WHERE f.account = p_account
                    AND f.symbol = k.symbol AND f.order_id = k.order_id AND f.state = 'confirmed') AS quote
            FROM (SELECT u.symbol, u.order_id, u.frame FROM unnest(v_fills) AS u
                  UNION ALL
                  SELECT s ->> 'symbol', (s ->> 'id')::bigint, (s ->> 'frame')::integer
                  FROM jsonb_array_elements(v_settled) s) k
            GROUP BY k.symbol, k.order_id
        ) t;
    END IF;

    IF v_alone THEN
        v_alone := ledger.move_alone(p_account, v_orders[1], v_sum, v_head);
    END IF;
    IF v_alone THEN
        orders_changed := 1;
    ELSIF v_orders IS NOT NULL OR v_sums IS NOT NULL OR v_anew IS NOT NULL THEN
        WITH facts AS (
            SELECT u.symbol, u.order_id, u.frame, u.status, ledger.status_rank(u.status) AS rank,
                   (ledger.status_rank(u.status), u.decides AND ledger.status_rank(u.status) = 3,
                    coalesce(u.executed::numeric, 0), coalesce(u.updated, 0), ledger.status_tie(u.status))
                       ::ledger.order_standing AS standing,
                   u.side, u.type, u.tif, u.client,
                   u.price::numeric AS price, u.orig::numeric AS orig, u.executed::numeric AS executed,
                   u.quote::numeric AS quote, u.created, u.updated
            FROM unnest(v_orders) AS u
        ), folded AS (
            SELECT f.symbol, f.order_id, max(f.frame) AS frame,
                   (array_agg(f.standing ORDER BY f.standing DESC))[1] AS top,
                   min(f.side) AS side, max(f.side) AS side2, min(f.type) AS type, max(f.type) AS type2,
                   min(f.tif) AS tif, max(f.tif) AS tif2, min(f.client) AS client, max(f.client) AS client2,
                   min(f.price) AS price, max(f.price) AS price2, min(f.orig) AS orig, max(f.orig) AS orig2,
                   max(coalesce(f.updated, 0)) FILTER (WHERE f.orig IS NOT NULL OR f.price IS NOT NULL OR f.client IS NOT NULL)
                       AS terms_ms,
                   min(f.status) FILTER (WHERE f.rank = 3) AS end1, max(f.status) FILTER (WHERE f.rank = 3) AS end2,
                   max(f.executed) AS executed, max(f.quote) AS quote, min(f.created) AS created, max(f.updated) AS updated,
                   max(f.updated) FILTER (WHERE f.rank IN (0, 1)) AS begun
            FROM facts f GROUP BY f.symbol, f.order_id
        ), sums AS (
            SELECT u.* FROM unnest(v_sums) AS u
        ), settled AS (
            -- Quantity, price and client id may be amended: of those told in this call the newest count, of equal times the
            -- smallest. a is looked at only where they differ.
            SELECT f.*, coalesce(a.client, f.client) AS new_client, coalesce(a.price, f.price) AS new_price,
                   coalesce(a.orig, f.orig) AS new_orig,
                   a.client IS NOT NULL OR a.price IS NOT NULL OR a.orig IS NOT NULL AS is_amended, a.conflicts
            FROM folded f
            LEFT JOIN LATERAL (
                SELECT (array_agg(t.client ORDER BY t.ms DESC, t.client) FILTER (WHERE t.client IS NOT NULL))[1] AS client,
                       (array_agg(t.price ORDER BY t.ms DESC, t.price) FILTER (WHERE t.price IS NOT NULL))[1] AS price,
                       (array_agg(t.orig ORDER BY t.ms DESC, t.orig) FILTER (WHERE t.orig IS NOT NULL))[1] AS orig,
                       concat_ws(', ', CASE WHEN bool_or(t.client <> t.client2) THEN 'client_order_id' END,
                                 CASE WHEN bool_or(t.price <> t.price2) THEN 'price' END,
                                 CASE WHEN bool_or(t.orig <> t.orig2) THEN 'orig_qty' END) AS conflicts
                FROM (
                    SELECT coalesce(u.updated, 0) AS ms, min(u.client) AS client, max(u.client) AS client2,
                           min(u.price::numeric) AS price, max(u.price::numeric) AS price2,
                           min(u.orig::numeric) AS orig, max(u.orig::numeric) AS orig2
                    FROM unnest(v_orders) AS u
                    WHERE (f.client <> f.client2 OR f.price <> f.price2 OR f.orig <> f.orig2)
                      AND u.symbol = f.symbol AND u.order_id = f.order_id
                    GROUP BY 1
                ) t
            ) a ON true
        ), drafted AS (
            SELECT coalesce(f.symbol, s.symbol) AS symbol, coalesce(f.order_id, s.order_id) AS order_id,
                   v_head + coalesce(f.frame, s.frame) AS seq, f.frame,
                   CASE WHEN o.client_order_id <> f.new_client AND v.newer THEN f.new_client
                        WHEN o.client_order_id <> f.new_client AND v.level THEN least(o.client_order_id, f.new_client)
                        ELSE coalesce(o.client_order_id, f.new_client) END AS client,
                   coalesce(o.side, f.side, x.side) AS side,
                   coalesce(o.type, f.type) AS type, coalesce(o.time_in_force, f.tif) AS tif,
                   CASE WHEN o.price <> f.new_price AND v.newer THEN f.new_price
                        WHEN o.price <> f.new_price AND v.level THEN least(o.price, f.new_price)
                        ELSE coalesce(o.price, f.new_price) END AS price,
                   CASE WHEN o.orig_qty <> f.new_orig AND v.newer THEN f.new_orig
                        WHEN o.orig_qty <> f.new_orig AND v.level THEN least(o.orig_qty, f.new_orig)
                        ELSE coalesce(o.orig_qty, f.new_orig) END AS orig,
                   CASE WHEN v.newer OR o.account IS NULL THEN coalesce(f.terms_ms, 0) ELSE o.terms_ms END AS terms_ms,
                   CASE WHEN v.newer OR o.account IS NULL THEN CASE WHEN f.terms_ms IS NULL THEN 0 ELSE v_asked_ms END
                        ELSE o.terms_asked_ms END AS terms_asked_ms,
                   coalesce(f.is_amended OR o.client_order_id <> f.new_client OR o.price <> f.new_price
                            OR o.orig_qty <> f.new_orig, false) AS amended,
                   -- Another order of the same id, whichever of them came first.
                   f.symbol IS NOT NULL AND (
                       (f.created IS NULL AND ledger.is_long_over(
                           p_account, f.symbol, o.status_rank, o.created_ms, o.updated_ms, o.venue_executed_qty, o.fills_qty,
                           f.updated))
                       -- REST was asked for the one that had ended before the other was new.
                       OR coalesce(f.created IS NULL AND o.status_rank = 3 AND o.terms_asked_ms > 0 AND f.begun
                                   > greatest(o.terms_asked_ms, o.updated_ms + ledger.anew_after_ms()), false)
                       OR coalesce(o.status_rank = 3 AND f.created > o.updated_ms + ledger.anew_after_ms(), false)
                       OR coalesce(o.created_ms > f.updated + ledger.anew_after_ms(), false)
                       OR ledger.is_of_other_side(o.side, f.side, o.updated_ms, f.updated)) AS anew,
                   f.side AS said_side, f.new_orig AS said_orig, f.created AS said_created,
                   greatest(o.venue_executed_qty, f.executed) AS executed,
                   greatest(o.venue_executed_quote, f.quote) AS quote,
                   least(o.created_ms, f.created) AS created, greatest(o.updated_ms, f.updated) AS updated,
                   CASE WHEN s.symbol IS NULL THEN coalesce(o.fills_qty, 0) WHEN v_sum_whole THEN s.qty
                        ELSE coalesce(o.fills_qty, 0) + s.qty END AS fills_qty,
                   CASE WHEN s.symbol IS NULL THEN coalesce(o.fills_quote, 0) WHEN v_sum_whole THEN s.quote
                        ELSE coalesce(o.fills_quote, 0) + s.quote END AS fills_quote,
                   o.account IS NULL OR coalesce(
                       f.top > (o.status_rank, o.status_decided, o.status_executed, o.status_ms,
                                ledger.status_tie(o.status))::ledger.order_standing, false) AS wins,
                   -- Something of the order changed that neither an execution nor the status is, and was not said.
                   coalesce(v_source = 'stream' AND o.status_rank < 3 AND (f.top).status = ledger.status_tie(o.status)
                            AND (f.top).updated > o.status_ms AND f.terms_ms IS NULL AND s.symbol IS NULL, false) AS repeated,
                   f.top, o AS old, o.account IS NULL AS fresh, f.executed IS NOT NULL AS told,
                   CASE WHEN f.symbol IS NULL THEN NULL ELSE concat_ws(', ',
                       CASE WHEN f.side <> f.side2 OR o.side <> f.side OR o.side <> f.side2 THEN 'side' END,
                       CASE WHEN f.type <> f.type2 OR o.type <> f.type OR o.type <> f.type2 THEN 'type' END,
                       CASE WHEN f.tif <> f.tif2 OR o.time_in_force <> f.tif OR o.time_in_force <> f.tif2
                            THEN 'time_in_force' END,
                       nullif(f.conflicts, ''),
                       CASE WHEN v.at_once AND o.client_order_id <> f.new_client THEN 'client_order_id' END,
                       CASE WHEN v.at_once AND o.price <> f.new_price THEN 'price' END,
                       CASE WHEN v.at_once AND o.orig_qty <> f.new_orig THEN 'orig_qty' END
                   ) END AS conflicts,
                   concat_ws(' ', f.side, f.side2, f.type, f.type2, f.tif, f.tif2, f.client, f.client2, f.price, f.price2,
                             f.orig, f.orig2) AS said,
                   -- REST may lag, but what it dates as late as ours cannot have executed less. Where it gives no time
                   -- of the change, only of the creation, and between executions of one millisecond, it still can.
                   v_source = 'rest' AND f.executed < o.venue_executed_qty AND f.updated >= o.updated_ms
                       AND (f.updated > o.updated_ms OR (f.updated > f.created AND 2 > (
                           SELECT count(*) FROM ledger.fills x WHERE x.account = p_account AND x.symbol = f.symbol
                           AND x.order_id = f.order_id AND x.executed_ms = f.updated))) AS shrank,
                   f.executed AS said_executed, f.updated AS said_ms,
                   CASE WHEN f.end1 <> f.end2 THEN f.end1 WHEN o.status_rank = 3 AND f.end1 <> o.status THEN o.status
                   END AS one_end,
                   CASE WHEN f.end1 <> f.end2 THEN f.end2 WHEN o.status_rank = 3 AND f.end1 <> o.status THEN f.end1
                   END AS other_end
            FROM settled f FULL JOIN sums s ON s.symbol = f.symbol AND s.order_id = f.order_id
            -- One by one, and in the order of the key: of a small table without statistics any index, and reading all of
            -- it, looks as good as the key, and a plan made then is kept while the table grows.
            LEFT JOIN LATERAL (
                SELECT t.* FROM ledger.orders t WHERE t.account = p_account
                AND (t.symbol, t.order_id) >= (coalesce(f.symbol, s.symbol), coalesce(f.order_id, s.order_id))
                ORDER BY t.symbol, t.order_id LIMIT 1
            ) o ON o.symbol = coalesce(f.symbol, s.symbol) AND o.order_id = coalesce(f.order_id, s.order_id)
            -- Whether what is told is of a later moment than what is held, or of the same, and whether two values of that
            -- moment contradict each other: they do unless REST, which gave no time but the creation, was asked for both.
            CROSS JOIN LATERAL (
                SELECT coalesce((f.terms_ms, v_asked_ms) > (o.terms_ms, o.terms_asked_ms), false) AS newer,
                       coalesce((f.terms_ms, v_asked_ms) = (o.terms_ms, o.terms_asked_ms), false) AS level,
                       coalesce(f.terms_ms = o.terms_ms AND NOT (
                           p_source = 'rest' AND o.terms_asked_ms > 0 AND v_asked_ms <> o.terms_asked_ms
                           AND coalesce(f.updated <= f.created, true)
                           -- An answer of before may have executed less, but none that tells the order's end.
                           AND NOT coalesce((f.top).rank = 3 AND f.executed < o.venue_executed_qty, false)), false) AS at_once
            ) v
            -- A trade of REST may be the first we hear of its order; it tells the side, nothing else.
            LEFT JOIN LATERAL (SELECT max(u.side) AS side FROM unnest(v_fills) AS u
                WHERE f.symbol IS NULL AND o.account IS NULL AND u.symbol = s.symbol AND u.order_id = s.order_id) x ON true
        ), judged AS (
            -- The stream moved the order and told no executed quantity, and this answer may not know of that move yet.
            SELECT d.*, coalesce(d.told AND v_source = 'rest' AND (d.old).seq > coalesce((d.old).told_seq, 0)
                                 AND (d.old).updated_ms > v_venue_ms[d.frame] - p_lag_ms, false) AS stale
            FROM drafted d
        ), merged AS (
            -- What the stream adds after a loss says nothing of what was lost: such an order must be asked for again.
            SELECT d.*, CASE WHEN d.stale THEN coalesce((d.old).told_seq, 0) WHEN d.told THEN d.seq
                        ELSE (d.old).told_seq END AS told_seq,
                   CASE WHEN d.stale THEN true WHEN d.told THEN d.executed > d.fills_qty
                        -- Trades of REST are complete: once they reach what was told, nothing is lost any more.
                        WHEN v_source = 'rest' THEN coalesce((d.old).wounded, false) AND d.executed > d.fills_qty
                        ELSE coalesce((d.old).wounded, false) END AS wounded
            FROM judged d
        ), put AS (
            INSERT INTO ledger.orders AS t (
                account, symbol, order_id, client_order_id, side, type, time_in_force, price, orig_qty,
                venue_executed_qty, venue_executed_quote, status, status_rank, status_decided, status_executed,
                status_ms, created_ms, updated_ms, fills_qty, fills_quote, told_seq, wounded, terms_ms, terms_asked_ms, seq
            )
            SELECT p_account, m.symbol, m.order_id, m.client, m.side, m.type, m.tif, m.price, m.orig, m.executed, m.quote,
                   CASE WHEN m.wins THEN nullif(substr((m.top).status, 2), '') ELSE (m.old).status END,
                   CASE WHEN m.wins THEN coalesce((m.top).rank, -1::smallint) ELSE (m.old).status_rank END,
                   CASE WHEN m.wins THEN coalesce((m.top).decided, false) ELSE (m.old).status_decided END,
                   CASE WHEN m.wins THEN coalesce((m.top).executed, 0) ELSE (m.old).status_executed END,
                   CASE WHEN m.wins THEN coalesce((m.top).updated, 0) ELSE (m.old).status_ms END,
                   m.created, m.updated, m.fills_qty, m.fills_quote, m.told_seq, m.wounded, m.terms_ms, m.terms_asked_ms, m.seq
            FROM merged m
            WHERE NOT m.anew AND (m.fresh OR m.wins OR m.wounded IS DISTINCT FROM (m.old).wounded
               OR (m.wounded AND m.told AND NOT m.stale AND (m.old).seq > (m.old).told_seq)
               OR (m.client, m.side, m.type, m.tif, m.price, m.orig, m.executed, m.quote, m.created, m.updated,
                   m.fills_qty, m.fills_quote)
                  IS DISTINCT FROM
                  ((m.old).client_order_id, (m.old).side, (m.old).type, (m.old).time_in_force, (m.old).price,
                   (m.old).orig_qty, (m.old).venue_executed_qty, (m.old).venue_executed_quote, (m.old).created_ms,
                   (m.old).updated_ms, (m.old).fills_qty, (m.old).fills_quote))
            ORDER BY m.symbol, m.order_id
            ON CONFLICT (account, symbol, order_id) DO UPDATE SET
                client_order_id = excluded.client_order_id, side = excluded.side, type = excluded.type,
                time_in_force = excluded.time_in_force, price = excluded.price, orig_qty = excluded.orig_qty,
                venue_executed_qty = excluded.venue_executed_qty, venue_executed_quote = excluded.venue_executed_quote,
                status = excluded.status, status_rank = excluded.status_rank, status_decided = excluded.status_decided,
                status_executed = excluded.status_executed, status_ms = excluded.status_ms,
                created_ms = excluded.created_ms, updated_ms = excluded.updated_ms, fills_qty = excluded.fills_qty,
                fills_quote = excluded.fills_quote, told_seq = excluded.told_seq, wounded = excluded.wounded,
                terms_ms = excluded.terms_ms, terms_asked_ms = excluded.terms_asked_ms, seq = excluded.seq
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM put),
               (SELECT jsonb_agg(jsonb_build_object(
                    'symbol', m.symbol, 'id', m.order_id, 'frame', m.frame, 'fields', m.conflicts, 'said', m.said,
                    'held', concat_ws(' ', m.side, m.type, m.tif, coalesce((m.old).client_order_id, m.client),
                                      coalesce((m.old).price, m.price), coalesce((m.old).orig_qty, m.orig)),
                    'shrank', m.shrank, 'amended', m.amended, 'anew', m.anew, 'repeated_ms', CASE WHEN m.repeated THEN m.updated END,
                    'anew_held', CASE WHEN m.anew THEN ledger.order_in_words(
                        (m.old).order_id, (m.old).side, (m.old).orig_qty, (m.old).status, (m.old).created_ms,
                        (m.old).updated_ms) END,
                    'anew_said', CASE WHEN m.anew THEN ledger.order_in_words(
                        m.order_id, m.said_side, m.said_orig, substr((m.top).status, 2), m.said_created, m.said_ms) END,
                    'anew_ms', greatest(coalesce(m.said_created, m.said_ms), (m.old).created_ms),
                    'was_client', (m.old).client_order_id, 'was_price', trim_scale((m.old).price)::text,
                    'was_orig', trim_scale((m.old).orig_qty)::text, 'was_ms', (m.old).terms_ms,
                    'held_executed', (m.old).venue_executed_qty::text,
                    'said_executed', concat_ws(' at ', m.said_executed, m.said_ms),
                    'one_end', least(m.one_end, m.other_end), 'other_end', greatest(m.one_end, m.other_end)))
                FROM merged m WHERE m.conflicts <> '' OR m.one_end IS NOT NULL OR m.shrank OR m.amended OR m.anew
                   OR m.repeated)
        INTO orders_changed, v_conflicts;

        IF v_conflicts IS NOT NULL THEN
            FOR r IN SELECT c ->> 'symbol' AS symbol, (c ->> 'id')::bigint AS id, (c ->> 'frame')::integer AS frame,
                            c ->> 'fields' AS fields, c ->> 'held' AS held, c ->> 'said' AS said, c ->> 'one_end' AS one_end,
                            c ->> 'other_end' AS other_end, (c ->> 'shrank')::boolean AS shrank,
                            c ->> 'held_executed' AS held_executed, c ->> 'said_executed' AS said_executed,
                            (c ->> 'anew')::boolean AS anew, (c ->> 'amended')::boolean AS amended,
                            (c ->> 'repeated_ms')::bigint AS repeated_ms, c AS whole
                     FROM jsonb_array_elements(v_conflicts) c
            LOOP
                IF r.anew THEN
                    v_anew := coalesce(v_anew, '[]') || jsonb_build_object(
                        'symbol', r.symbol, 'id', r.id, 'frame', r.frame, 'ms', r.whole -> 'anew_ms',
                        'held', r.whole -> 'anew_held', 'said', r.whole -> 'anew_said');
                    -- What came along is kept, where nobody counts it as the old order's.
                    UPDATE ledger.fills f SET state = 'voided'
                    WHERE f.account = p_account AND f.symbol = r.symbol AND f.order_id = r.id
                      AND f.first_seq BETWEEN v_head + 1 AND last_seq;
                    CONTINUE;
                END IF;
                IF r.amended THEN
                    PERFORM ledger.keep_amended(p_account, r.whole, v_orders, v_head + r.frame);
                END IF;
                IF r.repeated_ms IS NOT NULL THEN
                    INSERT INTO ledger.order_checks (account, symbol, order_id, reason, due_ms)
                    VALUES (p_account, r.symbol, r.id, 'reported_again', r.repeated_ms + p_lag_ms) ON CONFLICT DO NOTHING;
                END IF;
                IF r.shrank THEN
                    others_changed := others_changed + ledger.doubt(
                        p_account, 'order_shrank', concat_ws('/', r.symbol, r.id), r.held_executed, r.said_executed,
                        v_head + r.frame, ledger.moment(v_received_ms[r.frame]), p_symbol => r.symbol,
                        p_order_id => r.id);
                END IF;
                IF r.fields <> '' THEN
                    others_changed := others_changed + ledger.doubt(
                        p_account, 'order_conflict', concat_ws('/', r.symbol, r.id, r.fields), r.held, r.said,
                        v_head + r.frame, ledger.moment(v_received_ms[r.frame]), p_symbol => r.symbol,
                        p_order_id => r.id);
                END IF;
                IF r.one_end IS NOT NULL THEN
                    others_changed := others_changed + ledger.doubt(
                        p_account, 'terminal_conflict', concat_ws('/', r.symbol, r.id), r.one_end, r.other_end,
                        v_head + r.frame, ledger.moment(v_received_ms[r.frame]), p_symbol => r.symbol,
                        p_order_id => r.id);
                END IF;
            END LOOP;
        END IF;
        IF v_anew IS NOT NULL THEN
            FOR r IN SELECT a ->> 'symbol' AS symbol, (a ->> 'id')::bigint AS id, (a ->> 'trade')::bigint AS trade,
                            (a ->> 'frame')::integer AS frame, (a ->> 'ms')::bigint AS ms, a ->> 'held' AS held,
                            a ->> 'said' AS said
                     FROM jsonb_array_elements(v_anew) a
            LOOP
                others_changed := others_changed + ledger.ids_began_anew(
                    p_account, r.symbol, r.id, r.trade, r.held, r.said, r.ms, v_head + r.frame,
                    ledger.moment(v_received_ms[r.frame]));
            END LOOP;
        END IF;
        -- GET order decides between two terminal states, those told after its answer included.
        IF v_conflicts IS NOT NULL OR (v_source = 'rest' AND (SELECT bool_or(u.decides) FROM unnest(v_orders) AS u)) THEN
            UPDATE ledger.discrepancies d SET resolved_at = ledger.moment(v_received_ms[1]), seq = v_head + 1,
                resolution = 'GET order says ' || o.status
            FROM ledger.orders o
            WHERE d.account = p_account AND d.kind = 'terminal_conflict' AND d.resolved_at IS NULL
              AND o.account = p_account AND o.status_decided AND d.symbol = o.symbol AND d.order_id = o.order_id
              AND (o.symbol, o.order_id) IN (SELECT u.symbol, u.order_id FROM unnest(v_orders) AS u);
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            others_changed := others_changed + v_rows;
        END IF;
        IF p_source = 'rest' THEN
            UPDATE ledger.discrepancies d SET resolved_at = ledger.moment(v_received_ms[1]), seq = v_head + 1,
                resolution = CASE d.kind WHEN 'order_unknown' THEN 'the venue knows the order again'
                                         ELSE 'the venue told of the order' END
            WHERE d.account = p_account AND d.resolved_at IS NULL AND d.trade_id IS NULL
              AND d.kind IN ('order_unknown', 'order_refused', 'rest_row')
              AND (d.symbol, d.order_id) IN (SELECT u.symbol, u.order_id FROM unnest(v_orders) AS u);
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            others_changed := others_changed + v_rows;
            -- What could not be read on the stream is read now, as late as REST must know of it.
            UPDATE ledger.discrepancies d SET resolved_at = ledger.moment(v_received_ms[1]), seq = v_head + 1,
                resolution = 'the order was read over REST'
            WHERE d.account = p_account AND d.kind = 'unreadable_report' AND d.resolved_at IS NULL
              AND EXISTS (SELECT FROM unnest(v_orders) AS u WHERE u.symbol = d.symbol AND u.order_id = d.order_id
                          AND v_venue_ms[u.frame] - p_lag_ms > d.uncovered_from_ms);
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            others_changed := others_changed + v_rows;
            IF EXISTS (SELECT FROM ledger.order_checks c WHERE c.account = p_account) THEN
                DELETE FROM ledger.order_checks c
                WHERE c.account = p_account AND c.reason IN ('unknown_to_venue', 'absent')
                  AND (c.symbol, c.order_id) IN (SELECT u.symbol, u.order_id FROM unnest(v_orders) AS u);
            END IF;
        END IF;
    END IF;

    IF p_source = 'rest' AND v_fills IS NOT NULL THEN
        UPDATE ledger.discrepancies d SET resolved_at = ledger.moment(v_received_ms[1]), seq = v_head + 1,
            resolution = 'the venue told of the trade'
        WHERE d.account = p_account AND d.kind = 'rest_row' AND d.resolved_at IS NULL AND d.trade_id IS NOT NULL
          AND (d.symbol, d.order_id, d.trade_id) IN (SELECT u.symbol, u.order_id, u.trade_id FROM unnest(v_fills) AS u);
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        others_changed := others_changed + v_rows;
    END IF;

    IF v_balances IS NOT NULL THEN
        -- Nearly all of them are new and told once. Of a state told twice in this call the later row names it.
        INSERT INTO ledger.balance_history (account, asset, as_of_ms, free, locked, k, source, seq)
        SELECT p_account, u.asset, u.ms, u.free::numeric, u.locked::numeric, u.k, v_source, v_head + u.frame
        FROM unnest(v_balances) AS u
        ORDER BY u.asset, u.ms, u.frame DESC
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        others_changed := others_changed + v_rows;
        IF v_rows < cardinality(v_balances) THEN
            INSERT INTO ledger.balance_history AS h (account, asset, as_of_ms, free, locked, k, source, seq)
            SELECT p_account, p.asset, p.ms, p.free, p.locked, p.k, v_source, v_head + p.frame
            FROM (
                SELECT u.asset, u.ms, u.free::numeric AS free, u.locked::numeric AS locked, max(u.k) AS k, max(u.frame) AS frame
                FROM unnest(v_balances) AS u
                GROUP BY 1, 2, 3, 4
            ) p
            ORDER BY p.asset, p.ms, p.free, p.locked
            ON CONFLICT (account, asset, as_of_ms, free, locked) DO UPDATE SET k = excluded.k WHERE excluded.k > h.k;
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            others_changed := others_changed + v_rows;
        END IF;
        INSERT INTO ledger.balances AS t (account, asset, free, locked, as_of_ms, k, source, position_seq, seq)
        SELECT p_account, n.asset, n.free, n.locked, n.ms, n.k, v_source, v_head + n.frame, v_head + n.frame
        FROM (
            SELECT DISTINCT ON (u.asset) u.asset, u.ms, u.free::numeric AS free, u.locked::numeric AS locked, u.k, u.frame
            FROM unnest(v_balances) AS u
            ORDER BY u.asset, u.ms DESC, u.k DESC, u.free::numeric DESC, u.locked::numeric DESC, u.frame DESC
        ) n
        ORDER BY n.asset
        ON CONFLICT (account, asset) DO UPDATE SET
            free = excluded.free, locked = excluded.locked, as_of_ms = excluded.as_of_ms, k = excluded.k,
            source = excluded.source, position_seq = excluded.position_seq, seq = excluded.seq
        WHERE (excluded.as_of_ms, excluded.k, excluded.free, excluded.locked) > (t.as_of_ms, t.k, t.free, t.locked);
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        others_changed := others_changed + v_rows;
        -- A position between two snapshots, even one that lost by its clock, makes the first of them stale.
        IF EXISTS (SELECT FROM ledger.observations x WHERE x.account = p_account AND x.kind = 'snapshot') THEN
            DELETE FROM ledger.observations x
            WHERE x.account = p_account AND x.kind = 'snapshot'
              AND x.subject IN (SELECT u.asset FROM unnest(v_balances) AS u);
        END IF;
    END IF;

    IF p_rare IS NOT NULL THEN
        WITH put AS (
            INSERT INTO ledger.transfers (account, asset, at_ms, kind, amount, ordinal, source, seq)
            SELECT p_account, t ->> 'asset', (t ->> 'at_ms')::bigint, t ->> 'kind', (t ->> 'amount')::numeric,
                   coalesce((t ->> 'ordinal')::integer, 1), v_source, v_head + (t ->> 'frame')::integer
            FROM jsonb_array_elements(p_rare -> 'transfers') t ORDER BY 2, 3, 4, 5, 6
            ON CONFLICT (account, asset, at_ms, kind, amount, ordinal) DO NOTHING RETURNING 1
        )
        SELECT count(*) INTO v_rows FROM put;
        others_changed := others_changed + v_rows;
        UPDATE ledger.discrepancies t SET resolved_at = ledger.moment(v_received_ms[(d ->> 'frame')::integer]),
            resolution = d ->> 'resolution', seq = v_head + (d ->> 'frame')::integer
        FROM jsonb_array_elements(p_rare -> 'decisions') d
        WHERE t.account = p_account AND t.discrepancy_id = (d ->> 'discrepancy_id')::bigint AND t.resolved_at IS NULL;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        others_changed := others_changed + v_rows;
        FOR r IN SELECT d ->> 'kind' AS kind, d ->> 'subject' AS subject, d ->> 'expected' AS expected,
                        d ->> 'actual' AS actual, (d ->> 'frame')::integer AS frame, d ->> 'resolution' AS resolution,
                        (d ->> 'residual')::numeric AS residual, (d ->> 'at_ms')::bigint AS at_ms,
                        (d ->> 'evidence_seq')::bigint AS evidence, d ->> 'symbol' AS symbol,
                        (d ->> 'order_id')::bigint AS order_id, (d ->> 'trade_id')::bigint AS trade_id,
                        d ->> 'asset' AS asset, (d ->> 'uncovered_from_ms')::bigint AS uncovered_from_ms
                 FROM jsonb_array_elements(p_rare -> 'doubts') d
        LOOP
            others_changed := others_changed + ledger.doubt(
                p_account, r.kind, r.subject, r.expected, r.actual, v_head + r.frame, ledger.moment(v_received_ms[r.frame]), r.resolution,
                r.residual, r.at_ms, r.evidence, r.symbol, r.order_id, r.trade_id, r.asset, r.uncovered_from_ms);
            IF r.kind = 'unreadable_report' AND r.order_id IS NOT NULL THEN
                INSERT INTO ledger.order_checks AS c (account, symbol, order_id, reason, due_ms)
                VALUES (p_account, r.symbol, r.order_id, r.kind, r.uncovered_from_ms + 1)
                ON CONFLICT (account, symbol, order_id, reason)
                    DO UPDATE SET due_ms = greatest(c.due_ms, excluded.due_ms), tries = 0;
            END IF;
        END LOOP;
        FOR r IN SELECT s AS snapshot, (s ->> 'frame')::integer AS frame FROM jsonb_array_elements(p_rare -> 'snapshots') s
        LOOP
            others_changed := others_changed + ledger.bring_snapshot(
                p_account, r.snapshot, v_venue_ms[r.frame], coalesce(p_asked_seq, 0), p_lag_ms, v_head + r.frame);
        END LOOP;
    END IF;

    IF v_frames > 0 THEN
        IF v_same AND fills_new + orders_changed + others_changed = 0 THEN
            first_seq := NULL;   -- an answer equal to the last one kept, which changes nothing, is not kept again
            last_seq := NULL;
            v_frames := 0;
        ELSE
            IF v_frames = 1 THEN
                v_at := ledger.moment(v_received_ms[1]);
                INSERT INTO ledger.inbox (account, seq, source, session_id, frame_no, received_at, kind, venue_ms,
                                          asked_seq, question, raw, problem)
                VALUES (p_account, last_seq, p_source, p_session, p_frame_no, v_at, v_kinds[1], v_venue_ms[1],
                        p_asked_seq, p_question, p_raw, p_problems[1]);
                v_row_digest := ledger.row_digest(p_source, p_session, p_frame_no, v_at, v_kinds[1], v_venue_ms[1],
                                                  p_asked_seq, p_question, p_raw, p_problems[1]);
                v_digest := ledger.chain(p_account, v_digest, first_seq, p_clockless, p_lag_ms, v_row_digest);
                v_marks := substring(v_row_digest FOR 8);
                v_unreadable := (p_problems[1] IS NOT NULL AND NOT ledger.is_remark(p_problems[1]))::integer;
            ELSE
                WITH put AS (
                    INSERT INTO ledger.inbox (account, seq, source, session_id, frame_no, received_at, kind, venue_ms,
                                              asked_seq, question, raw, problem)
                    SELECT p_account, v_head + u.n, p_source, p_session, p_frame_no + u.n - 1, ledger.moment(u.received_ms),
                           u.kind, u.venue_ms, p_asked_seq, p_question,
                           substring(p_raw FROM coalesce(v_ends[u.n - 1], 0) + 1 FOR u.raw_end - coalesce(v_ends[u.n - 1], 0)),
                           p_problems[u.n]
                    FROM unnest(v_received_ms, v_kinds, v_venue_ms, v_ends) WITH ORDINALITY
                         AS u (received_ms, kind, venue_ms, raw_end, n)
                    RETURNING seq, problem, ledger.row_digest(source, session_id, frame_no, received_at, kind, venue_ms, asked_seq,
                                                     question, raw, problem) AS digest
                )
                SELECT ledger.chain(p_account, v_digest, first_seq, p_clockless, p_lag_ms, string_agg(p.digest, '')),
                       string_agg(substring(p.digest FOR 8), ''),
                       count(p.problem) FILTER (WHERE NOT ledger.is_remark(p.problem))
                INTO v_digest, v_marks, v_unreadable FROM (SELECT * FROM put ORDER BY seq) p;
            END IF;
            INSERT INTO ledger.batches (account, last_seq, first_seq, clockless, lag_ms, marks, digest, session_id, frame_no)
            VALUES (p_account, last_seq, first_seq, p_clockless, p_lag_ms, v_marks, v_digest, p_session, p_frame_no);
            IF p_question IS NOT NULL THEN
                INSERT INTO ledger.answers (account, question, body_sha256, seq)
                VALUES (p_account, p_question, v_hash, last_seq)
                ON CONFLICT (account, question) DO UPDATE SET body_sha256 = excluded.body_sha256, seq = excluded.seq;
            END IF;
            IF p_rare IS NOT NULL THEN
                FOR r IN SELECT q AS told, (q ->> 'frame')::integer AS frame FROM jsonb_array_elements(p_rare -> 'quarantined') q
                LOOP
                    PERFORM ledger.put_in_quarantine(
                        p_account, v_head + r.frame, ledger.moment(v_received_ms[r.frame]), p_problems[r.frame], r.told);
                END LOOP;
                FOR r IN SELECT (q ->> 'seq')::bigint AS seq, (q ->> 'frame')::integer AS frame
                         FROM jsonb_array_elements(p_rare -> 'retried') q
                LOOP
                    PERFORM ledger.leave_quarantine(
                        p_account, r.seq, v_head + r.frame, ledger.moment(v_received_ms[r.frame]));
                END LOOP;
            END IF;
            UPDATE ledger.accounts a SET
                head_seq = last_seq,
                head_digest = v_digest,
                stream_frames = a.stream_frames + CASE WHEN p_source = 'stream' THEN v_frames ELSE 0 END,
                unreadable_frames = a.unreadable_frames + CASE WHEN p_source = 'stream' THEN v_unreadable ELSE 0 END
            WHERE a.account = p_account;
        END IF;
    END IF;
    IF p_gap IS NOT NULL AND fills_new + orders_changed > 0 THEN
        UPDATE ledger.gaps g SET fills_found = g.fills_found + fills_new,
            orders_changed = g.orders_changed + apply.orders_changed
        WHERE g.account = p_account AND g.gap_id = p_gap;
    END IF;
    IF p_walk IS NOT NULL THEN
        PERFORM ledger.move_walk(p_account, p_walk);
        IF p_walk ->> 'covers' IS NOT NULL AND v_frames > 0 THEN
            -- A report that named its market alone is one of the orders that were read now.
            UPDATE ledger.discrepancies d SET resolved_at = ledger.moment(v_received_ms[1]), seq = last_seq,
                resolution = 'the market was read over REST'
            WHERE d.account = p_account AND d.kind = 'unreadable_report' AND d.resolved_at IS NULL
              AND d.order_id IS NULL AND d.symbol = p_walk ->> 'symbol'
              AND coalesce((p_walk ->> 'from_ms')::bigint, 0) <= d.uncovered_from_ms
              AND (p_walk ->> 'asked_ms')::bigint - p_lag_ms > d.uncovered_from_ms;
        END IF;
    END IF;
    IF p_through_ms IS NOT NULL THEN
        PERFORM ledger.beat(p_account, p_through_ms);
    END IF;
    digest := v_digest;
    IF v_frames > 0 THEN
        PERFORM pg_notify('ledger_changed', p_account || ':' || last_seq);
    END IF;
END
$$;
