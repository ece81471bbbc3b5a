-- The contract: schema ledger_v1 holds views, and functions to ask with. Columns may be added at the end; anything else
-- is a ledger_v2.

CREATE OR REPLACE VIEW ledger_v1.orders AS
SELECT o.account, o.symbol, o.order_id, o.client_order_id, o.side, o.type, o.time_in_force, o.price, o.orig_qty,
       greatest(o.venue_executed_qty, o.fills_qty) AS executed_qty,
       CASE
           WHEN o.fills_qty > coalesce(o.venue_executed_qty, 0) AND (o.venue_executed_qty IS NOT NULL OR o.fills_qty >= o.orig_qty)
               THEN o.fills_quote
           WHEN o.venue_executed_quote IS NOT NULL AND o.venue_executed_qty >= o.fills_qty THEN o.venue_executed_quote
           WHEN o.fills_qty = o.venue_executed_qty THEN o.fills_quote
       END AS executed_quote,
       o.status, to_timestamp(o.created_ms / 1000.0) AS created_at, to_timestamp(o.updated_ms / 1000.0) AS updated_at,
       o.updated_ms, o.seq,
       -- Three conditions side by side, so that who asks for open orders is answered from their own small index.
       o.status_rank < 3
       AND NOT EXISTS (SELECT FROM ledger.order_checks c WHERE c.account = o.account AND c.symbol = o.symbol
                       AND c.order_id = o.order_id AND c.reason = 'absent')
       AND nullif(ledger.status_is_known(o.status), false) AS is_open
FROM ledger.orders o;
COMMENT ON VIEW ledger_v1.orders IS 'Newest state of every order.';
COMMENT ON COLUMN ledger_v1.orders.account IS 'account that placed the order';
COMMENT ON COLUMN ledger_v1.orders.symbol IS 'market, base and quote asset concatenated';
COMMENT ON COLUMN ledger_v1.orders.order_id IS 'the venue''s order id, unique within account and symbol';
COMMENT ON COLUMN ledger_v1.orders.client_order_id IS 'the id the client gave the order; null: not told';
COMMENT ON COLUMN ledger_v1.orders.side IS 'BUY or SELL; null: not told';
COMMENT ON COLUMN ledger_v1.orders.type IS 'LIMIT, MARKET or another type of the venue; null: not told';
COMMENT ON COLUMN ledger_v1.orders.time_in_force IS 'GTC, IOC, FOK or another; null: not told';
COMMENT ON COLUMN ledger_v1.orders.price IS 'limit price in quote asset; null: not told';
COMMENT ON COLUMN ledger_v1.orders.orig_qty IS 'ordered quantity in base asset; null: not told';
COMMENT ON COLUMN ledger_v1.orders.executed_qty IS 'base asset: the larger of what the venue said and the sum of confirmed fills';
COMMENT ON COLUMN ledger_v1.orders.executed_quote IS 'quote asset: the venue''s total, else the fills'' when they are complete, else null';
COMMENT ON COLUMN ledger_v1.orders.status IS 'the venue''s status; null: known from a trade only';
COMMENT ON COLUMN ledger_v1.orders.created_at IS 'when the order was created, UTC; null: not told';
COMMENT ON COLUMN ledger_v1.orders.updated_at IS 'newest transaction time the venue told, UTC';
COMMENT ON COLUMN ledger_v1.orders.updated_ms IS 'newest transaction time the venue told, ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.orders.seq IS 'journal row that last changed this row';
COMMENT ON COLUMN ledger_v1.orders.is_open IS 'false once nothing more can happen to the order, by its status or because the venue says that it ended long ago without an execution; true while no status was told; null: the status is one we do not know';

CREATE OR REPLACE VIEW ledger_v1.order_amendments AS
SELECT a.account, a.symbol, a.order_id, a.field, a.value, a.reported_ms, a.seq
FROM ledger.order_amendments a;
COMMENT ON VIEW ledger_v1.order_amendments IS 'What quantity, price and client id of an order were before it was amended in place.';
COMMENT ON COLUMN ledger_v1.order_amendments.account IS 'account that placed the order';
COMMENT ON COLUMN ledger_v1.order_amendments.symbol IS 'market';
COMMENT ON COLUMN ledger_v1.order_amendments.order_id IS 'the venue''s order id';
COMMENT ON COLUMN ledger_v1.order_amendments.field IS 'orig_qty, price or client_order_id';
COMMENT ON COLUMN ledger_v1.order_amendments.value IS 'what it was by an older report';
COMMENT ON COLUMN ledger_v1.order_amendments.reported_ms IS 'newest venue time at which it was reported, 0: none was given; ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.order_amendments.seq IS 'journal row that showed that it is not the newest';

