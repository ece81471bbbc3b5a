"""How tables and times look to people: cells fold and never lose a character; off a terminal no width limits them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger.venue.reading import LAST_MS

_WIDE = 100_000
"""Columns of whatever is no terminal: as many as the widest table wants."""


def console() -> Console:
    """Standard output. A pipe or a file has no width, whatever COLUMNS says of the terminal beside it."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)


def table(*headers: str, **options: Any) -> Table:
    """A table whose cells fold where the terminal is narrow: a digest or a path cut short is neither."""
    made = Table(**options)
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def moment(ms: int) -> str:
    """ms since 1970 as UTC text; a number where no calendar here goes that far."""
    if ms >= LAST_MS:
        return f"{ms} ms since 1970, which is no time: a clock was wrong"
    whole, thousandths = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%F %T}.{thousandths:03d} UTC"


def spoken_times(text: str) -> str:
    """The text with each instant in it, ms since 1970 after "at", "from" or "since", as UTC; all else stays."""
    return re.sub(r"\b(at|from|since) (1\d{12})\b", lambda found: f"{found[1]} {moment(int(found[2]))}", text)
