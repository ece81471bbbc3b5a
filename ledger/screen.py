"""The demo's screen, for any terminal: tables beside each other where they fit, else one below the other; where there
is no room columns, rows or whole tables are left out, a digit or a letter of a symbol never.

Pure: rows in, tables out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Column, Table

from ledger.escapes import escaped
from ledger.output import styled

ROWS_MIN = 3
"""Rows that the tables further down are left, where there is room for them at all."""
DROPPED_MAX = 2
"""Columns that a table may lose for standing beside another; below it, it has the whole width."""
GAP = 2
HINT = "Ctrl-C ends the demo"


@dataclass(frozen=True, slots=True)
class Block:
    """One table: its columns in the order they are shown, and which go first where the terminal is narrow."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drop: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    def kept(self, width: int) -> tuple[str, ...]:
        """The columns there is room for."""
        columns = list(self.columns)
        for name in self.drop:
            if self._width(columns) <= width:
                break
            columns.remove(name)
        return tuple(columns)

    def width(self, width: int) -> int:
        """Columns of the terminal it takes of ``width``; more where even the least does not fit."""
        return self._width(self.kept(width))

    def _width(self, columns: Sequence[str]) -> int:
        return sum(self._cells(name) + 3 for name in columns) + 1

    def _cells(self, name: str) -> int:
        """Width of a column none of whose cells is folded; its header may be, between words."""
        number = self.columns.index(name)
        return max(1, *map(cell_len, name.split()), *(cell_len(row[number]) for row in self.rows))

    def frame_lines(self, width: int) -> int:
        """Lines it takes besides its rows: title, frame, and a header that folds where that keeps a column."""
        folds = self._folds(width)
        return 4 + max(
            (len(name.split()) for name in self.kept(width) if folds and len(name) > self._cells(name)), default=1
        )

    def table(self, width: int, lines: int | None = None) -> Table:
        """As a table of at most ``lines`` lines, which says how many rows it leaves out."""
        at_most = len(self.rows) if lines is None else max(1, lines - self.frame_lines(width))
        cut = f" ({at_most} of {len(self.rows)})" if at_most < len(self.rows) else ""
        made = Table(title=styled(f"{self.title}{cut}"), title_style="bold")
        for name in self.kept(width):
            column = Column(name, overflow="fold", width=self._cells(name) if self._folds(width) else None)
            column.justify = "right" if name in self.numbers else "left"
            made.columns.append(column)
        places = [self.columns.index(name) for name in self.kept(width)]
        for row in self.rows[:at_most]:
            made.add_row(*(styled(row[place], _style(row[place])) for place in places))
        return made

    def _folds(self, width: int) -> bool:
        return sum(max(len(name), self._cells(name)) + 3 for name in self.kept(width)) + 1 > width


def whole(width: int, height: int, first: Block, side: Block, main: Sequence[Block]) -> Group:
    """``first`` on top; below it ``side`` beside the ``main`` ones, or all of them in one column, the last of ``main``
    first, as far as the lines go."""
    top = first.table(width)
    left = height - (len(first.rows) + first.frame_lines(width) + 2)
    room = width - side.width(width) - GAP
    fits = all(
        len(block.columns) - len(block.kept(room)) <= DROPPED_MAX and block.width(room) <= room for block in main
    )
    if fits and left >= sum(_least(block, room) for block in main):
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_row(side.table(width, left), Group(*_stacked(room, left, main[::-1])))
        return Group(top, grid, styled(HINT, "dim"))
    return Group(top, *_stacked(width, left, (*main[::-1], side)), styled(HINT, "dim"))


def _least(block: Block, width: int) -> int:
    return block.frame_lines(width) + min(ROWS_MIN, len(block.rows))


def _stacked(width: int, lines: int, blocks: Sequence[Block]) -> list[RenderableType]:
    """The tables one below the other, each with a fair part of the lines; those for which none are left stay away."""
    shown: list[RenderableType] = []
    for number, block in enumerate(blocks):
        later = sum(_least(one, width) for one in blocks[number + 1 :])
        wanted = block.frame_lines(width) + max(1, len(block.rows))
        room = min(wanted, max(lines - later, min(lines, _least(block, width))))
        if room <= block.frame_lines(width):
            break
        shown.append(block.table(width, room))
        lines -= room
    return shown


def accounts(rows: Sequence[dict[str, Any]], seen: dict[str, int], note: str) -> Block:
    """How each mirror is, ``seen`` frames a moment ago."""
    columns = ("account", "mode", "live", "frames", "frames/s", "missing on", "gaps open", "gaps")
    return Block(
        note,
        columns,
        tuple(
            (
                row["account"],
                row["mode"] or "…",
                "yes" if row["live"] else "no",
                str(row["frames_seen"]),
                str(row["frames_seen"] - seen.get(row["account"], row["frames_seen"])),
                f"{row['missing_executions']} orders",
                str(row["open_gaps"]),
                str(row["gaps"]),
            )
            for row in rows
        ),
        drop=("gaps", "frames/s", "mode", "frames"),
        numbers=columns[3:],
    )


def balances(account: str, rows: Sequence[Any]) -> Block:
    """What an account holds."""
    cells = tuple((row["asset"], text(row["free"]), text(row["locked"])) for row in rows)
    return Block(f"balances of {account}", ("asset", "free", "locked"), cells, ("locked",), ("free", "locked"))


def orders(rows: Sequence[Any]) -> Block:
    """Open orders."""
    columns = ("symbol", "order", "side", "price", "executed", "of", "status")
    fields = ("symbol", "order_id", "side", "price", "executed_qty", "orig_qty", "status")
    cells = tuple(tuple(text(row[name]) for name in fields) for row in rows)
    return Block("open orders", columns, cells, ("status", "order", "side", "of"), ("order", "price", "executed", "of"))


def fills(rows: Sequence[Any]) -> Block:
    """The newest fills."""
    columns = ("time (UTC)", "symbol", "side", "qty", "price", "fee", "of", "source")
    cells = tuple(
        (
            f"{row['executed_at']:%H:%M:%S}.{row['executed_ms'] % 1000:03d}",
            *(text(row[name]) for name in ("symbol", "side", "qty", "price", "fee", "fee_asset", "source")),
        )
        for row in rows
    )
    return Block("last fills", columns, cells, ("source", "of", "fee", "time (UTC)", "side"), ("qty", "price", "fee"))


def text(value: str | int | Decimal | datetime | None) -> str:
    """A cell, digit for digit."""
    if value is None:
        return "-"
    return f"{value:f}" if isinstance(value, Decimal) else escaped(str(value))


def _style(cell: str) -> str:
    return {"yes": "green", "no": "red"}.get(cell.lower(), "")
