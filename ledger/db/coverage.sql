-- The only writer of gaps and coverage. Every function locks the account's row first, so it meets ledger.apply in order.

-- The only clock that functions, views and questions of the program read: the server's own, so that no machine of the
-- service matters for leases and signs of life. A simulation replaces it; a second clock would let real time into it.
CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;

-- Lock an account's row for this transaction and return its head. p_fence: the number of the leader that asks; one that
-- was replaced meanwhile, and wakes up late, is refused (SDX01). Null: nobody leads, merges commute anyway.
DROP FUNCTION IF EXISTS ledger.lock_account;
CREATE FUNCTION ledger.lock_account(
    p_account text, p_fence bigint, OUT head_seq bigint, OUT head_digest bytea
)
LANGUAGE plpgsql AS $$
DECLARE
    v_fence bigint;
BEGIN
    SELECT a.head_seq, a.head_digest, a.fence INTO head_seq, head_digest, v_fence
    FROM ledger.accounts a WHERE a.account = p_account FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account % is not registered', p_account USING ERRCODE = 'no_data_found';
    END IF;
    IF p_fence <> v_fence THEN
        RAISE EXCEPTION 'account % is led by number %, not by % any more', p_account, v_fence, p_fence
            USING ERRCODE = 'SDX01';
    END IF;
END
$$;

-- Register an account, or return what is known of it. Nothing is overwritten. Origin and key stay null until the venue has
-- accepted the key once (the call that tells them): before, nobody knows whose account this is.
CREATE OR REPLACE FUNCTION ledger.register(p_account text, p_rest_origin text, p_fingerprint text)
RETURNS TABLE (rest_origin text, key_fingerprint text, head_seq bigint)
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.accounts (account, rest_origin, key_fingerprint, created_at)
    VALUES (p_account, p_rest_origin, p_fingerprint, ledger.clock()) ON CONFLICT (account) DO NOTHING;
    UPDATE ledger.accounts a SET rest_origin = coalesce(a.rest_origin, p_rest_origin),
        key_fingerprint = coalesce(a.key_fingerprint, p_fingerprint)
    WHERE a.account = p_account AND coalesce(a.rest_origin, p_rest_origin) = p_rest_origin
      AND (a.rest_origin IS NULL OR a.key_fingerprint IS NULL);
    INSERT INTO ledger.coverage (account, symbol) VALUES (p_account, '*') ON CONFLICT DO NOTHING;
    INSERT INTO ledger.venue_state (account) VALUES (p_account) ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT a.rest_origin, a.key_fingerprint, a.head_seq FROM ledger.accounts a WHERE a.account = p_account;
END
$$;

