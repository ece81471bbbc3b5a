-- Markets of which the venue refused to tell: asked again with growing pauses.

-- A market whose discrepancy a person has accepted is asked for like any other.
CREATE OR REPLACE FUNCTION ledger.leave_accepted_markets(p_account text) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM ledger.refused_markets r WHERE r.account = p_account AND NOT EXISTS (
        SELECT FROM ledger.discrepancies d WHERE d.account = p_account AND d.kind = 'symbol_refused'
        AND d.symbol = r.symbol AND d.resolved_at IS NULL)
$$;

-- The venue refused once more to tell of this market, of which nothing is known from p_from_ms on.
CREATE OR REPLACE FUNCTION ledger.market_refused(p_account text, p_symbol text, p_from_ms bigint, p_due_ms bigint)
RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.refused_markets AS r (account, symbol, from_ms, tries, due_ms, refused_seq)
    SELECT p_account, p_symbol, p_from_ms, 1, p_due_ms, a.head_seq FROM ledger.accounts a WHERE a.account = p_account
    ON CONFLICT (account, symbol) DO UPDATE SET from_ms = least(r.from_ms, excluded.from_ms),
        tries = r.tries + 1, due_ms = excluded.due_ms, refused_seq = excluded.refused_seq
$$;

-- The venue told everything that was asked for of this market.
CREATE OR REPLACE FUNCTION ledger.market_answered(p_account text, p_symbol text) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM ledger.refused_markets WHERE account = p_account AND symbol = p_symbol
$$;