CREATE OR REPLACE VIEW ledger_v1.fills AS
SELECT f.account, f.symbol, f.order_id, f.trade_id, f.side, f.price, f.qty, f.quote_qty, f.quote_derived, f.fee,
       f.fee_asset, f.is_maker, to_timestamp(f.executed_ms / 1000.0) AS executed_at, f.executed_ms, f.source,
       f.first_seq || '-' || f.first_index AS fill_id, f.first_seq, f.seq
FROM ledger.fills f
WHERE f.state <> 'voided';
COMMENT ON VIEW ledger_v1.fills IS 'Every execution the venue told, once. A shortfall is in missing_executions, never here.';
COMMENT ON COLUMN ledger_v1.fills.account IS 'account whose order was executed';
COMMENT ON COLUMN ledger_v1.fills.symbol IS 'market, base and quote asset concatenated';
COMMENT ON COLUMN ledger_v1.fills.order_id IS 'the venue''s order id';
COMMENT ON COLUMN ledger_v1.fills.trade_id IS 'the venue''s trade id; null until the venue tells';
COMMENT ON COLUMN ledger_v1.fills.side IS 'BUY or SELL';
COMMENT ON COLUMN ledger_v1.fills.price IS 'price of this execution, quote asset per base asset';
COMMENT ON COLUMN ledger_v1.fills.qty IS 'quantity of this execution, base asset';
COMMENT ON COLUMN ledger_v1.fills.quote_qty IS 'total of this execution, quote asset; never null';
COMMENT ON COLUMN ledger_v1.fills.quote_derived IS 'true when quote_qty is price x qty, exactly, since the venue gave no total';
COMMENT ON COLUMN ledger_v1.fills.fee IS 'fee as the venue charged it, in fee_asset; null: not told';
COMMENT ON COLUMN ledger_v1.fills.fee_asset IS 'asset of the fee; null: not told or no fee';
COMMENT ON COLUMN ledger_v1.fills.is_maker IS 'true when the order was resting; null until the venue tells';
COMMENT ON COLUMN ledger_v1.fills.executed_at IS 'when it was executed, UTC';
COMMENT ON COLUMN ledger_v1.fills.executed_ms IS 'when it was executed, ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.fills.source IS 'who brought it first: stream or rest';
COMMENT ON COLUMN ledger_v1.fills.fill_id IS 'first journal seq and index; never changes';
COMMENT ON COLUMN ledger_v1.fills.first_seq IS 'journal row that first told it; never changes; cuts periods';
COMMENT ON COLUMN ledger_v1.fills.seq IS 'journal row that last changed this row';

CREATE OR REPLACE VIEW ledger_v1.balances AS
SELECT b.account, b.asset, b.free, b.locked, b.free + b.locked AS total, to_timestamp(b.as_of_ms / 1000.0) AS as_of,
       b.as_of_ms, b.source, b.seq
FROM ledger.balances b;
COMMENT ON VIEW ledger_v1.balances IS 'Newest known balance of every asset ever seen; zero stays a row.';
COMMENT ON COLUMN ledger_v1.balances.account IS 'account that holds the asset';
COMMENT ON COLUMN ledger_v1.balances.asset IS 'asset';
COMMENT ON COLUMN ledger_v1.balances.free IS 'available to trade or withdraw';
COMMENT ON COLUMN ledger_v1.balances.locked IS 'reserved by open orders';
COMMENT ON COLUMN ledger_v1.balances.total IS 'free + locked, exact';
COMMENT ON COLUMN ledger_v1.balances.as_of IS 'the venue''s clock of this state, UTC';
COMMENT ON COLUMN ledger_v1.balances.as_of_ms IS 'the venue''s clock of this state, ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.balances.source IS 'who told it: stream or rest';
COMMENT ON COLUMN ledger_v1.balances.seq IS 'journal row that last changed this row';

CREATE OR REPLACE VIEW ledger_v1.balance_history AS
SELECT h.account, h.asset, h.free, h.locked, h.free + h.locked AS total, to_timestamp(h.as_of_ms / 1000.0) AS as_of,
       h.as_of_ms, h.source, h.seq
