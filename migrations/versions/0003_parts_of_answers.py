"""Answers are applied in parts, and the newest balances are updated in place: few rows need no index by seq."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("CREATE INDEX balances_seq_idx ON ledger.balances (account, seq)")
    op.execute("COMMENT ON COLUMN ledger.inbox.raw IS 'exactly the bytes that came; a rest row is one response body'")
    op.execute(r"COMMENT ON COLUMN ledger.inbox.question IS 'rest\: method, path and parameters, without credentials'")
