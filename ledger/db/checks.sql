-- What must hold over the database, one query per check; every row it returns breaks the check.
--
-- A check starts with its name and what it means, in one sentence. $1 is the account; $2, where it is used, the time in
-- ms since 1970 UTC. A strict check counts under --strict only.
-- Columns: key (what it is about), found (the numbers), seq (the journal row that shows it; null where there is none).

-- check journal_is_gapless: Journal rows are numbered 1, 2, 3 … to the newest, without a hole.
SELECT 'after row ' || n.before AS key, 'the next row is ' || n.seq AS found, n.seq
FROM (SELECT i.seq, lag(i.seq, 1, 0::bigint) OVER (ORDER BY i.seq) AS before
      FROM ledger_read.inbox i WHERE i.account = $1) n
WHERE n.seq <> n.before + 1
UNION ALL
SELECT 'newest row', 'the account says ' || a.head_seq || ', the journal ends at ' || m.seq, m.seq
FROM ledger_read.accounts a CROSS JOIN (SELECT coalesce(max(i.seq), 0) AS seq FROM ledger_read.inbox i WHERE i.account = $1) m
WHERE a.account = $1 AND a.head_seq <> m.seq
ORDER BY 3;

-- check chain_is_whole: No journal row was edited, removed, inserted or moved since it was written.
SELECT 'row ' || b.seq AS key, b.problem AS found, b.seq FROM ledger.broken_chain($1) b;

-- check frames_are_complete: Of every stream session that was kept, each frame up to the last is there once, but for those that a database which went back had lost.
-- What it lost is the end of a session, unless the connection stayed: then frames of the same session came after it.
SELECT s.session_id::text AS key, concat_ws(', ', s.rows || ' frames kept', s.numbers || ' numbers', 'the last is ' || s.last,
                                            s.lost || ' lost when the database went back') AS found, s.seq
FROM (SELECT n.*, (SELECT sum(l.frames) FROM (
          SELECT DISTINCT h.before, h.after - h.before - 1 AS frames
          FROM (SELECT (convert_from(i.raw, 'UTF8')::jsonb ->> 'found_seq')::bigint AS found_seq,
                       (convert_from(i.raw, 'UTF8')::jsonb ->> 'lost_seq')::bigint AS lost_seq
                FROM ledger_read.inbox i WHERE i.account = $1 AND i.source = 'operator' AND i.kind = 'rollback') b
          CROSS JOIN LATERAL (SELECT coalesce(max(i.frame_no) FILTER (WHERE i.seq <= b.found_seq), 0) AS before,
                                     min(i.frame_no) FILTER (WHERE i.seq > b.found_seq) AS after FROM ledger_read.inbox i
                              WHERE i.account = $1 AND i.source = 'stream' AND i.session_id = n.session_id) h
          WHERE h.after - h.before - 1 BETWEEN 1 AND b.lost_seq - b.found_seq) l) AS lost
      FROM (SELECT i.session_id, count(*) AS rows, count(DISTINCT i.frame_no) AS numbers, max(i.frame_no) AS last,
                   max(i.seq) AS seq FROM ledger_read.inbox i
            WHERE i.account = $1 AND i.source = 'stream' GROUP BY i.session_id) n
      WHERE n.rows <> n.last OR n.numbers <> n.last) s
WHERE s.rows <> s.numbers OR s.last - s.numbers <> coalesce(s.lost, 0)
ORDER BY s.seq;

-- check frames_are_counted: The numbers of frames that status shows are those of the journal.
SELECT 'stream frames' AS key, format('%s counted, %s unreadable; the journal has %s, %s unreadable', a.stream_frames,
                                      a.unreadable_frames, n.frames, n.unreadable) AS found, a.head_seq AS seq
FROM ledger_read.accounts a
CROSS JOIN (SELECT count(*) AS frames, count(i.problem) FILTER (WHERE NOT starts_with(i.problem, 'remark: ')) AS unreadable
            FROM ledger_read.inbox i
            WHERE i.account = $1 AND i.source = 'stream') n
WHERE a.account = $1 AND (a.stream_frames, a.unreadable_frames) <> (n.frames, n.unreadable);

-- check answers_are_kept: The answer that a question is known to have had last is the journal row it names.
SELECT w.question AS key, 'the journal row holds another body or answers another question' AS found, w.seq
FROM ledger_read.answers w LEFT JOIN ledger_read.inbox i ON i.account = w.account AND i.seq = w.seq
WHERE w.account = $1
  AND (i.seq IS NULL OR i.question IS DISTINCT FROM w.question OR sha256(i.raw) <> w.body_sha256)
