"""Everything the program says to a person: lines, tables, JSON, the live screen. Nothing else prints.

Always holds: a text reaches the terminal with what does not show itself escaped (``escapes``), and never as markup,
whoever said it; table cells fold and never lose a character; off a terminal no width limits them. Who prints for a
reader that went away, or onto a full device, is stopped at once: ReaderGone, CannotWrite.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console as Console  # who calls names what it gets
from rich.console import Group as Group
from rich.console import RenderableType
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Progress
from rich.table import Table as Table
from rich.text import Text

from ledger.errors import CannotWrite, ReaderGone
from ledger.escapes import escaped, escaped_json
from ledger.venue.reading import LAST_MS

_WIDE = 100_000
"""Columns of whatever is no terminal: as many as the widest table wants."""


def styled(text: str, style: str = "") -> Text:
    """Text as a cell or a part of one: in this style, everything in it shown."""
    return Text(escaped(text), style)


def stacked(*lines: str | Text) -> Text:
    """Several lines in one cell; a line is one line, whatever is in it."""
    return Text("\n").join(line if isinstance(line, Text) else styled(line) for line in lines)


def table(*headers: str, title: str | None = None, caption: str | None = None, **options: Any) -> Table:
    """A table whose cells are text, never markup, and fold where the terminal is narrow: a digest or a path cut short
    is neither."""
    made = _Rows(
        title=None if title is None else styled(title), caption=None if caption is None else styled(caption), **options
    )
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


class _Rows(Table):
    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add what each cell says; ``styled`` and ``stacked`` make one that is more than text."""
        super().add_row(*(styled(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def console(width: int = _WIDE) -> Console:
    """Standard output. A pipe or a file has this width, whatever COLUMNS says of the terminal beside it."""
    made = Console(highlight=False, markup=False, emoji=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, emoji=False, width=width)


def show(shown: RenderableType, *, width: int = _WIDE) -> None:
    """Print a table."""
    screen = console(width)
    with screen.capture() as printed:
        screen.print(styled(shown) if isinstance(shown, str) else shown)
    _put(printed.get())


def line(text: str, *, err: bool = False) -> None:
    """Print one line: what is in the text cannot begin another."""
    _put(f"{escaped(text)}\n", err=err)


def own_file(text: str) -> None:
    """Print a file of this program as it is."""
    _put(text)


def print_json(schema: str, **content: Any) -> None:
    """One JSON object on stdout; decimals and times as text."""

    def plain(value: Any) -> str:
        if isinstance(value, Decimal):
            return format(value, "f")
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        raise TypeError(f"cannot print {type(value).__name__}")

    # Where the terminal cannot show every character, JSON has an escape of its own for them.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    written = json.dumps({"schema": schema, **content}, default=plain, ensure_ascii=not is_unicode)
    _put(f"{escaped_json(written)}\n")


def json_line(content: dict[str, Any], *, err: bool = False) -> None:
    """One JSON object as a line among others."""
    _put(f"{json.dumps(content)}\n", err=err)


@contextmanager
def live(screen: Console, *, transient: bool) -> Iterator[Live]:
    """A part of the terminal that is drawn anew."""
    with Live(console=screen, auto_refresh=False, transient=transient) as made:
        yield made


def progress_bar(*columns: str) -> Progress:
    """A bar on stderr between these columns (rich's ``{task…}`` formats), the first before it."""
    texts = [TextColumn(column, markup=False) for column in columns]
    return Progress(*texts[:2], BarColumn(), *texts[2:], console=Console(stderr=True))


def err_is_terminal() -> bool:
    """Whether somebody watches stderr."""
    return Console(stderr=True).is_terminal


def moment(ms: int) -> str:
    """ms since 1970 as UTC text; a number where no calendar here goes that far."""
    if ms >= LAST_MS:
        return f"{ms} ms since 1970, which is no time: a clock was wrong"
    whole, thousandths = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%F %T}.{thousandths:03d} UTC"


def spoken_times(text: str) -> str:
    """The text with each instant in it, ms since 1970 after "at", "from" or "since", as UTC; all else stays."""
    return re.sub(r"\b(at|from|since) (1\d{12})\b", lambda found: f"{found[1]} {moment(int(found[2]))}", text)


@contextmanager
def to_stdout() -> Iterator[None]:
    """Around every write to standard output. Raises ReaderGone or CannotWrite."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone("whoever read standard output went away") from None
    except OSError as error:
        raise CannotWrite(f"cannot write to standard output: {error.strerror or error}") from None


def let_go() -> None:
    """Forget what standard output still holds: what is flushed at the end of the program goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _put(text: str, *, err: bool = False) -> None:
    if not err:
        with to_stdout():
            sys.stdout.write(text)
            sys.stdout.flush()
        return
    with suppress(OSError, ValueError):  # nobody reads what is remarked
        sys.stderr.write(text)
        sys.stderr.flush()
