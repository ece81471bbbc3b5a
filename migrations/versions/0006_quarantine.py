"""Frames and answers kept without their facts are listed, with how often they were applied again."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("DROP TABLE ledger.quarantine CASCADE")
    for name in ("paused_error", "paused_since"):
        op.execute(f"ALTER TABLE ledger.venue_state DROP COLUMN {name}")