ORDER BY w.seq;

-- check rows_have_evidence: Every order, fill, balance and transfer names journal rows that exist.
SELECT e.key, 'names journal row ' || e.seq || ', which does not exist' AS found, e.seq
FROM (
    SELECT 'order ' || o.symbol || '/' || o.order_id AS key, o.seq FROM ledger_read.orders o WHERE o.account = $1
    UNION ALL SELECT 'fill ' || f.first_seq || '-' || f.first_index, f.seq FROM ledger_read.fills f WHERE f.account = $1
    UNION ALL SELECT 'fill ' || f.first_seq || '-' || f.first_index, f.first_seq FROM ledger_read.fills f WHERE f.account = $1
    UNION ALL SELECT 'balance ' || b.asset, b.seq FROM ledger_read.balances b WHERE b.account = $1
    UNION ALL SELECT 'balance ' || h.asset || ' at ' || h.as_of_ms, h.seq FROM ledger_read.balance_history h WHERE h.account = $1
    UNION ALL SELECT 'transfer ' || t.asset || ' at ' || t.at_ms, t.seq FROM ledger_read.transfers t WHERE t.account = $1
    UNION ALL SELECT 'discrepancy ' || d.discrepancy_id, d.evidence_seq FROM ledger_read.discrepancies d WHERE d.account = $1
) e
WHERE NOT EXISTS (SELECT FROM ledger_read.inbox i WHERE i.account = $1 AND i.seq = e.seq)
ORDER BY 3;

-- check transfers_were_told: Every transfer was told by the stream or by a person, in the journal row it names.
SELECT t.asset || ' at ' || t.at_ms AS key, format('%s of %s, source %s; the journal row is of source %s', t.kind, t.amount,
                                                   t.source, i.source) AS found, t.seq
FROM ledger_read.transfers t JOIN ledger_read.inbox i ON i.account = t.account AND i.seq = t.seq
WHERE t.account = $1 AND i.source <> t.source AND i.kind NOT IN ('swap', 'quarantine_retry')
ORDER BY t.seq;

-- check keys_are_unique: No order, trade, stream fill or balance is kept twice, whatever the indexes say.
SELECT k.key, count(*) || ' rows' AS found, max(k.seq) AS seq
FROM (
    SELECT 'order ' || o.symbol || '/' || o.order_id AS key, o.seq FROM ledger_read.orders o WHERE o.account = $1
    UNION ALL
    SELECT concat('trade ', f.symbol, '/', f.order_id, '/', f.trade_id), f.seq
    FROM ledger_read.fills f WHERE f.account = $1 AND f.trade_id IS NOT NULL
    UNION ALL
    SELECT concat('stream fill ', f.symbol, '/', f.order_id, '/', f.stream_key, '/', f.stream_ordinal), f.seq
    FROM ledger_read.fills f WHERE f.account = $1 AND f.stream_key IS NOT NULL
    UNION ALL SELECT 'balance ' || b.asset, b.seq FROM ledger_read.balances b WHERE b.account = $1
) k
GROUP BY k.key HAVING count(*) > 1
ORDER BY 3;

-- check amounts_are_real: No amount is NaN, infinite or negative where it cannot be.
SELECT a.key, a.name || ' is ' || a.amount AS found, a.seq
FROM (
    SELECT 'order ' || o.symbol || '/' || o.order_id AS key, v.name, v.amount, o.seq
    FROM ledger_read.orders o CROSS JOIN LATERAL (VALUES
        ('price', o.price), ('orig_qty', o.orig_qty), ('venue_executed_qty', o.venue_executed_qty),
        ('venue_executed_quote', o.venue_executed_quote), ('fills_qty', o.fills_qty), ('fills_quote', o.fills_quote)
    ) AS v(name, amount) WHERE o.account = $1
    UNION ALL
    SELECT 'fill ' || f.first_seq || '-' || f.first_index, v.name, v.amount, f.seq
    FROM ledger_read.fills f CROSS JOIN LATERAL (VALUES
        ('price', f.price), ('qty', f.qty), ('quote_qty', f.quote_qty), ('fee', abs(f.fee))
    ) AS v(name, amount) WHERE f.account = $1
    UNION ALL
    SELECT 'balance ' || b.asset, v.name, v.amount, b.seq
    FROM ledger_read.balances b CROSS JOIN LATERAL (VALUES ('free', b.free), ('locked', b.locked)) AS v(name, amount)
    WHERE b.account = $1
    UNION ALL
    SELECT 'balance ' || h.asset || ' at ' || h.as_of_ms, v.name, v.amount, h.seq
    FROM ledger_read.balance_history h CROSS JOIN LATERAL (VALUES ('free', h.free), ('locked', h.locked)) AS v(name, amount)
    WHERE h.account = $1
    UNION ALL
    SELECT 'transfer ' || t.asset || ' at ' || t.at_ms, 'amount', abs(t.amount), t.seq
    FROM ledger_read.transfers t WHERE t.account = $1
) a
-- NaN and Infinity sort above every number.
WHERE (a.amount < 0 OR a.amount >= 'Infinity')
ORDER BY 3;

