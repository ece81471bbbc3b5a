"""How many rows the venue gives at most per question, and which questions it refused."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("DROP TABLE ledger.refused_markets")
    op.execute("DROP TABLE ledger.page_limits")
    op.execute("ALTER TABLE ledger.walks DROP COLUMN served_from_ms")
