-- What the roles may do, where they exist; set again by every upgrade, so that nothing granted before is left over. The
-- writer writes rows and never edits the journal. The reader sees views, which are the owner's, and nothing beneath them
-- but the version of the schema, which has to be told whatever the views are. That version is the owner's to change.
REVOKE ALL ON SCHEMA ledger, ledger_v1, ledger_read FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM PUBLIC;
DO $$
DECLARE
    v_table regclass;
    v_door text;
    -- These look at tables for whoever may call them: as the owner, who takes no name from the caller's search path.
    v_looking CONSTANT text[] := '{broken_chain,gapless_through_ms,unread_markets}';
    -- These look at no table; the views call them.
    v_plain CONSTANT text[] := '{clock,status_is_known,unit_price}';
BEGIN
    FOREACH v_door IN ARRAY v_looking LOOP
        EXECUTE format('ALTER FUNCTION ledger.%I SECURITY DEFINER SET search_path = pg_catalog, pg_temp', v_door);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sdx_writer') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM sdx_writer;
        GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO sdx_writer;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read TO sdx_writer;
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
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM sdx_reader;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM sdx_reader;
        GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO sdx_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger_v1, ledger_read TO sdx_reader;
        GRANT SELECT ON ledger.alembic_version TO sdx_reader;
        FOREACH v_door IN ARRAY v_looking || v_plain LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION ledger.%I TO sdx_reader', v_door);
        END LOOP;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger_v1 TO sdx_reader;
    END IF;
END
$$;
