-- What the program's own commands read besides the contract: the tables as they are, but for the hashes of keys and the
-- notes of who leads. Like the views of the contract these are the owner's, so whoever may read them needs no right on the
-- tables beneath. No contract: they change with the tables.
DO $$
DECLARE
    v_shown CONSTANT name[] := '{accounts,answers,balance_history,balances,batches,coverage,discrepancies,fills,gaps,inbox,leases,markets,order_checks,orders,quarantine,transfers,venue_state}';
    v_kept_back CONSTANT name[] := '{key_fingerprint,key_digest,key_ms,key_at,fence,holder}';
    v_view record;
    v_column record;
BEGIN
    FOR v_view IN
        SELECT c.oid, c.relname AS name, obj_description(c.oid, 'pg_class') AS says,
               string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'ledger'::regnamespace AND c.relname = ANY (v_shown)
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (v_kept_back)
        GROUP BY c.oid, c.relname
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW ledger_read.%I AS SELECT %s FROM ledger.%1$I', v_view.name, v_view.columns);
        EXECUTE format('COMMENT ON VIEW ledger_read.%I IS %L', v_view.name, v_view.says);
        FOR v_column IN
            SELECT a.attname AS name, col_description(a.attrelid, a.attnum) AS says FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = v_view.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (v_kept_back)
        LOOP
            EXECUTE format('COMMENT ON COLUMN ledger_read.%I.%I IS %L', v_view.name, v_column.name, v_column.says);
        END LOOP;
    END LOOP;
END
$$;
