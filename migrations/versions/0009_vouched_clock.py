"""What the database's own clock vouches for, and the journal tip a writer was last told."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.coverage DROP COLUMN through_at")
    op.execute("ALTER TABLE ledger.venue_state DROP COLUMN key_at")
