"""Orders that must be asked for again are one table, and so is what must be seen twice."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute(
        "CREATE TABLE ledger.suspects (account TEXT NOT NULL, symbol TEXT NOT NULL, order_id BIGINT NOT NULL,"
        " since_ms BIGINT NOT NULL, CONSTRAINT suspects_pkey PRIMARY KEY (account, symbol, order_id))"
    )
    for what, comment in _SUSPECTS.items():
        op.execute(f"COMMENT ON {what} IS '{comment}'")
    op.execute(
        "INSERT INTO ledger.suspects SELECT account, symbol, order_id, due_ms FROM ledger.order_checks"
        " WHERE reason = 'moved_in_gap' AND due_ms IS NOT NULL"
    )
    # The views that name it are laid anew by the upgrade that comes after.
    op.execute("DROP TABLE ledger.order_checks CASCADE")


_SUSPECTS = {
    "TABLE ledger.suspects": (
        "Orders that moved while a gap was healed: asked for once more when they have been quiet, then gone."
    ),
    "COLUMN ledger.suspects.account": "account that placed the order",
    "COLUMN ledger.suspects.symbol": "market",
    "COLUMN ledger.suspects.order_id": "the venue''s order id",
    "COLUMN ledger.suspects.since_ms": (
        "end of the gap in which fills of the order may have been lost, venue clock; ms since 1970 UTC"
    ),
}
