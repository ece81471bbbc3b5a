-- What the roles may do, where they exist: the writer writes through the functions and never edits the journal, the
-- reader sees the contract. Views run with the rights of who asks, so the reader may select the tables beneath them.
REVOKE ALL ON SCHEMA ledger, ledger_v1 FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sdx_writer') THEN
        GRANT USAGE ON SCHEMA ledger, ledger_v1 TO sdx_writer;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1 TO sdx_writer;
        GRANT INSERT ON ALL TABLES IN SCHEMA ledger TO sdx_writer;
        GRANT UPDATE ON ledger.accounts, ledger.answers, ledger.orders, ledger.order_amendments, ledger.fills, ledger.balances,
            ledger.balance_history, ledger.observations, ledger.gaps, ledger.walks, ledger.order_checks, ledger.coverage,
            ledger.page_limits, ledger.refused_markets, ledger.discrepancies, ledger.markets, ledger.explained, ledger.leases, ledger.venue_state, ledger.quarantine
            TO sdx_writer;
        GRANT DELETE ON ledger.observations, ledger.walks, ledger.order_checks, ledger.refused_markets TO sdx_writer;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 TO sdx_writer;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sdx_reader') THEN
        GRANT USAGE ON SCHEMA ledger, ledger_v1 TO sdx_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1 TO sdx_reader;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger_v1 TO sdx_reader;
        GRANT EXECUTE ON FUNCTION ledger.truth_at, ledger.row_digest, ledger.chain, ledger.broken_chain,
            ledger.gapless_through_ms, ledger.status_is_known, ledger.unit_price TO sdx_reader;
        GRANT EXECUTE ON FUNCTION ledger.clock TO sdx_reader;
    END IF;
END
$$;
