"""What an order was before it was amended; movements of one millisecond are counted."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("DROP TABLE ledger.order_amendments CASCADE")
    op.execute("ALTER TABLE ledger.orders DROP COLUMN terms_asked_ms, DROP COLUMN terms_ms")
    op.execute("COMMENT ON COLUMN ledger.inbox.problem IS 'why it could not be understood; null when it was'")
    # The older program knows one movement of a kind, amount and instant.
    op.execute("DELETE FROM ledger.transfers WHERE ordinal > 1")
    op.execute("ALTER TABLE ledger.transfers DROP CONSTRAINT transfers_pkey")
    op.execute("ALTER TABLE ledger.transfers DROP COLUMN ordinal")
    op.execute(
        "ALTER TABLE ledger.transfers ADD CONSTRAINT transfers_pkey PRIMARY KEY (account, asset, at_ms, kind, amount)"
    )
