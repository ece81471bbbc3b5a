"""Readers see views alone, and the service writes through functions that run as the owner.

Views, functions and rights are code, which every upgrade installs anew. A program from before would write to the tables
itself, which it may not any more: it is refused.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ADDED = (
    "adopt_key",
    "set_mode",
    "set_block",
    "set_weight",
    "set_error",
    "set_paused",
    "set_stream_error",
    "set_stream_key",
    "set_page_limit",
    "add_order_checks",
    "put_off_order_checks",
    "end_order_checks",
    "leave_accepted_markets",
    "market_refused",
    "market_answered",
    "see_lock",
    "forget_locks",
    "hold_discrepancy",
)
"""Functions that the older program does not know."""


def upgrade() -> None:
    """Nothing of the tables changes."""


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger_read CASCADE")
    for function in ADDED:
        op.execute(f"DROP FUNCTION IF EXISTS ledger.{function}")
