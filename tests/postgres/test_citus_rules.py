"""The rules that keep the schema ready for an engine that spreads its tables by account, read from the catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.db.tables import DISTRIBUTED, REFERENCE

NOT_LISTED = "every table is in the list of spread or of copied ones"
ACCOUNT_FIRST = "account comes first in every key of a spread table"
HAS_KEY = "every spread table has a primary key"
NO_TRIGGER = "no trigger but the guard of the journal, which plain PostgreSQL alone gets"
NO_SEQUENCE = "no sequence, identity or serial"
FOREIGN_KEY = "a foreign key between spread tables starts with account on both sides"
NO_FLOAT = "no floating point"
NO_PLAIN_TIME = "every timestamp has a time zone"

RULES = {
    NOT_LISTED: """
        SELECT relname::text AS what FROM pg_class
        WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'f', 'm')
        AND relname <> ALL ($1::text[] || $2::text[] || ARRAY['alembic_version'])
        UNION ALL SELECT name FROM unnest($1::text[] || $2::text[]) name WHERE to_regclass('ledger.' || name) IS NULL
    """,
    ACCOUNT_FIRST: """
        SELECT i.indexrelid::regclass::text AS what FROM pg_index i
        JOIN pg_class t ON t.oid = i.indrelid
        LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
        WHERE t.relnamespace = 'ledger'::regnamespace AND t.relname = ANY ($1) AND cardinality($2::text[]) > 0
        AND (i.indisunique OR i.indisexclusion) AND a.attname IS DISTINCT FROM 'account'
    """,
    HAS_KEY: """
        SELECT t.relname::text AS what FROM pg_class t
        WHERE t.relnamespace = 'ledger'::regnamespace AND t.relname = ANY ($1) AND cardinality($2::text[]) > 0
        AND t.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary)
    """,
    NO_TRIGGER: """
        SELECT tgname::text AS what FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
        WHERE t.relnamespace = 'ledger'::regnamespace AND NOT g.tgisinternal
        AND g.tgfoid IS DISTINCT FROM to_regproc('ledger.refuse_change')
        AND cardinality($1::text[] || $2::text[]) > 0
    """,
    NO_SEQUENCE: """
        SELECT relname::text AS what FROM pg_class
        WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'S' AND cardinality($1::text[] || $2::text[]) > 0
    """,
    FOREIGN_KEY: """
        SELECT o.conname::text AS what FROM pg_constraint o
        JOIN pg_class t ON t.oid = o.conrelid JOIN pg_class r ON r.oid = o.confrelid
        LEFT JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = o.conkey[1]
        LEFT JOIN pg_attribute b ON b.attrelid = o.confrelid AND b.attnum = o.confkey[1]
        WHERE o.contype = 'f' AND t.relnamespace = 'ledger'::regnamespace AND r.relname <> ALL ($2)
        AND cardinality($1::text[]) > 0 AND (a.attname <> 'account' OR b.attname <> 'account')
    """,
    NO_FLOAT: """
        SELECT format('%s.%s', t.relname, a.attname) AS what FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
        WHERE t.relnamespace IN ('ledger'::regnamespace, 'ledger_v1'::regnamespace) AND a.attnum > 0
        AND a.atttypid IN ('real'::regtype, 'double precision'::regtype, 'money'::regtype)
        AND cardinality($1::text[] || $2::text[]) > 0
    """,
    NO_PLAIN_TIME: """
        SELECT format('%s.%s', t.relname, a.attname) AS what FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
        WHERE t.relnamespace IN ('ledger'::regnamespace, 'ledger_v1'::regnamespace) AND a.attnum > 0
        AND a.atttypid IN ('timestamp'::regtype, 'time'::regtype, 'timetz'::regtype)
        AND cardinality($1::text[] || $2::text[]) > 0
    """,
}
"""Each query names what breaks its rule; $1 the spread tables, $2 the copied ones."""


async def broken(conn: Any, rule: str) -> list[str]:
    return [row["what"] for row in await conn.fetch(RULES[rule], sorted(DISTRIBUTED), sorted(REFERENCE))]


@pytest.mark.parametrize("rule", RULES)
async def test_the_schema_keeps_the_rule(conn: Any, rule: str) -> None:
    assert await broken(conn, rule) == []


@pytest.mark.parametrize(
    ("rule", "change", "found"),
    [
        (NOT_LISTED, "CREATE TABLE ledger.notes (account text)", ["notes"]),
        (NOT_LISTED, "DROP TABLE ledger.answers CASCADE", ["answers"]),
        (ACCOUNT_FIRST, "CREATE UNIQUE INDEX u ON ledger.fills (trade_id, account)", ["ledger.u"]),
        (ACCOUNT_FIRST, "CREATE UNIQUE INDEX u ON ledger.fills (lower(account))", ["ledger.u"]),
        (ACCOUNT_FIRST, "ALTER TABLE ledger.gaps ADD CONSTRAINT u UNIQUE (gap_id)", ["ledger.u"]),
        (HAS_KEY, "ALTER TABLE ledger.gaps DROP CONSTRAINT gaps_pkey", ["gaps"]),
        (
            NO_TRIGGER,
            "CREATE TRIGGER t BEFORE UPDATE ON ledger.fills FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ["t"],
        ),
        (NO_SEQUENCE, "ALTER TABLE ledger.gaps ADD id bigserial", ["gaps_id_seq"]),
        (
            NO_SEQUENCE,
            "ALTER TABLE ledger.gaps ADD id bigint GENERATED ALWAYS AS IDENTITY",
            ["gaps_id_seq"],
        ),
        (
            FOREIGN_KEY,
            "CREATE UNIQUE INDEX u ON ledger.gaps (gap_id);"
            "ALTER TABLE ledger.fills ADD gap bigint CONSTRAINT k REFERENCES ledger.gaps (gap_id)",
            ["k"],
        ),
        (FOREIGN_KEY, "ALTER TABLE ledger.fills ADD CONSTRAINT k FOREIGN KEY (account) REFERENCES ledger.accounts", []),
        (NO_FLOAT, "ALTER TABLE ledger.fills ADD rate double precision", ["fills.rate"]),
        (NO_PLAIN_TIME, "ALTER TABLE ledger.fills ADD at timestamp", ["fills.at"]),
    ],
)
async def test_a_change_that_breaks_the_rule_is_found(conn: Any, rule: str, change: str, found: list[str]) -> None:
    await conn.execute(change)
    assert await broken(conn, rule) == found
