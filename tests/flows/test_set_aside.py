"""What was set aside, as an operator meets it: listed, tried again, accepted; by the real commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.field.play import Play, Sample, play_of
from tests.field.venue import Row, now_ms, order_row, refusal, trade_row
from tests.histories import read_over_rest

NO_13 = """
    ALTER TABLE ledger.fills DROP CONSTRAINT fills_amounts_are_real;
    ALTER TABLE ledger.fills ADD CONSTRAINT fills_amounts_are_real CHECK (qty <> 13) NOT VALID
"""
LET_13_IN = "ALTER TABLE ledger.fills DROP CONSTRAINT fills_amounts_are_real"
COVERED = "SELECT bool_and(complete_through_ms IS NOT NULL) FROM ledger_v1.coverage"


def report(order_id: int, qty: str, at_ms: int) -> Row:
    whole = {"q": qty, "l": qty, "z": qty, "p": "2.00", "L": "2.00", "n": "0", "N": "USDT"}
    names = {"s": "BTCUSDT", "i": order_id, "t": order_id, "S": "BUY", "o": "LIMIT", "f": "GTC", "c": "c", "C": ""}
    return {"e": "executionReport", "x": "TRADE", "X": "FILLED", "E": at_ms, "T": at_ms, **names, **whole}


async def said(play: Play, *words: str) -> tuple[int, str]:
    """Exit code and what the command says, in one line and without its frames."""
    code, out, err = await play.programs.done(*words, settings={"SDX_LOG_FORMAT": "", "SDX_LOG_LEVEL": "error"})
    return code, " ".join((out + err).split())


async def bought(play: Play, order_id: int, qty: str) -> None:
    """An order filled at once, told by the stream and known to REST."""
    at_ms, quote = now_ms(), f"{2 * int(qty)}.00"
    amounts = {"origQty": qty, "executedQty": qty, "cummulativeQuoteQty": quote}
    play.venue.orders.append(order_row("BTCUSDT", order_id, at_ms, **amounts))
    told = {"qty": qty, "quoteQty": quote, "commission": "0"}
    play.venue.trades.append(trade_row("BTCUSDT", order_id, order_id, at_ms, **told))
    await play.venue.push(report(order_id, qty, at_ms))


@pytest.mark.slow
async def test_what_is_quarantined_is_listed_tried_again_and_gone(database_url: str, tmp_path: Path) -> None:
    async with play_of(Sample("", "", None, ""), database_url, tmp_path) as play:
        await play.mirrored(SDX_RECONCILE_EVERY_S="3600")
        assert await said(play, "quarantine", "list") == (0, "nothing is quarantined")
        await read_over_rest(play.conn, "BTCUSDT")  # or it is read as soon as a frame names it, and refused there too
        await play.conn.execute(NO_13)
        await bought(play, 7, "13")
        await bought(play, 8, "5")
        assert await play.comes("SELECT count(*) > 0 FROM ledger_v1.quarantine")
        assert await play.comes("SELECT count(*) = 1 FROM ledger_v1.fills WHERE qty = 5"), "everything else goes on"

        code, listed = await said(play, "quarantine", "list")
        assert code == 0
        assert "stream executionReport BTCUSDT" in listed
        assert "tried once" in listed
        assert "fills_amounts_are_real" in listed
        assert "sdx-ledger quarantine retry" in listed
        code, verdict = await said(play, "verify", "--strict")
        assert code == 1
        assert "nothing_is_quarantined" in verdict
        assert "stream executionReport, tried once: " in verdict
        code, found = await said(play, "discrepancy", "list")
        assert "quarantined journal row" in found
        assert "--as accepted" in found
        code, tried = await said(play, "quarantine", "retry")
        assert code == 1
        assert tried.endswith("0 applied, 1 left")

        await play.conn.execute(LET_13_IN)
        code, tried = await said(play, "quarantine", "retry")
        assert code == 0
        assert tried.endswith("0 left")
        assert await said(play, "quarantine", "list") == (0, "nothing is quarantined")
        assert await play.text("SELECT qty, trade_id FROM ledger_v1.fills WHERE order_id = 7") == "13 7"
        assert await said(play, "quarantine", "retry") == (0, "0 applied, 0 left")


@pytest.mark.slow
async def test_a_market_the_venue_will_never_tell_of_can_be_accepted(database_url: str, tmp_path: Path) -> None:
    async with play_of(Sample("", "", None, ""), database_url, tmp_path) as play:
        play.venue.traded("BTCUSDT", 1)
        closed = refusal(400, -4000, "This market is closed.")
        play.venue.rules = [lambda asked: closed if asked.params.get("symbol") == "OLDUSDT" else None]
        play.run(SDX_SYMBOLS="OLDUSDT")
        assert await play.comes("SELECT count(*) > 0 FROM ledger_v1.gaps WHERE closed_at IS NOT NULL")
        assert await play.value(COVERED) is False
        number = await play.value("SELECT discrepancy_id FROM ledger_v1.discrepancies WHERE kind = 'symbol_refused'")
        code, found = await said(play, "discrepancy", "list")
        assert "symbol_refused OLDUSDT" in found
        assert "This market is closed." in found

        resolve: Any = ("discrepancy", "resolve", str(number), "--note", "delisted in 2019", "--as")
        code, why = await said(play, *resolve, "deposit")
        assert code == 2
        assert "Invalid value for --as: " in why
        assert "only --as other or --as accepted settles it" in why.replace("│ │ ", "")
        assert await said(play, *resolve, "accepted") == (
            0,
            f"discrepancy {number} is settled: what is not known stays so, and coverage waits for it no more",
        )
        assert await play.comes(COVERED), "coverage need not wait for it any more"
        code, again = await said(play, *resolve, "accepted")
        assert code == 2
        assert "Invalid value for ID: " in again
        assert "delisted in 2019" in again
