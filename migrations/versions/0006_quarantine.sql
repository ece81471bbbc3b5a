ALTER TABLE ledger.venue_state ADD COLUMN paused_error text;
ALTER TABLE ledger.venue_state ADD COLUMN paused_since timestamptz;
COMMENT ON COLUMN ledger.venue_state.paused_error IS 'why the database refuses to write for this account; null: it does not';
COMMENT ON COLUMN ledger.venue_state.paused_since IS 'since when, database clock; null: it does not';

CREATE TABLE ledger.quarantine (
    account text NOT NULL,
    seq bigint NOT NULL,
    problem text NOT NULL,
    sqlstate text,
    tries integer NOT NULL,
    last_try_at timestamptz NOT NULL,
    applied_seq bigint,
    CONSTRAINT quarantine_pkey PRIMARY KEY (account, seq)
);
COMMENT ON TABLE ledger.quarantine IS 'Frames and answers that were kept without their facts, since their content was refused.';
COMMENT ON COLUMN ledger.quarantine.account IS 'account the row belongs to';
COMMENT ON COLUMN ledger.quarantine.seq IS 'journal row that is kept without its facts';
COMMENT ON COLUMN ledger.quarantine.problem IS 'what the database said at the last try';
COMMENT ON COLUMN ledger.quarantine.sqlstate IS 'SQLSTATE of that; null: an older release did not keep it';
COMMENT ON COLUMN ledger.quarantine.tries IS 'how often its facts were tried, from 1';
COMMENT ON COLUMN ledger.quarantine.last_try_at IS 'when the last try was';
COMMENT ON COLUMN ledger.quarantine.applied_seq IS 'journal row that brought its facts; null: none did yet';
CREATE INDEX quarantine_open_idx ON ledger.quarantine (account, seq) WHERE applied_seq IS NULL;

-- What earlier releases kept without its facts. Where the hole in coverage begins is known of a frame of the stream; of an
-- answer only once it is read again, which follows the upgrade.
INSERT INTO ledger.quarantine (account, seq, problem, tries, last_try_at)
SELECT i.account, i.seq, i.problem, 1, i.received_at FROM ledger.inbox i
WHERE i.problem LIKE 'refused by the database%' AND i.kind <> 'note' AND i.source IN ('stream', 'rest');
UPDATE ledger.discrepancies d SET kind = 'quarantined', evidence_seq = q.seq, uncovered_from_ms = 0
FROM (SELECT DISTINCT ON (i.account, i.question, i.problem) i.account, i.seq, i.question, i.problem
      FROM ledger.inbox i WHERE i.problem LIKE 'refused by the database%' AND i.kind <> 'note' AND i.source = 'rest'
      ORDER BY i.account, i.question, i.problem, i.seq DESC) q
WHERE d.account = q.account AND d.kind = 'rest_page' AND d.resolved_at IS NULL AND d.subject = q.question
  AND d.actual = q.problem;
INSERT INTO ledger.discrepancies (account, discrepancy_id, kind, subject, actual, digest, evidence_seq, opened_at, seq,
                                  uncovered_from_ms)
SELECT n.account, a.head_discrepancy + n.place, 'quarantined', 'journal row ' || n.seq, n.problem,
       sha256(convert_to(jsonb_build_array('quarantined', 'journal row ' || n.seq, NULL, n.problem)::text, 'UTF8')), n.seq,
       n.received_at, n.seq,
       CASE WHEN n.source = 'stream'
            THEN greatest(coalesce(n.venue_ms, (extract(epoch FROM n.received_at) * 1000)::bigint) - 1, 0) ELSE 0 END
FROM (SELECT q.account, q.seq, q.problem, i.received_at, i.source, i.venue_ms,
             row_number() OVER (PARTITION BY q.account ORDER BY q.seq) AS place
      FROM ledger.quarantine q JOIN ledger.inbox i ON i.account = q.account AND i.seq = q.seq
      WHERE NOT EXISTS (SELECT FROM ledger.discrepancies x WHERE x.account = q.account AND x.kind = 'quarantined'
                        AND x.evidence_seq = q.seq)) n
JOIN ledger.accounts a ON a.account = n.account;
UPDATE ledger.accounts a SET head_discrepancy = m.newest
FROM (SELECT d.account, max(d.discrepancy_id) AS newest FROM ledger.discrepancies d GROUP BY d.account) m
WHERE m.account = a.account AND a.head_discrepancy < m.newest;
