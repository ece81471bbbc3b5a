-- The only writer of gaps and coverage. Every function locks the account's row first, so it meets ledger.apply in order.

-- Register an account, or return what is known of it. Nothing is overwritten.
CREATE OR REPLACE FUNCTION ledger.register(p_account text, p_rest_origin text, p_fingerprint text)
RETURNS TABLE (rest_origin text, key_fingerprint text, head_seq bigint)
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.accounts (account, rest_origin, key_fingerprint, created_at)
    VALUES (p_account, p_rest_origin, p_fingerprint, clock_timestamp()) ON CONFLICT (account) DO NOTHING;
    INSERT INTO ledger.coverage (account, symbol) VALUES (p_account, '*') ON CONFLICT DO NOTHING;
    INSERT INTO ledger.venue_state (account) VALUES (p_account) ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT a.rest_origin, a.key_fingerprint, a.head_seq FROM ledger.accounts a WHERE a.account = p_account;
END
$$;

-- The stream is up and everything before p_through_ms of the venue's clock has been written. Never moves back.
CREATE OR REPLACE FUNCTION ledger.beat(p_account text, p_through_ms bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.coverage SET live = true, beat_at = clock_timestamp(),
        live_through_ms = greatest(live_through_ms, p_through_ms)
    WHERE account = p_account AND symbol = '*'
$$;

-- The stream is down: nothing is live until the next gap has been opened and the stream beats again.
CREATE OR REPLACE FUNCTION ledger.stream_down(p_account text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.coverage SET live = false WHERE account = p_account AND symbol = '*'
$$;

DROP FUNCTION IF EXISTS ledger.open_gap;
-- Open the gap of one outage: from the last covered instant to p_until_ms, when the stream was live again. What came
-- after p_not_after_ms is in doubt even where it was thought covered (a silent socket, a key that died unnoticed).
CREATE FUNCTION ledger.open_gap(
    p_account text, p_cause text, p_until_ms bigint, p_not_after_ms bigint, p_live boolean,
    OUT gap_id bigint, OUT from_ms bigint
)
LANGUAGE plpgsql AS $$
DECLARE
    v_at timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM ledger.accounts a WHERE a.account = p_account FOR NO KEY UPDATE;
    SELECT CASE WHEN c.live_through_ms IS NOT NULL THEN least(c.live_through_ms, p_until_ms, p_not_after_ms) END
    INTO from_ms FROM ledger.coverage c WHERE c.account = p_account AND c.symbol = '*';
    UPDATE ledger.accounts a SET head_gap = a.head_gap + 1 WHERE a.account = p_account
    RETURNING a.head_gap INTO STRICT gap_id;
    INSERT INTO ledger.gaps (account, gap_id, cause, from_ms, until_ms, opened_at)
    VALUES (p_account, gap_id, p_cause, from_ms, p_until_ms, v_at);
    UPDATE ledger.coverage c SET live = p_live OR c.live, beat_at = CASE WHEN p_live THEN v_at ELSE c.beat_at END,
        live_through_ms = greatest(c.live_through_ms, p_until_ms)
    WHERE c.account = p_account AND c.symbol = '*';
    PERFORM pg_notify('ledger_gaps', p_account || ':' || gap_id);
END
$$;

-- Close a gap: every question of its walk was answered. False when it was closed before.
CREATE OR REPLACE FUNCTION ledger.close_gap(p_account text, p_gap_id bigint, p_complete_from_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_from bigint;
BEGIN
    PERFORM FROM ledger.accounts a WHERE a.account = p_account FOR NO KEY UPDATE;
    UPDATE ledger.gaps g SET closed_at = clock_timestamp()
    WHERE g.account = p_account AND g.gap_id = p_gap_id AND g.closed_at IS NULL RETURNING g.from_ms INTO v_from;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_from IS NULL THEN
        UPDATE ledger.coverage c SET complete_from_ms = p_complete_from_ms
        WHERE c.account = p_account AND c.symbol = '*';
    END IF;
    PERFORM pg_notify('ledger_gaps', p_account || ':' || p_gap_id);
    RETURN true;
END
$$;
