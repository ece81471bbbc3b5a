"""Answers are applied in parts, newest balances are updated in place without an index by seq, and a table has one check
of its amounts."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


REAL = {
    "orders": (
        *("price", "orig_qty", "venue_executed_qty", "venue_executed_quote", "status_executed"),
        *("fills_qty", "fills_quote"),
    ),
    "fills": ("price", "qty", "quote_qty", "doubt_executed"),
    "balances": ("free", "locked"),
    "balance_history": ("free", "locked"),
    "snapshot_votes": ("free", "locked"),
    "explained": ("base_total", "total"),
}
SIGNED = {
    "fills": ("fee",),
    "transfers": ("amount",),
    "discrepancies": ("residual",),
    "explained": ("effects", "residual", "vote"),
}
IDENTITY = {
    "qty_is_positive": "qty > 0",
    "identity_is_known": "trade_id IS NOT NULL OR stream_key IS NOT NULL",
    "stream_identity_is_whole": (
        "(stream_key IS NULL) = (stream_ordinal IS NULL) AND (stream_key IS NULL) = (stream_ms IS NULL)"
    ),
}


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("CREATE INDEX balances_seq_idx ON ledger.balances (account, seq)")
    op.execute("COMMENT ON COLUMN ledger.inbox.raw IS 'exactly the bytes that came; a rest row is one response body'")
    op.execute(r"COMMENT ON COLUMN ledger.inbox.question IS 'rest\: method, path and parameters, without credentials'")
    for table in (*REAL, "transfers", "discrepancies"):
        op.execute(f"ALTER TABLE ledger.{table} DROP CONSTRAINT {table}_amounts_are_real")
    op.execute("ALTER TABLE ledger.fills DROP CONSTRAINT fills_identity_is_whole")
    for lowest, tables in ((">= 0", REAL), ("> '-Infinity'", SIGNED)):
        for table, names in tables.items():
            for name in names:
                rule = f"{name} {lowest} AND {name} < 'Infinity'"
                op.execute(f"ALTER TABLE ledger.{table} ADD CONSTRAINT {table}_{name}_is_real CHECK ({rule})")
    for name, rule in IDENTITY.items():
        op.execute(f"ALTER TABLE ledger.fills ADD CONSTRAINT fills_{name} CHECK ({rule})")
