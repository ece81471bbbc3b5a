-- What the roles may do, where they exist; set again by every upgrade, so that nothing granted before is left over. The
-- writer writes rows and never edits the journal. The reader sees the contract: its views run with the rights of who
-- asks, so it may select the tables beneath them, and what the commands that read show besides; no hash of a key.
-- The version of the schema is the owner's.
REVOKE ALL ON SCHEMA ledger, ledger_v1 FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1 FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM PUBLIC;
DO $$
DECLARE
    v_table regclass;
    v_secret CONSTANT name[] := '{key_fingerprint,key_digest}';
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sdx_writer') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1 FROM sdx_writer;
        GRANT USAGE ON SCHEMA ledger, ledger_v1 TO sdx_writer;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1 TO sdx_writer;
        FOR v_table IN
            SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
            AND c.relname <> 'alembic_version'
        LOOP
            EXECUTE format('GRANT INSERT ON %s TO sdx_writer', v_table);
        END LOOP;
        GRANT UPDATE ON ledger.accounts, ledger.answers, ledger.orders, ledger.order_amendments, ledger.fills, ledger.balances,
            ledger.balance_history, ledger.observations, ledger.gaps, ledger.walks, ledger.order_checks, ledger.coverage,
            ledger.page_limits, ledger.refused_markets, ledger.discrepancies, ledger.markets, ledger.explained, ledger.leases, ledger.venue_state, ledger.quarantine
            TO sdx_writer;
        GRANT DELETE ON ledger.observations, ledger.walks, ledger.order_checks, ledger.refused_markets TO sdx_writer;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 TO sdx_writer;
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sdx_reader') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1 FROM sdx_reader;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM sdx_reader;
        GRANT USAGE ON SCHEMA ledger, ledger_v1 TO sdx_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger_v1 TO sdx_reader;
        GRANT SELECT ON ledger.balance_history, ledger.balances, ledger.coverage, ledger.discrepancies, ledger.fills,
            ledger.gaps, ledger.inbox, ledger.order_amendments, ledger.order_checks, ledger.orders, ledger.quarantine,
            ledger.transfers TO sdx_reader;
        -- What the commands show besides.
        GRANT SELECT ON ledger.alembic_version, ledger.answers, ledger.batches, ledger.leases, ledger.markets, ledger.refused_markets
            TO sdx_reader;
        FOREACH v_table IN ARRAY ARRAY['ledger.accounts', 'ledger.venue_state']::regclass[] LOOP
            EXECUTE (
                SELECT format('GRANT SELECT (%s) ON %s TO sdx_reader', string_agg(quote_ident(a.attname), ', '), v_table)
                FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = v_table AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (v_secret)
            );
        END LOOP;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger_v1 TO sdx_reader;
        GRANT EXECUTE ON FUNCTION ledger.truth_at, ledger.row_digest, ledger.chain, ledger.broken_chain,
            ledger.gapless_through_ms, ledger.unread_markets, ledger.status_is_known, ledger.unit_price, ledger.clock TO sdx_reader;
    END IF;
END
$$;
