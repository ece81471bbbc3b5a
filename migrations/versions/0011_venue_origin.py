"""An account belongs to a venue once it has heard from it."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.venue_state DROP COLUMN stream_error")
    # An outage that goes on ends, for the older program, where it began.
    op.execute("UPDATE ledger.gaps SET until_ms = coalesce(from_ms, 0) WHERE until_ms IS NULL")
    op.execute("ALTER TABLE ledger.gaps ALTER COLUMN until_ms SET NOT NULL")
