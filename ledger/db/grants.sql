-- What the roles may do, where they exist; set again by every upgrade, so that nothing granted before is left over.
--
-- The writer may only read tables. All that it changes goes through entry functions, which run as the owner with a search
-- path of their own, so that no name in them is the caller's to choose. What they call runs as the owner too, and only the
-- owner may call it. None of them adds a journal row without its place in the chain, or edits a fill.
-- The reader sees views, which are the owner's, and nothing beneath them but the version of the schema, which must be
-- readable whatever the views are.
REVOKE ALL ON SCHEMA ledger, ledger_v1, ledger_read FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM PUBLIC;
DO $$
DECLARE
    v_name text;
    -- Entry functions that write.
    v_writing CONSTANT text[] := ARRAY[
        'apply', 'register', 'adopt_key', 'take_lead', 'keep_lead', 'leave_lead', 'stream_down', 'open_gap', 'close_gap',
        'set_mode', 'set_block', 'set_weight', 'set_error', 'set_paused', 'set_stream_error', 'set_stream_key',
        'set_page_limit', 'find_order_checks', 'add_order_checks', 'put_off_order_checks', 'end_order_checks',
        'leave_accepted_markets', 'market_refused', 'market_answered', 'explain', 'see_lock', 'forget_locks',
        'learn_markets', 'infer_markets', 'hold_discrepancy', 'stay_in_quarantine'];
    -- Functions that look as the owner, for whoever may not see the tables.
    v_looking CONSTANT text[] := ARRAY['broken_chain', 'gapless_through_ms', 'unread_markets'];
    -- These are called with the caller's own rights: by views, and in what the service asks.
    v_plain CONSTANT text[] := ARRAY['clock', 'status_is_known', 'unit_price'];
    v_asked CONSTANT text[] := ARRAY['status_rank', 'locks_at_rest'];
BEGIN
    FOREACH v_name IN ARRAY v_writing || v_looking LOOP
        EXECUTE format('ALTER FUNCTION ledger.%I SECURITY DEFINER SET search_path = pg_catalog, pg_temp', v_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sdx_writer') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM sdx_writer;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM sdx_writer;
        GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO sdx_writer;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read TO sdx_writer;
        FOREACH v_name IN ARRAY v_writing || v_looking || v_plain || v_asked LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION ledger.%I TO sdx_writer', v_name);
        END LOOP;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger_v1 TO sdx_writer;
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sdx_reader') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA ledger, ledger_v1, ledger_read FROM sdx_reader;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger, ledger_v1 FROM sdx_reader;
        GRANT USAGE ON SCHEMA ledger, ledger_v1, ledger_read TO sdx_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger_v1, ledger_read TO sdx_reader;
        GRANT SELECT ON ledger.alembic_version TO sdx_reader;
        FOREACH v_name IN ARRAY v_looking || v_plain LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION ledger.%I TO sdx_reader', v_name);
        END LOOP;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger_v1 TO sdx_reader;
    END IF;
END
$$;
