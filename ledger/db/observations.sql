-- Seen twice, some time apart, before it counts: what one look shows may be half told, or on its way.

DROP FUNCTION IF EXISTS ledger.observe;
-- Something was seen at p_at_ms. True: the same was seen at least p_confirmed_after_ms before, so it counts; false: it was,
-- but not so long ago; null: it is seen for the first time, which is kept. Another value begins anew, and so does
-- the same one where p_moved_seq, the journal row that last touched what was seen, is newer than the first look. p_seq: the
-- newest journal row at this look. The caller forgets what has counted or is not seen any more, and holds the
-- account's lock.
CREATE FUNCTION ledger.observe(
    p_account text, p_kind text, p_subject text, p_value text, p_at_ms bigint, p_confirmed_after_ms bigint,
    p_seq bigint DEFAULT 0, p_moved_seq bigint DEFAULT 0
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_first_ms bigint;
BEGIN
    SELECT o.first_ms INTO v_first_ms FROM ledger.observations o
    WHERE o.account = p_account AND o.kind = p_kind AND o.subject = p_subject AND o.value = p_value
      AND o.seq >= p_moved_seq;
    IF FOUND THEN
        RETURN p_at_ms >= v_first_ms + p_confirmed_after_ms;
    END IF;
    INSERT INTO ledger.observations (account, kind, subject, value, first_ms, seq)
    VALUES (p_account, p_kind, p_subject, p_value, p_at_ms, p_seq)
    ON CONFLICT (account, kind, subject) DO UPDATE
        SET value = excluded.value, first_ms = excluded.first_ms, seq = excluded.seq;
    RETURN NULL;
END
$$;
