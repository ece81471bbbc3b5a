"""The demo's screen shows whole numbers and symbols on any terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from ledger import demo, screen
from ledger.proof import Proof

STATUS = [
    {
        "account": name,
        "mode": mode,
        "live": name != "mixed",
        "frames_seen": 123456,
        "missing_executions": 22,
        "open_gaps": 1,
        "gaps": 3,
    }
    for name, mode in (
        ("documented", "orders"),
        ("orders_quote", "orders_quote"),
        ("mixed", "trades"),
        ("full", "trades"),
    )
]
ASSETS = ("1INCH", "ADA", "BNB", "BTC", "DOGE", "ETH", "SHIB", "SOL", "USDC", "USDT", "XRP", "币安人生")
HELD = [
    {"asset": asset, "free": Decimal(f"{number}98765432.12345678"), "locked": Decimal("12345.00000001")}
    for number, asset in enumerate(ASSETS, 1)
]
ORDERS = [
    {
        "symbol": symbol,
        "order_id": 288273 + number,
        "side": "SELL",
        "price": Decimal("0.00002345"),
        "executed_qty": Decimal("123456789.00000000"),
        "orig_qty": Decimal("987654321.00000000"),
        "status": "PARTIALLY_FILLED",
    }
    for number, symbol in enumerate(("SHIBUSDT", "1INCHUSDT", "币安人生USDT", "BTCUSDT", "ETHUSDT", "SOLUSDT"))
]
FILLS = [
    {
        "executed_at": datetime(2026, 11, 24, 11, 44, number, tzinfo=UTC),
        "executed_ms": 1795974529333 + number,
        "symbol": "币安人生USDT",
        "side": "BUY",
        "qty": Decimal("556700000.00000001"),
        "price": Decimal("123456.78901234"),
        "fee": Decimal("0.21199136"),
        "fee_asset": "USDT",
        "source": "stream",
    }
    for number in range(8)
]
BLOCKS = (
    screen.accounts(STATUS, {}, "trading"),
    screen.balances("full", HELD),
    (screen.orders(ORDERS), screen.fills(FILLS)),
)
CELLS = {cell for block in (BLOCKS[0], BLOCKS[1], *BLOCKS[2]) for row in block.rows for cell in row}
HEADERS = {name for block in (BLOCKS[0], BLOCKS[1], *BLOCKS[2]) for name in block.columns}


def drawn(width: int, height: int, what: Any) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(what)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("height", [24, 40, 60])
@pytest.mark.parametrize("width", [60, 80, 110, 160])
def test_numbers_and_symbols_are_whole_and_the_screen_is_no_larger_than_the_terminal(width: int, height: int) -> None:
    lines = drawn(width, height, screen.whole(width, height, *BLOCKS))
    parts = {part.strip() for line in lines for part in re.split("[│┃]", line) if "│" in line}
    shown = {part for part in parts if part and not re.search("[━─]| of |^(open orders|last fills)", part)} - HEADERS

    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= height
    assert "…" not in "".join(lines)
    assert shown - CELLS == set()
    assert {"documented", "orders_quote", "mixed", "full"} <= shown
    assert lines[-1].strip() == screen.HINT


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (80, ["trading", "last fills", "open orders (3 of 6)", "balances of full (3 of 12)"]),
        (160, ["trading", "balances of full", "last fills", "open orders"]),
    ],
)
def test_tables_stand_beside_each_other_where_they_fit_and_else_below(width: int, titles: list[str]) -> None:
    lines = drawn(width, 41, screen.whole(width, 41, *BLOCKS))
    places = [next(n for n, line in enumerate(lines) if title in line) for title in titles]

    assert places == sorted(places)
    assert (len(set(places)) == len(places)) is (width == 80)


def test_a_table_goes_below_rather_than_lose_many_columns() -> None:
    lines = drawn(110, 41, screen.whole(110, 41, *BLOCKS))

    assert any("time (UTC)" in line and "fee" in line and "source" in line for line in lines)


@pytest.mark.parametrize("width", [80, 110])
def test_the_comparison_at_the_end_is_whole_too(width: int) -> None:
    proofs = [Proof("x", one["account"], 83, 68, 112, 22, 12, 3, 3, ["something"]) for one in STATUS]
    table = demo.proof_block(proofs).table(width)
    lines = drawn(width, 40, table)

    assert max(map(cell_len, lines)) <= width
    for name in ("documented", "orders_quote", "mixed", "full"):
        (line,) = [line for line in lines if name in line]
        assert "22 orders" in line
        assert "NO" in line
