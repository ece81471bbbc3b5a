-- The journal cannot be changed unseen: every batch carries a digest over its rows and over the batch before it.
--
-- Grants keep the writer from changing a row, triggers keep the owner from doing it by mistake. Whoever gets around both
-- breaks the chain, and ledger.broken_chain names the row; the newest digest is kept outside the database as well.

-- Digest of one journal row, whatever its number: its place in the chain is its number.
CREATE OR REPLACE FUNCTION ledger.row_digest(
    p_source text, p_session uuid, p_frame_no bigint, p_received timestamptz, p_kind text, p_venue_ms bigint,
    p_asked_seq bigint, p_question text, p_raw bytea, p_problem text
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    -- The text form of a row quotes its fields, so no two rows share one.
    SELECT sha256(convert_to(ROW(p_source, p_session, p_frame_no, (extract(epoch FROM p_received) * 1000000)::bigint,
                                 p_kind, p_venue_ms, p_asked_seq, p_question, p_problem)::text, 'UTF8') || p_raw)
$$;

-- Digest of one batch. p_before: that of the batch before, null for an account's first. p_rows: its rows' digests.
CREATE OR REPLACE FUNCTION ledger.chain(
    p_account text, p_before bytea, p_first_seq bigint, p_clockless boolean, p_lag_ms bigint, p_rows bytea
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(coalesce(p_before, '')
                  || convert_to(ROW(p_account, p_first_seq, p_clockless, p_lag_ms)::text, 'UTF8') || p_rows)
$$;

-- Where the chain of an account breaks first: the seq of the row and what is wrong with it. No row: the chain is whole.
CREATE OR REPLACE FUNCTION ledger.broken_chain(p_account text) RETURNS TABLE (seq bigint, problem text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    b ledger.batches;
    v_before bytea;
    v_expected bigint := 1;
    v_rows bytea;
    v_count bigint;
    v_bad bigint;
    v_head record;
BEGIN
    FOR b IN SELECT x.* FROM ledger.batches x WHERE x.account = p_account ORDER BY x.last_seq LOOP
        IF b.first_seq <> v_expected THEN
            RETURN QUERY SELECT v_expected, format('the chain goes on at %s, expected %s', b.first_seq, v_expected);
            RETURN;
        END IF;
        SELECT count(*), string_agg(r.digest, '' ORDER BY r.seq),
               min(r.seq) FILTER (WHERE substring(r.digest FOR 8)
                                  <> substring(b.marks FROM (r.seq - b.first_seq) :: integer * 8 + 1 FOR 8))
        INTO v_count, v_rows, v_bad
        FROM (SELECT i.seq, ledger.row_digest(i.source, i.session_id, i.frame_no, i.received_at, i.kind, i.venue_ms,
                                              i.asked_seq, i.question, i.raw, i.problem) AS digest
              FROM ledger.inbox i WHERE i.account = p_account AND i.seq BETWEEN b.first_seq AND b.last_seq) r;
        IF v_count <> b.last_seq - b.first_seq + 1 THEN
            SELECT min(n) INTO v_expected FROM generate_series(b.first_seq, b.last_seq) n
            WHERE NOT EXISTS (SELECT FROM ledger.inbox i WHERE i.account = p_account AND i.seq = n);
            RETURN QUERY SELECT v_expected, 'the row is gone';
            RETURN;
        END IF;
        IF v_bad IS NOT NULL THEN
            RETURN QUERY SELECT v_bad, 'the row is not what was written';
            RETURN;
        END IF;
        IF ledger.chain(p_account, v_before, b.first_seq, b.clockless, b.lag_ms, v_rows) <> b.digest THEN
            RETURN QUERY SELECT b.first_seq,
                format('the digest of the rows %s to %s is not what was written', b.first_seq, b.last_seq);
            RETURN;
        END IF;
        v_before := b.digest;
        v_expected := b.last_seq + 1;
    END LOOP;
    SELECT i.seq INTO v_bad FROM ledger.inbox i WHERE i.account = p_account AND i.seq >= v_expected
    ORDER BY i.seq LIMIT 1;
    IF FOUND THEN
        RETURN QUERY SELECT v_bad, 'the row is in no batch: it was not written by the service';
        RETURN;
    END IF;
    SELECT a.head_seq, a.head_digest INTO v_head FROM ledger.accounts a WHERE a.account = p_account;
    IF v_head.head_seq <> v_expected - 1 OR v_head.head_digest IS DISTINCT FROM v_before THEN
        RETURN QUERY SELECT v_expected, format('the journal ends at %s, its account says %s', v_expected - 1, v_head.head_seq);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
-- A guard on top of the grants, not needed for correctness: an engine that spreads the tables has no triggers.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        CREATE OR REPLACE TRIGGER inbox_is_append_only BEFORE UPDATE OR DELETE ON ledger.inbox
            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
        CREATE OR REPLACE TRIGGER inbox_is_kept_whole BEFORE TRUNCATE ON ledger.inbox
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
        CREATE OR REPLACE TRIGGER batches_are_append_only BEFORE UPDATE OR DELETE ON ledger.batches
            FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
        CREATE OR REPLACE TRIGGER batches_are_kept_whole BEFORE TRUNCATE ON ledger.batches
            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
    END IF;
END
$$;