-- check fills_have_orders: Every fill belongs to an order that is kept too.
SELECT 'fill ' || f.first_seq || '-' || f.first_index AS key, 'no order ' || f.symbol || '/' || f.order_id AS found, f.seq
FROM ledger_read.fills f
WHERE f.account = $1 AND NOT EXISTS (
    SELECT FROM ledger_read.orders o WHERE o.account = f.account AND o.symbol = f.symbol AND o.order_id = f.order_id)
ORDER BY f.seq;

-- check fills_add_up: The executed quantity and total that an order carries are the exact sums of its confirmed fills.
SELECT o.symbol || '/' || o.order_id AS key,
       format('carries %s for %s, its fills are %s for %s', o.fills_qty, o.fills_quote, coalesce(s.qty, 0),
              coalesce(s.quote, 0)) AS found, o.seq
FROM ledger_read.orders o
LEFT JOIN (SELECT f.symbol, f.order_id, sum(f.qty) AS qty, sum(f.quote_qty) AS quote FROM ledger_read.fills f
           WHERE f.account = $1 AND f.state = 'confirmed' GROUP BY 1, 2) s
    ON s.symbol = o.symbol AND s.order_id = o.order_id
WHERE o.account = $1 AND (o.fills_qty <> coalesce(s.qty, 0) OR o.fills_quote <> coalesce(s.quote, 0))
ORDER BY o.seq;

-- check fills_are_not_too_many: The fills of a finished order are no more than the venue says it executed.
-- Until an order is finished, and its end told with a quantity, REST may simply be behind the stream.
SELECT o.symbol || '/' || o.order_id AS key,
       format('%s with %s executed, its fills are %s', o.status, o.venue_executed_qty, o.fills_qty) AS found, o.seq
FROM ledger_read.orders o
WHERE o.account = $1 AND o.status_rank = 3 AND o.status_executed > 0 AND o.fills_qty > o.venue_executed_qty
ORDER BY o.seq;

-- check executed_is_ordered: No order executed more than was ordered.
-- An original quantity of zero is how an order by quote amount may be told.
SELECT o.symbol || '/' || o.order_id AS key,
       format('%s ordered, the venue says %s executed, its fills are %s', o.orig_qty,
              coalesce(o.venue_executed_qty::text, 'nothing of what was'), o.fills_qty) AS found, o.seq
FROM ledger_read.orders o
WHERE o.account = $1 AND o.orig_qty > 0 AND greatest(o.venue_executed_qty, o.fills_qty) > o.orig_qty
ORDER BY o.seq;

-- check filled_is_filled: An order told as FILLED, with a quantity, executed all that was ordered.
SELECT o.symbol || '/' || o.order_id AS key,
       format('FILLED with %s of %s executed, its fills are %s', o.venue_executed_qty, o.orig_qty, o.fills_qty) AS found,
       o.seq
FROM ledger_read.orders o
WHERE o.account = $1 AND o.status = 'FILLED' AND o.status_executed > 0 AND o.orig_qty > 0
  AND greatest(o.venue_executed_qty, o.fills_qty) <> o.orig_qty
ORDER BY o.seq;

-- check balances_are_newest: The balance shown of an asset is the newest of its history.
SELECT b.asset AS key, format('%s and %s locked at %s, the newest told is %s and %s at %s', b.free, b.locked, b.as_of_ms,
                              coalesce(h.free::text, 'nothing'), h.locked, h.as_of_ms) AS found, b.seq