FROM ledger.balance_history h;
COMMENT ON VIEW ledger_v1.balance_history IS 'Every balance the venue told, one row per change.';
COMMENT ON COLUMN ledger_v1.balance_history.account IS 'account that held the asset';
COMMENT ON COLUMN ledger_v1.balance_history.asset IS 'asset';
COMMENT ON COLUMN ledger_v1.balance_history.free IS 'available to trade or withdraw';
COMMENT ON COLUMN ledger_v1.balance_history.locked IS 'reserved by open orders';
COMMENT ON COLUMN ledger_v1.balance_history.total IS 'free + locked, exact';
COMMENT ON COLUMN ledger_v1.balance_history.as_of IS 'the venue''s clock of this state, UTC';
COMMENT ON COLUMN ledger_v1.balance_history.as_of_ms IS 'the venue''s clock of this state, ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.balance_history.source IS 'who told it: stream or rest';
COMMENT ON COLUMN ledger_v1.balance_history.seq IS 'journal row that told it';

CREATE OR REPLACE VIEW ledger_v1.transfers AS
SELECT t.account, t.asset, t.amount, t.kind, to_timestamp(t.at_ms / 1000.0) AS at, t.at_ms, t.source, t.seq
FROM ledger.transfers t;
COMMENT ON VIEW ledger_v1.transfers IS 'Movements into and out of the account that are not trades.';
COMMENT ON COLUMN ledger_v1.transfers.account IS 'account';
COMMENT ON COLUMN ledger_v1.transfers.asset IS 'asset';
COMMENT ON COLUMN ledger_v1.transfers.amount IS 'positive: into the account; negative: out of it';
COMMENT ON COLUMN ledger_v1.transfers.kind IS 'opening, deposit, withdrawal, airdrop, fee or other';
COMMENT ON COLUMN ledger_v1.transfers.at IS 'when it was credited or debited, UTC';
COMMENT ON COLUMN ledger_v1.transfers.at_ms IS 'when it was credited or debited, ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.transfers.source IS 'who told it: stream or operator';
COMMENT ON COLUMN ledger_v1.transfers.seq IS 'journal row that told it';

