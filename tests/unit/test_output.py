"""Tables keep every character, whatever the width, and a pipe has none."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from ledger import output

DIGEST = "e24942f14b1c6e1d" * 4
FOLDER = "/srv/data with spaces/of somebody/.local/share/sdx-ledger/pg"


def shown(width: int) -> str:
    table = output.table("", "what", "SHA-256", "where")
    table.add_row("=", "balance_history", DIGEST, FOLDER)
    screen = Console(file=StringIO(), force_terminal=True, color_system=None, width=width)
    screen.print(table)
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [40, 60, 80, 110])
def test_a_narrow_terminal_folds_cells_and_cuts_none_short(width: int) -> None:
    lines = shown(width).splitlines()
    cells = ["".join(line.split("│")[number].strip() for line in lines if "│" in line) for number in (2, 3, 4)]

    assert max(map(len, lines)) <= width
    assert "…" not in shown(width)
    assert [cell.replace(" ", "") for cell in cells] == ["balance_history", DIGEST, FOLDER.replace(" ", "")]


def test_a_pipe_has_no_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    table = output.table("what", "SHA-256", "where")
    table.add_row("balance_history", DIGEST, FOLDER)

    output.console().print(table)

    (line,) = [line for line in capsys.readouterr().out.splitlines() if DIGEST in line]
    assert FOLDER in line
