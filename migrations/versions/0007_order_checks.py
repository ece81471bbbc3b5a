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
    # What was seen once is seen again.
    op.execute("DROP TABLE ledger.observations")
    op.execute(
        "CREATE TABLE ledger.snapshot_votes (account TEXT NOT NULL, asset TEXT NOT NULL, free NUMERIC NOT NULL,"
        " locked NUMERIC NOT NULL, asked_ms BIGINT NOT NULL, asked_seq BIGINT NOT NULL,"
        " CONSTRAINT snapshot_votes_pkey PRIMARY KEY (account, asset), CONSTRAINT snapshot_votes_amounts_are_real"
        " CHECK (greatest(free, locked) < 'Infinity' AND least(free, locked) >= 0))"
    )
    op.execute(
        "ALTER TABLE ledger.explained DROP CONSTRAINT explained_amounts_are_real, ADD COLUMN vote NUMERIC,"
        " ADD COLUMN vote_at TIMESTAMP WITH TIME ZONE, ADD CONSTRAINT explained_amounts_are_real CHECK"
        " (greatest(base_total, total, effects, residual, vote) < 'Infinity' AND least(base_total, total) >= 0"
        " AND least(effects, residual, vote) > '-Infinity')"
    )
    for what, comment in _VOTES.items():
        op.execute(f"COMMENT ON {what} IS '{comment}'")
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

_VOTES = {
    "TABLE ledger.snapshot_votes": (
        "Snapshots that disagree with newer-looking stream states; two that agree win (see db/apply.sql)."
    ),
    "COLUMN ledger.snapshot_votes.account": "account of the snapshot",
    "COLUMN ledger.snapshot_votes.asset": "asset whose snapshot value differs from the stream''s",
    "COLUMN ledger.snapshot_votes.free": "free as the snapshot told it",
    "COLUMN ledger.snapshot_votes.locked": "locked as the snapshot told it",
    "COLUMN ledger.snapshot_votes.asked_ms": (
        "when the first agreeing snapshot was asked, by the venue''s clock; ms since 1970 UTC"
    ),
    "COLUMN ledger.snapshot_votes.asked_seq": "newest seq when that snapshot was asked",
    "COLUMN ledger.explained.vote": (
        "another residual seen once; a second look at least 5 s later decides; null: none"
    ),
    "COLUMN ledger.explained.vote_at": "when it was seen, database clock",
}
