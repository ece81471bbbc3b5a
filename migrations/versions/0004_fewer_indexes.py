"""A call is recognised by its batch and fills are found by the key of their trades: two indexes fewer."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("CREATE INDEX fills_order_idx ON ledger.fills (account, symbol, order_id)")
    op.execute("DROP INDEX ledger.fills_trade_key")
    op.execute(
        "CREATE UNIQUE INDEX fills_trade_key ON ledger.fills (account, symbol, order_id, trade_id)"
        " WHERE trade_id IS NOT NULL"
    )
    op.execute("ALTER TABLE ledger.inbox ADD CONSTRAINT inbox_session_frame_key UNIQUE (account, session_id, frame_no)")
    op.execute("ALTER TABLE ledger.batches DROP COLUMN session_id, DROP COLUMN frame_no")
