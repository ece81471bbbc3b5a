-- Frames and answers that are kept without their facts, since their content was refused: what they say is not in the rows,
-- so each is listed, and an open discrepancy ends coverage at it, until it is applied or a person accepts it.

DROP FUNCTION IF EXISTS ledger.put_in_quarantine;
-- List a journal row just written. The caller holds the account's lock. p_row: sqlstate, and where it leaves a hole in
-- coverage: symbol (null: in all markets) and uncovered_from_ms (null: it says nothing that could be missing).
CREATE FUNCTION ledger.put_in_quarantine(
    p_account text, p_seq bigint, p_at timestamptz, p_problem text, p_row jsonb
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.quarantine (account, seq, problem, sqlstate, tries, last_try_at)
    VALUES (p_account, p_seq, p_problem, p_row ->> 'sqlstate', 1, p_at);
    PERFORM ledger.doubt(
        p_account, 'quarantined', 'journal row ' || p_seq, NULL, p_problem, p_seq, p_at, p_symbol => p_row ->> 'symbol',
        p_uncovered_from_ms => (p_row ->> 'uncovered_from_ms')::bigint);
END
$$;

DROP FUNCTION IF EXISTS ledger.leave_quarantine;
-- What journal row p_seq says is in the rows now, by journal row p_by. The caller holds the account's lock.
CREATE FUNCTION ledger.leave_quarantine(p_account text, p_seq bigint, p_by bigint, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.quarantine q SET applied_seq = p_by, tries = q.tries + 1, last_try_at = p_at
    WHERE q.account = p_account AND q.seq = p_seq AND q.applied_seq IS NULL;
    UPDATE ledger.discrepancies d SET resolved_at = p_at, resolution = 'applied by journal row ' || p_by, seq = p_by
    WHERE d.account = p_account AND d.kind = 'quarantined' AND d.evidence_seq = p_seq AND d.resolved_at IS NULL;
END
$$;

DROP FUNCTION IF EXISTS ledger.stay_in_quarantine;
-- What journal row p_seq says was refused once more, for p_problem. p_row: as above; it tells more exactly where the hole
-- is than an upgrade from a release without a quarantine could.
CREATE FUNCTION ledger.stay_in_quarantine(
    p_account text, p_seq bigint, p_at timestamptz, p_problem text, p_row jsonb
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.lock_account(p_account, NULL);
    UPDATE ledger.quarantine q SET problem = p_problem, sqlstate = p_row ->> 'sqlstate', tries = q.tries + 1,
        last_try_at = p_at
    WHERE q.account = p_account AND q.seq = p_seq AND q.applied_seq IS NULL;
    UPDATE ledger.discrepancies d SET symbol = p_row ->> 'symbol',
        uncovered_from_ms = (p_row ->> 'uncovered_from_ms')::bigint
    WHERE d.account = p_account AND d.kind = 'quarantined' AND d.evidence_seq = p_seq AND d.resolved_at IS NULL;
END
$$;
