"""Readers see views alone: those of the contract, and a schema for what the program's own commands read besides.

The views and the rights on them are code, laid by every upgrade. A program from before knows neither and is refused.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing of the tables changes."""


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger_read CASCADE")
