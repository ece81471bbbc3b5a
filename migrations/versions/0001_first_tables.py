"""The tables of the first version. The statements stand in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            # Comments hold colons, which would read as bound parameters.
            op.execute(statement.strip().replace(":", r"\:"))


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger_v1 CASCADE")
    op.execute("CREATE SCHEMA ledger_v1")
    op.execute(
        "DROP TABLE ledger.accounts, ledger.inbox, ledger.answers, ledger.orders, ledger.fills, ledger.balances,"
        " ledger.balance_history, ledger.snapshot_votes, ledger.transfers, ledger.gaps, ledger.coverage,"
        " ledger.discrepancies, ledger.venue_state CASCADE"
    )
    for function in (
        "apply",
        "settle_order",
        "bring_snapshot",
        "land_fill",
        "meet_fill",
        "doubt",
        "status_rank",
        "register",
        "beat",
        "stream_down",
        "open_gap",
        "close_gap",
    ):
        op.execute(f"DROP FUNCTION IF EXISTS ledger.{function}")
    for kind in ("order_standing", "told_order", "told_fill", "told_balance", "fills_sum"):
        op.execute(f"DROP TYPE IF EXISTS ledger.{kind}")