-- p_total / p_qty with 18 decimals and at least 18 significant digits, however small it is; null for no quantity.
CREATE OR REPLACE FUNCTION ledger.unit_price(p_total numeric, p_qty numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN q.price = 0 THEN 0 ELSE round(q.price, greatest(18, 17 - floor(log(abs(q.price)))::integer)) END
    -- A division keeps as many decimals as its terms have: enough of them for the smallest quotient there can be.
    FROM (SELECT round(p_total, scale(p_total) + length(trunc(p_qty)::text) + 18) / nullif(p_qty, 0) AS price) q
$$;

CREATE OR REPLACE VIEW ledger_v1.missing_executions AS
SELECT o.account, o.symbol, o.order_id, o.venue_executed_qty - o.fills_qty AS missing_qty,
       o.venue_executed_quote - o.fills_quote AS missing_quote,
       ledger.unit_price(o.venue_executed_quote - o.fills_quote, o.venue_executed_qty - o.fills_qty) AS average_price
FROM ledger.orders o
WHERE o.venue_executed_qty > o.fills_qty;
COMMENT ON VIEW ledger_v1.missing_executions IS 'What the venue executed and no fill tells: known to be missing.';
COMMENT ON COLUMN ledger_v1.missing_executions.account IS 'account';
COMMENT ON COLUMN ledger_v1.missing_executions.symbol IS 'market';
COMMENT ON COLUMN ledger_v1.missing_executions.order_id IS 'the venue''s order id';
COMMENT ON COLUMN ledger_v1.missing_executions.missing_qty IS 'executed quantity without a fill, base asset';
COMMENT ON COLUMN ledger_v1.missing_executions.missing_quote IS 'its total, quote asset; null: the venue gives none';
COMMENT ON COLUMN ledger_v1.missing_executions.average_price IS 'missing_quote / missing_qty, with 18 decimals and at least 18 significant digits; null: not known';

CREATE OR REPLACE VIEW ledger_v1.gaps AS
SELECT g.account, g.gap_id, g.cause, g.from_ms, g.until_ms, g.opened_at, g.closed_at, g.fills_found, g.orders_changed
FROM ledger.gaps g;
COMMENT ON VIEW ledger_v1.gaps IS 'Times in which stream frames may have been missed; closed once REST was walked.';
COMMENT ON COLUMN ledger_v1.gaps.account IS 'account';
COMMENT ON COLUMN ledger_v1.gaps.gap_id IS 'number of the gap within the account';
COMMENT ON COLUMN ledger_v1.gaps.cause IS 'why frames may have been missed';
COMMENT ON COLUMN ledger_v1.gaps.from_ms IS 'last covered instant, venue clock, ms since 1970 UTC; null: from the beginning';
COMMENT ON COLUMN ledger_v1.gaps.until_ms IS 'when the stream was live again, venue clock, ms since 1970 UTC; null: the outage goes on';
COMMENT ON COLUMN ledger_v1.gaps.opened_at IS 'when the row was written';
COMMENT ON COLUMN ledger_v1.gaps.closed_at IS 'when the walk over REST was complete; null: open';
COMMENT ON COLUMN ledger_v1.gaps.fills_found IS 'fills the walk brought that were not known';
COMMENT ON COLUMN ledger_v1.gaps.orders_changed IS 'orders the walk changed';

CREATE OR REPLACE VIEW ledger_v1.coverage AS
SELECT c.account, c.symbol, greatest(c.complete_from_ms, CASE WHEN c.symbol = '*' THEN (
           -- Of every market is known what is known of the one that is known least far back.
           SELECT max(m.complete_from_ms) FROM ledger.coverage m WHERE m.account = c.account) END) AS complete_from_ms,
       to_timestamp(least(t.through_ms, 253402300799000) / 1000.0) AS complete_through, t.through_ms AS complete_through_ms,
       s.live AND s.beat_at > ledger.clock() - interval '3 seconds' AS live
FROM ledger.coverage c
JOIN ledger.coverage s ON s.account = c.account AND s.symbol = '*'
CROSS JOIN LATERAL (
    -- Never past a hole: the oldest open gap ends what is known; one from the beginning leaves nothing known. A market
    -- that was walked over a gap has no hole there any more, though the gap waits for the others.
    -- Nor past what was set aside, refused or could not be read: an open discrepancy that says so ends its market, and *.
    -- Of a market that only the stream named so far nothing older is known, so of every market together neither.
    SELECT nullif(least(k.through_ms, CASE WHEN k.through_ms IS NOT NULL THEN (
               SELECT min(d.uncovered_from_ms) FROM ledger.discrepancies d
               WHERE d.account = c.account AND d.resolved_at IS NULL AND d.uncovered_from_ms IS NOT NULL
                 AND (c.symbol = '*' OR d.symbol IS NULL OR d.symbol = c.symbol)) END,
               CASE WHEN c.symbol = '*' AND k.through_ms IS NOT NULL
                         AND EXISTS (SELECT FROM ledger.unread_markets(c.account)) THEN 0 END), 0) AS through_ms
    FROM (SELECT ledger.gapless_through_ms(c.account, c.walked_gap) AS through_ms) k
) t;
COMMENT ON VIEW ledger_v1.coverage IS 'Up to which instant everything is known.';
COMMENT ON COLUMN ledger_v1.coverage.account IS 'account';
COMMENT ON COLUMN ledger_v1.coverage.symbol IS 'market, or * for every market, by live time';
COMMENT ON COLUMN ledger_v1.coverage.complete_from_ms IS 'start of what is known, ms since 1970 UTC; null: the beginning';
COMMENT ON COLUMN ledger_v1.coverage.complete_through IS 'end of what is known, UTC; null: nothing yet';
COMMENT ON COLUMN ledger_v1.coverage.complete_through_ms IS 'end of what is known, ms since 1970 UTC; null: nothing yet, of * also while a market has a row and was never read';
COMMENT ON COLUMN ledger_v1.coverage.live IS 'whether the stream is up now';

CREATE OR REPLACE VIEW ledger_v1.discrepancies AS
SELECT d.account, d.discrepancy_id, d.kind, d.subject, d.expected, d.actual, d.residual, d.opened_at, d.resolved_at,
       d.resolution, d.evidence_seq, d.seq, d.symbol, d.order_id, d.trade_id, d.asset, d.uncovered_from_ms
FROM ledger.discrepancies d;
COMMENT ON VIEW ledger_v1.discrepancies IS 'Everything that does not fit, with its evidence.';
COMMENT ON COLUMN ledger_v1.discrepancies.account IS 'account';
COMMENT ON COLUMN ledger_v1.discrepancies.discrepancy_id IS 'number within the account';
COMMENT ON COLUMN ledger_v1.discrepancies.kind IS 'what does not fit';
COMMENT ON COLUMN ledger_v1.discrepancies.subject IS 'what it is about';
COMMENT ON COLUMN ledger_v1.discrepancies.expected IS 'what was held before';
COMMENT ON COLUMN ledger_v1.discrepancies.actual IS 'what came';
COMMENT ON COLUMN ledger_v1.discrepancies.residual IS 'unexplained amount, signed as the balance moved; null: none';
COMMENT ON COLUMN ledger_v1.discrepancies.opened_at IS 'when the evidence arrived';
COMMENT ON COLUMN ledger_v1.discrepancies.resolved_at IS 'when it was settled; null: open';
COMMENT ON COLUMN ledger_v1.discrepancies.resolution IS 'how it was settled; null: open';
COMMENT ON COLUMN ledger_v1.discrepancies.evidence_seq IS 'journal row that shows it';
COMMENT ON COLUMN ledger_v1.discrepancies.seq IS 'journal row that last changed this row';
COMMENT ON COLUMN ledger_v1.discrepancies.symbol IS 'market it is about; null: none, or not known';
COMMENT ON COLUMN ledger_v1.discrepancies.order_id IS 'order it is about; null: none';
COMMENT ON COLUMN ledger_v1.discrepancies.trade_id IS 'trade it is about; null: none, or one without an id';
COMMENT ON COLUMN ledger_v1.discrepancies.asset IS 'asset it is about; null: none';
COMMENT ON COLUMN ledger_v1.discrepancies.uncovered_from_ms IS 'while it is open, coverage of its market (of all markets where symbol is null) ends here, ms since 1970 UTC, 0: nothing is covered; null: coverage is not touched';

CREATE OR REPLACE VIEW ledger_v1.quarantine AS
SELECT q.account, q.seq, i.source, i.kind, i.received_at, q.problem, q.sqlstate, q.tries, q.last_try_at
FROM ledger.quarantine q JOIN ledger.inbox i ON i.account = q.account AND i.seq = q.seq
WHERE q.applied_seq IS NULL;
COMMENT ON VIEW ledger_v1.quarantine IS 'Frames and answers whose facts are not in the rows yet, since their content was refused.';
COMMENT ON COLUMN ledger_v1.quarantine.account IS 'account';
COMMENT ON COLUMN ledger_v1.quarantine.seq IS 'journal row that keeps it';
COMMENT ON COLUMN ledger_v1.quarantine.source IS 'who said it: stream or rest';
COMMENT ON COLUMN ledger_v1.quarantine.kind IS 'event type of a stream frame, name of the call of a REST answer';
COMMENT ON COLUMN ledger_v1.quarantine.received_at IS 'when it arrived, by the clock of the service''s machine';
COMMENT ON COLUMN ledger_v1.quarantine.problem IS 'what the database said at the last try';
COMMENT ON COLUMN ledger_v1.quarantine.sqlstate IS 'SQLSTATE of that; null: an older release did not keep it';
COMMENT ON COLUMN ledger_v1.quarantine.tries IS 'how often its facts were tried, from 1';
COMMENT ON COLUMN ledger_v1.quarantine.last_try_at IS 'when the last try was';

CREATE OR REPLACE VIEW ledger_v1.journal AS
SELECT i.account, i.seq, i.source, i.session_id, i.frame_no, i.received_at, i.kind, i.venue_ms, i.raw, i.problem
FROM ledger.inbox i;
COMMENT ON VIEW ledger_v1.journal IS 'Everything the venue said, exactly as it came, in commit order.';
COMMENT ON COLUMN ledger_v1.journal.account IS 'account the frame belongs to';
COMMENT ON COLUMN ledger_v1.journal.seq IS 'number of the row within the account: 1, 2, 3 …';
COMMENT ON COLUMN ledger_v1.journal.source IS 'stream, rest or operator';
COMMENT ON COLUMN ledger_v1.journal.session_id IS 'one socket connection or one reconcile run';
COMMENT ON COLUMN ledger_v1.journal.frame_no IS 'number of the frame within its session, from 1';
COMMENT ON COLUMN ledger_v1.journal.received_at IS 'when it arrived, by the clock of the service''s machine';
COMMENT ON COLUMN ledger_v1.journal.kind IS 'event type of a stream frame, name of the call of a REST answer';
COMMENT ON COLUMN ledger_v1.journal.venue_ms IS 'stream: the event''s time; rest: when it was asked; ms since 1970 UTC';
COMMENT ON COLUMN ledger_v1.journal.raw IS 'exactly the bytes that came';
COMMENT ON COLUMN ledger_v1.journal.problem IS 'why it could not be understood, or a remark about fields left out of what was; null when all of it was';
