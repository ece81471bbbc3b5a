"""What the mirror proves itself with: a chain over the journal, walks, leases, explained balances.

Rows kept before there was a chain become one batch per account, sealed as they stand. The statements for tables are
in the file beside this one.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SEAL = """
    WITH digested AS (
        SELECT i.account, i.seq, sha256(convert_to(ROW(
            i.source, i.session_id, i.frame_no, (extract(epoch FROM i.received_at) * 1000000)::bigint, i.kind,
            i.venue_ms, i.asked_seq, i.question, i.problem)::text, 'UTF8') || i.raw) AS digest
        FROM ledger.inbox i
    ), sealed AS (
        SELECT d.account, max(d.seq) AS last_seq, min(d.seq) AS first_seq,
               string_agg(substring(d.digest FOR 8), '' ORDER BY d.seq) AS marks,
               sha256(convert_to(ROW(d.account, min(d.seq), false, 0)::text, 'UTF8')
                      || string_agg(d.digest, '' ORDER BY d.seq)) AS digest
        FROM digested d GROUP BY d.account
    ), put AS (
        INSERT INTO ledger.batches (account, last_seq, first_seq, clockless, marks, digest)
        SELECT s.account, s.last_seq, s.first_seq, false, s.marks, s.digest FROM sealed s
        RETURNING account, digest
    )
    UPDATE ledger.accounts a SET head_digest = p.digest FROM put p WHERE p.account = a.account
"""

DROP_FUNCTIONS = """
    DO $$
    DECLARE
        f record;
    BEGIN
        FOR f IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = 'ledger'::regnamespace LOOP
            EXECUTE 'DROP FUNCTION ' || f.name || ' CASCADE';
        END LOOP;
    END
    $$
"""


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))
    op.execute(SEAL.replace(":", r"\:"))


def downgrade() -> None:
    # Functions and views are of the newest version; a program of the older one lays its own.
    op.execute("DROP SCHEMA ledger_v1 CASCADE")
    op.execute("CREATE SCHEMA ledger_v1")
    op.execute(DROP_FUNCTIONS.replace(":", r"\:"))
    for table in ("batches", "walks", "suspects", "markets", "explained", "leases"):
        op.execute(f"DROP TABLE ledger.{table} CASCADE")
    op.execute("DROP INDEX ledger.fills_order_idx")
    op.execute("ALTER TABLE ledger.accounts DROP COLUMN head_digest, DROP COLUMN fence")
    op.execute("ALTER TABLE ledger.venue_state DROP COLUMN key_digest, DROP COLUMN key_ms")
    op.execute("ALTER TABLE ledger.gaps DROP COLUMN opened_seq")
    op.execute("ALTER TABLE ledger.coverage DROP COLUMN walked_gap")
    op.execute("ALTER TABLE ledger.discrepancies DROP COLUMN at_ms")