FROM ledger_read.balances b
LEFT JOIN LATERAL (SELECT x.* FROM ledger_read.balance_history x WHERE x.account = b.account AND x.asset = b.asset
                   ORDER BY x.as_of_ms DESC, x.k DESC, x.free DESC, x.locked DESC LIMIT 1) h ON true
WHERE b.account = $1 AND (b.free, b.locked, b.as_of_ms) IS DISTINCT FROM (h.free, h.locked, h.as_of_ms)
ORDER BY b.asset;

-- check balances_are_explained: Every change of a balance is explained by fills, fees and transfers.
SELECT format('discrepancy %s: %s', d.discrepancy_id, d.subject) AS key,
       format('%s unexplained: %s, got %s', d.residual, d.expected, d.actual) AS found, d.evidence_seq AS seq
FROM ledger_read.discrepancies d
WHERE d.account = $1 AND d.resolved_at IS NULL AND d.kind = 'unexplained_balance'
ORDER BY d.discrepancy_id;

-- check locks_are_explained: What is locked of an asset is what the open orders reserve.
SELECT format('discrepancy %s: %s', d.discrepancy_id, d.subject) AS key, format('%s, got %s', d.expected, d.actual) AS found,
       d.evidence_seq AS seq
FROM ledger_read.discrepancies d
WHERE d.account = $1 AND d.resolved_at IS NULL AND d.kind = 'unexplained_lock'
ORDER BY d.discrepancy_id;

-- check nothing_contradicts: No order and no fill was told in two ways that do not fit together.
SELECT format('discrepancy %s: %s %s', d.discrepancy_id, d.kind, d.subject) AS key,
       format('%s, got %s', d.expected, d.actual) AS found, d.evidence_seq AS seq
FROM ledger_read.discrepancies d
WHERE d.account = $1 AND d.resolved_at IS NULL
  AND d.kind IN ('fill_conflict', 'order_conflict', 'terminal_conflict', 'order_shrank')
ORDER BY d.discrepancy_id;

-- check nothing_is_set_aside: Everything REST told could be read, asked for and kept.
SELECT format('discrepancy %s: %s %s', d.discrepancy_id, d.kind, d.subject) AS key,
       coalesce(d.actual, d.expected, '') AS found, d.evidence_seq AS seq
FROM ledger_read.discrepancies d
WHERE d.account = $1 AND d.resolved_at IS NULL
  AND d.kind NOT IN ('unexplained_balance', 'unexplained_lock', 'fill_conflict', 'order_conflict', 'terminal_conflict',
                     'order_shrank', 'quarantined')
ORDER BY d.discrepancy_id;

-- check nothing_is_quarantined: What every kept frame and answer says is in the rows, or a person accepted that it is not.
SELECT 'journal row ' || i.seq AS key,
       format('%s %s, %s', i.source, i.kind,
              coalesce(format('tried %s: %s', CASE q.tries WHEN 1 THEN 'once' ELSE q.tries || ' times' END, q.problem),
                       'not listed: ' || i.problem)) AS found, i.seq
FROM ledger_read.inbox i LEFT JOIN ledger_read.quarantine q ON q.account = i.account AND q.seq = i.seq
WHERE i.account = $1 AND i.problem LIKE 'refused by the database%' AND i.kind <> 'note' AND q.applied_seq IS NULL
  AND NOT EXISTS (SELECT FROM ledger_read.discrepancies d WHERE d.account = i.account AND d.kind = 'quarantined'
                  AND d.evidence_seq = i.seq AND d.resolved_at IS NOT NULL)
ORDER BY i.seq;

-- check gaps_are_in_order: Gaps are numbered without a hole, end after they begin and before they close, the older first.
SELECT 'gap ' || g.gap_id AS key,
       concat_ws(', ', CASE WHEN g.gap_id <> g.before + 1 THEN 'the one before is ' || g.before END,
                 CASE WHEN g.until_ms < g.from_ms THEN format('from %s until %s', g.from_ms, g.until_ms) END,
                 CASE WHEN g.closed_at < g.opened_at THEN format('opened at %s, closed at %s', g.opened_at, g.closed_at) END,
                 CASE WHEN g.older_open AND g.closed_at IS NOT NULL THEN 'closed while an older one is open' END,
                 CASE WHEN g.until_ms IS NULL AND g.closed_at IS NOT NULL THEN 'closed while the outage goes on' END,
                 CASE WHEN g.until_ms IS NULL AND g.after IS NOT NULL THEN 'it has no end, and is not the newest' END) AS found,
       NULL::bigint AS seq
