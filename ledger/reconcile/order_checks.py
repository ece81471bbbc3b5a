"""When an order is asked for again, and what the venue's answer means for it. Pure: values in, decisions out.

Always holds: what is asked in vain is asked ever more seldom, from seconds to once a day, and never given up unless the
answer agrees with what is known.
"""

from __future__ import annotations

from decimal import Decimal

PER_TURN_MAX = 20
"""Orders asked for in one turn: what else there is to do waits no longer than these take."""
BESIDE_BACKFILL_MAX = 4
"""The same while a gap is open: most of what may be asked in a second belongs to the backfill."""
FIRST_PAUSE_MS = 2_000
LONGEST_PAUSE_MS = 86_400_000
SURE_TRIES = 6
"""So often asked in vain, over a minute or so, the venue means what it says: a person is told."""

UNKNOWN_ORDER = frozenset({-2013, -2026, -2011})
"""Codes by which the venue says that there is no such order."""
ARCHIVED = -2026
"""It ended without an execution long ago and is kept no more."""


def pause_ms(tries: int) -> int:
    """How long to wait after an order was asked for in vain, as ``tries`` times before: 2 s, 4 s, … up to a day."""
    assert tries >= 0
    return min(FIRST_PAUSE_MS << min(tries, 32), LONGEST_PAUSE_MS)


def agrees(code: int | None, status: str | None, executed_qty: Decimal) -> bool:
    """Whether "there is no such order" (``code``) is what the venue should say of an order known to be in this state.

    One that was rejected never came to be; one that is archived ended without an execution. ``status`` None: none was
    reported. Executed quantities are in base asset.
    """
    if executed_qty > 0:
        return False
    return status == "REJECTED" or code == ARCHIVED
