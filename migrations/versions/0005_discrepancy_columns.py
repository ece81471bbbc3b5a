"""What a discrepancy is about stands in columns of its own; coverage stops at what was set aside."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("DROP INDEX ledger.discrepancies_uncovered_idx")
    for name in ("symbol", "order_id", "trade_id", "asset", "uncovered_from_ms"):
        # The views that name it are laid anew by the upgrade that comes after.
        op.execute(f"ALTER TABLE ledger.discrepancies DROP COLUMN {name} CASCADE")
