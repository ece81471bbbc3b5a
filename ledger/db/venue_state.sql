-- What the service has learned of an account's venue and of its own health: for itself after a restart, and for status.

-- What the venue lets us recover, as just probed.
CREATE OR REPLACE FUNCTION ledger.set_mode(p_account text, p_mode text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET mode = p_mode, probed_at = ledger.clock() WHERE account = p_account
$$;

-- The venue asked for silence until then (the clock of the service's machine). Never moves back.
CREATE OR REPLACE FUNCTION ledger.set_block(p_account text, p_until_ms bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET blocked_until_ms = greatest(blocked_until_ms, p_until_ms) WHERE account = p_account
$$;

-- REST weight spent in the last minute.
CREATE OR REPLACE FUNCTION ledger.set_weight(p_account text, p_weight integer) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET weight_used = p_weight
    WHERE account = p_account AND weight_used IS DISTINCT FROM p_weight
$$;

-- The newest error of the service.
CREATE OR REPLACE FUNCTION ledger.set_error(p_account text, p_error text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET last_error = p_error, last_error_at = ledger.clock() WHERE account = p_account
$$;

-- Why the database refuses the work of this account; null: it works again.
CREATE OR REPLACE FUNCTION ledger.set_paused(p_account text, p_error text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET paused_error = p_error,
        paused_since = CASE WHEN p_error IS NOT NULL THEN coalesce(paused_since, ledger.clock()) END
    WHERE account = p_account AND (paused_error IS NOT NULL OR p_error IS NOT NULL)
$$;

-- Why the stream could not be opened at the last attempt; null: it is open.
CREATE OR REPLACE FUNCTION ledger.set_stream_error(p_account text, p_error text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET stream_error = p_error
    WHERE account = p_account AND stream_error IS DISTINCT FROM p_error
$$;

-- The stream hangs on the listen key with this digest, which the venue confirmed at p_confirmed_ms of its clock, p_age_ms ago.
CREATE OR REPLACE FUNCTION ledger.set_stream_key(p_account text, p_digest bytea, p_confirmed_ms bigint, p_age_ms bigint)
RETURNS void
LANGUAGE sql AS $$
    UPDATE ledger.venue_state SET key_digest = p_digest, key_ms = p_confirmed_ms,
        key_at = ledger.clock() - p_age_ms * interval '1 millisecond'
    WHERE account = p_account
$$;

-- The venue refused to be asked for more rows than these in a page of this kind.
CREATE OR REPLACE FUNCTION ledger.set_page_limit(p_account text, p_kind text, p_rows integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.page_limits (account, kind, rows, at) VALUES (p_account, p_kind, p_rows, ledger.clock())
    ON CONFLICT (account, kind) DO UPDATE SET rows = excluded.rows, at = excluded.at
$$;