FROM (SELECT x.*, lag(x.gap_id, 1, 0::bigint) OVER w AS before, lead(x.gap_id) OVER w AS after,
             coalesce(bool_or(x.closed_at IS NULL)
                      OVER (ORDER BY x.gap_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS older_open
      FROM ledger_read.gaps x WHERE x.account = $1 WINDOW w AS (ORDER BY x.gap_id)) g
WHERE g.gap_id <> g.before + 1 OR g.until_ms < g.from_ms OR g.closed_at < g.opened_at
   OR (g.older_open AND g.closed_at IS NOT NULL)
   OR (g.until_ms IS NULL AND (g.closed_at IS NOT NULL OR g.after IS NOT NULL))
ORDER BY g.gap_id;

-- check gaps_do_not_last: No gap is open for longer than a day.
SELECT 'gap ' || g.gap_id AS key, format('%s, open since %s', g.cause, g.opened_at) AS found, NULL::bigint AS seq
FROM ledger_read.gaps g
WHERE g.account = $1 AND g.closed_at IS NULL AND g.opened_at < to_timestamp($2::bigint / 1000.0) - interval '1 day'
ORDER BY g.gap_id;

-- check coverage_is_honest: What is said to be complete ends before every gap that is open there, and not in the future.
SELECT c.symbol AS key, format('complete through %s', c.complete_through_ms)
       || coalesce(format(', gap %s is open from %s', g.gap_id, coalesce(g.from_ms::text, 'the beginning')), '') AS found,
       NULL::bigint AS seq
FROM ledger_v1.coverage c
JOIN ledger_read.coverage k ON k.account = c.account AND k.symbol = c.symbol
LEFT JOIN LATERAL (SELECT x.* FROM ledger_read.gaps x WHERE x.account = c.account AND x.closed_at IS NULL
                   AND x.gap_id > coalesce(k.walked_gap, 0) AND c.complete_through_ms > coalesce(x.from_ms, 0)
                   ORDER BY x.gap_id LIMIT 1) g ON true
WHERE c.account = $1 AND (g.gap_id IS NOT NULL OR c.complete_through_ms > $2::bigint + 300000)
ORDER BY c.symbol;

-- check coverage_ends_at_holes: Of no market more is said to be complete than what was read of it without a hole.
-- From the tables: an open discrepancy with uncovered_from_ms is a hole of its market, of all where it names none.
SELECT c.symbol AS key, format('complete through %s, but discrepancy %s (%s %s) leaves a hole from %s', c.complete_through_ms,
                               d.discrepancy_id, d.kind, d.subject, d.uncovered_from_ms) AS found, d.evidence_seq AS seq
FROM ledger_v1.coverage c
JOIN ledger_read.discrepancies d ON d.account = c.account
WHERE c.account = $1 AND d.resolved_at IS NULL AND d.uncovered_from_ms < c.complete_through_ms
  AND c.symbol IN ('*', coalesce(d.symbol, c.symbol))
UNION ALL
-- What is known to be unreadable, refused or out of reach says where; else coverage would pass over it.
SELECT d.kind || ' ' || d.subject, format('discrepancy %s tells of rows that are not in and ends no coverage', d.discrepancy_id),
       d.evidence_seq
FROM ledger_read.discrepancies d
WHERE d.account = $1 AND d.resolved_at IS NULL AND d.uncovered_from_ms IS NULL
  AND d.kind IN ('rest_row', 'rest_page', 'history_unreachable') AND d.symbol IS NOT NULL
ORDER BY 1;

-- check doubts_do_not_last: No fill is provisional for longer than an hour.
SELECT 'fill ' || f.first_seq || '-' || f.first_index AS key,
       format('%s/%s: %s at %s, provisional since', f.symbol, f.order_id, f.qty, f.price) AS found, f.first_seq AS seq
FROM ledger_read.fills f
WHERE f.account = $1 AND f.state = 'provisional' AND f.stream_ms < $2::bigint - 3600000
ORDER BY f.seq;

-- strict check nothing_is_missing: Every execution that the venue counts is a fill here.
SELECT m.symbol || '/' || m.order_id AS key,
       format('%s missing', m.missing_qty) || coalesce(format(' for %s', m.missing_quote), '') AS found, o.seq
FROM ledger_v1.missing_executions m
JOIN ledger_read.orders o ON o.account = m.account AND o.symbol = m.symbol AND o.order_id = m.order_id
WHERE m.account = $1
ORDER BY m.symbol, m.order_id;