-- The key that the account is read with from now on, as its fingerprint.
CREATE OR REPLACE FUNCTION ledger.adopt_key(p_account text, p_fingerprint text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.accounts SET key_fingerprint = p_fingerprint WHERE account = p_account
$$;

-- Up to which instant of the venue's clock no gap is open: the oldest open gap ends it, one from the beginning leaves
-- nothing (null). p_walked_gap: gaps up to this one count as closed, for a market that was walked over them.
CREATE OR REPLACE FUNCTION ledger.gapless_through_ms(p_account text, p_walked_gap bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN g.n = 0 THEN s.live_through_ms WHEN NOT g.from_start THEN g.from_ms END
    FROM ledger.coverage s
    CROSS JOIN (SELECT count(*) AS n, coalesce(bool_or(x.from_ms IS NULL), false) AS from_start, min(x.from_ms) AS from_ms
                FROM ledger.gaps x WHERE x.account = p_account AND x.closed_at IS NULL
                AND x.gap_id > coalesce(p_walked_gap, 0)) g
    WHERE s.account = p_account AND s.symbol = '*'
$$;

-- Markets that orders name and that were never read over REST: what happened there before is not known. Of one whose history
-- the venue refuses, or cannot be made to give, a discrepancy says how far it is known. One index probe per market.
CREATE OR REPLACE FUNCTION ledger.unread_markets(p_account text) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE s AS (
        (SELECT o.symbol FROM ledger.orders o WHERE o.account = p_account ORDER BY o.symbol LIMIT 1)
        UNION ALL
        SELECT (SELECT o.symbol FROM ledger.orders o WHERE o.account = p_account AND o.symbol > s.symbol
                ORDER BY o.symbol LIMIT 1) FROM s WHERE s.symbol IS NOT NULL
    )
    SELECT s.symbol FROM s
    WHERE s.symbol IS NOT NULL
      AND NOT EXISTS (SELECT FROM ledger.coverage c WHERE c.account = p_account AND c.symbol = s.symbol)
      AND NOT EXISTS (SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.symbol = s.symbol
                      AND d.kind IN ('symbol_refused', 'history_unreachable') AND d.uncovered_from_ms IS NOT NULL)
$$;

-- The stream is up and everything before p_through_ms of the venue's clock has been written. Never moves back. What the
-- database's own clock says when it moves on stands beside it, so that open_gap can tell a mark that ran ahead.
CREATE OR REPLACE FUNCTION ledger.beat(p_account text, p_through_ms bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.coverage SET live = true, beat_at = ledger.clock(),
        through_at = CASE WHEN live_through_ms >= p_through_ms THEN coalesce(through_at, beat_at) ELSE ledger.clock() END,
        live_through_ms = greatest(live_through_ms, p_through_ms)
    WHERE account = p_account AND symbol = '*'
$$;

DROP FUNCTION IF EXISTS ledger.stream_down;
-- The stream is down: nothing is live until the next gap has been opened and the stream beats again.
CREATE FUNCTION ledger.stream_down(p_account text, p_fence bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.lock_account(p_account, p_fence);
    UPDATE ledger.coverage SET live = false WHERE account = p_account AND symbol = '*';
END
$$;

-- Remember how far the walk of a gap has come, and that a market is walked. The caller holds the account's lock.
--
-- p_walk: gap_id, symbol, kind, start_ms, end_ms, asked_ms, done, rows (of this answer); covers: the newest gap over
-- which the market is walked now, null when there is more to ask; from_ms: how far back (null: the beginning);
-- served_from_ms: the venue refused to tell what is older, so nothing before it is claimed (null: it did not).
CREATE OR REPLACE FUNCTION ledger.move_walk(p_account text, p_walk jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_walk ->> 'gap_id' IS NOT NULL THEN
        INSERT INTO ledger.walks AS w (account, gap_id, symbol, kind, start_ms, end_ms, asked_ms, done, answers, rows,
                                       served_from_ms)
        VALUES (p_account, (p_walk ->> 'gap_id')::bigint, p_walk ->> 'symbol', p_walk ->> 'kind',
                (p_walk ->> 'start_ms')::bigint, (p_walk ->> 'end_ms')::bigint, (p_walk ->> 'asked_ms')::bigint,
                (p_walk ->> 'done')::boolean, 1, (p_walk ->> 'rows')::bigint, (p_walk ->> 'served_from_ms')::bigint)
        ON CONFLICT (account, gap_id, symbol, kind) DO UPDATE SET start_ms = excluded.start_ms,
            end_ms = excluded.end_ms, asked_ms = excluded.asked_ms, done = excluded.done, answers = w.answers + 1,
            rows = w.rows + excluded.rows, served_from_ms = excluded.served_from_ms;
    END IF;
    IF p_walk ->> 'covers' IS NOT NULL THEN
        INSERT INTO ledger.coverage AS c (account, symbol, complete_from_ms, walked_gap)
        VALUES (p_account, p_walk ->> 'symbol',
                greatest((p_walk ->> 'from_ms')::bigint, (p_walk ->> 'served_from_ms')::bigint),
                (p_walk ->> 'covers')::bigint)
        ON CONFLICT (account, symbol) DO UPDATE SET walked_gap = greatest(c.walked_gap, excluded.walked_gap),
            complete_from_ms = greatest(c.complete_from_ms, (p_walk ->> 'served_from_ms')::bigint);
    END IF;
END
$$;

DROP FUNCTION IF EXISTS ledger.open_gap;
-- Open the gap of one outage: from the last covered instant to p_until_ms, when the stream was live again, or (null) with
-- an open end, for the outage goes on. What came after p_not_after_ms is in doubt even where it was thought covered (a
-- silent socket, a key that died unnoticed). An outage has one row: while it goes on it is found again, whoever asks, and
-- its end is written into it. So the gap with an open end is the newest there is.
--
-- p_now_ms: the venue's clock now, as the caller believes it. Since the mark moved on last, as much time has passed as
-- the database's own clock says, whatever that clock shows: a mark later than p_now_ms less that time, and less p_trail_ms
-- by which marks trail, was made by a wrong clock. Then the gap begins where the database's clock vouches, and the mark
-- goes back. Nor is it moved on by more than that time: a wrong clock of the caller may say more.
CREATE FUNCTION ledger.open_gap(
    p_account text, p_cause text, p_until_ms bigint, p_not_after_ms bigint, p_live boolean, p_fence bigint,
    p_now_ms bigint, p_trail_ms bigint, OUT gap_id bigint, OUT from_ms bigint, OUT is_new boolean
)
LANGUAGE plpgsql AS $$
DECLARE
    v_at timestamptz := ledger.clock();
    v_mark bigint;
    v_passed_ms bigint;
    v_vouched_ms bigint;
    v_next_ms bigint;
    v_from_ms bigint;
    v_until_ms bigint := CASE WHEN p_until_ms IS NOT NULL THEN least(p_until_ms, p_now_ms) END;
BEGIN
    PERFORM ledger.lock_account(p_account, p_fence);
    SELECT c.live_through_ms, (extract(epoch FROM v_at - coalesce(c.through_at, c.beat_at)) * 1000)::bigint
    INTO v_mark, v_passed_ms FROM ledger.coverage c WHERE c.account = p_account AND c.symbol = '*';
    v_vouched_ms := p_now_ms - v_passed_ms - p_trail_ms;
    IF v_mark > v_vouched_ms + 2000 THEN   -- two clocks of machines, and a call that took its time
        v_mark := v_vouched_ms;
    END IF;
    v_next_ms := v_mark;
    IF v_until_ms IS NOT NULL THEN
        v_next_ms := greatest(v_mark, least(v_until_ms, v_mark + p_now_ms - v_vouched_ms + 2000));
    END IF;
    v_from_ms := CASE WHEN v_mark IS NOT NULL THEN least(v_mark, v_until_ms, p_not_after_ms) END;
    UPDATE ledger.gaps g SET until_ms = v_until_ms,
        from_ms = CASE WHEN g.from_ms IS NOT NULL THEN least(g.from_ms, v_from_ms) END
    WHERE g.account = p_account AND g.closed_at IS NULL AND g.until_ms IS NULL
    RETURNING g.gap_id, g.from_ms INTO gap_id, from_ms;
    is_new := NOT FOUND;
    IF is_new THEN
        from_ms := v_from_ms;
        UPDATE ledger.accounts a SET head_gap = a.head_gap + 1 WHERE a.account = p_account
        RETURNING a.head_gap INTO STRICT gap_id;
        INSERT INTO ledger.gaps (account, gap_id, cause, from_ms, until_ms, opened_at, opened_seq)
        SELECT p_account, open_gap.gap_id, p_cause, open_gap.from_ms, v_until_ms, v_at, a.head_seq
        FROM ledger.accounts a WHERE a.account = p_account;
    END IF;
    UPDATE ledger.coverage c SET live = v_until_ms IS NOT NULL AND (p_live OR c.live), beat_at = CASE WHEN p_live AND v_until_ms IS NOT NULL THEN v_at ELSE c.beat_at END,
        live_through_ms = v_next_ms,
        through_at = CASE WHEN v_next_ms = c.live_through_ms THEN c.through_at
            ELSE v_at - coalesce(p_now_ms - p_trail_ms - v_next_ms, 0) * interval '1 millisecond' END
    WHERE c.account = p_account AND c.symbol = '*';
    PERFORM pg_notify('ledger_gaps', p_account || ':' || gap_id);
END
$$;

DROP FUNCTION IF EXISTS ledger.close_gap;
-- Close a gap: every question of its walk was answered. False when it was closed before.
--
-- p_moved_ms: orders that the stream moved after this instant, while the gap was healed, are asked for once more. A frame
-- that tells no executed quantity hides what was lost before it, and an answer of REST may not have known of the frame yet.
-- Null where the venue tells its trades: nothing is hidden then.
CREATE FUNCTION ledger.close_gap(
    p_account text, p_gap_id bigint, p_complete_from_ms bigint, p_moved_ms bigint, p_fence bigint
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_from bigint;
    v_until bigint;
    v_seq bigint;
BEGIN
    PERFORM ledger.lock_account(p_account, p_fence);
    UPDATE ledger.gaps g SET closed_at = ledger.clock()
    WHERE g.account = p_account AND g.gap_id = p_gap_id AND g.closed_at IS NULL
    RETURNING g.from_ms, g.until_ms, g.opened_seq INTO v_from, v_until, v_seq;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger.order_checks AS c (account, symbol, order_id, reason, due_ms)
    SELECT o.account, o.symbol, o.order_id, 'moved_in_gap', v_until FROM ledger.orders o
    WHERE o.account = p_account AND o.seq > v_seq AND o.updated_ms > p_moved_ms
      AND (o.created_ms IS NULL OR o.created_ms < v_until)
    ORDER BY o.symbol, o.order_id
    ON CONFLICT (account, symbol, order_id, reason) DO UPDATE SET due_ms = greatest(c.due_ms, excluded.due_ms), tries = 0;
    DELETE FROM ledger.walks w WHERE w.account = p_account AND w.gap_id = p_gap_id;
    IF v_from IS NULL THEN
        UPDATE ledger.coverage c SET complete_from_ms = p_complete_from_ms
        WHERE c.account = p_account AND c.symbol = '*';
    END IF;
    PERFORM pg_notify('ledger_gaps', p_account || ':' || p_gap_id);
    RETURN true;
END
$$;
