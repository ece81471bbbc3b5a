"""Names of any script and words of the venue, through the whole program: settings, terminals, the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.db import coverage
from ledger.facts.types import Doubt, Exact
from ledger.wire import loopback
from tests.flows.processes import FAST, Bench, bench, until
from tests.flows.scripted_http import ScriptedHttp, reply
from tests.histories import Session, held, known, order

MARKET = "币安人生USDT"
KEY = {"SDX_API_KEY": "some-key", "SDX_API_SECRET": "some-secret"}
LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
"""A terminal that shows 256 characters."""
ASCII = {**LATIN, "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def programs(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    """Programs on a database of this test's own."""
    with bench(tmp_path, {**FAST, "SDX_DATABASE_URL": database_url}) as made:
        yield made


@pytest.mark.parametrize("terminal", [LATIN, ASCII], ids=["latin-1", "ascii"])
async def test_a_terminal_that_cannot_show_a_name_shows_its_numbers(
    programs: Bench, conn: Any, terminal: dict[str, str]
) -> None:
    await known(conn)
    odd = Doubt("unexplained_balance", "币安人生", "0", "8.5 😀", residual=Exact("8.5"), asset="币安人生")
    await Session().tell(conn, order("NEW", symbol=MARKET), held("币安人生", "8.5"), odd)
    await coverage.set_error(conn, "main", "错误: no")

    for words in (("status",), ("verify",), ("discrepancy", "list"), ("export", "balances-csv", *ALL_TIME)):
        code, out, err = await programs.done(*words, settings=terminal)
        assert (code in (0, 1), "Traceback" in err) == (True, False), (words, err)
        assert out
    _, shown, _ = await programs.done("discrepancy", "list", settings=terminal)
    assert r"\u5e01\u5b89\u4eba\u751f" in shown
    assert "币安人生" not in shown
    for words in (("status", "--json"), ("verify", "--json"), ("discrepancy", "list", "--json")):
        _, out, _ = await programs.done(*words, settings=terminal)
        told = json.loads(out)
        assert words[0] == "verify" or any(
            name in json.dumps(told, ensure_ascii=False) for name in ("错误", "币安人生")
        )


ALL_TIME = ("--from", "2020-01-01", "--to", "2100-01-01")


async def test_the_sandbox_trades_a_market_of_another_script_and_settings_name_it(programs: Bench, conn: Any) -> None:
    venue = await programs.sandbox("--dialect", "full", "--rate", "0", "--history", "300")
    books = await loopback.get(f"{venue}/sandbox/truth")
    wanted = {one["order_id"] for one in books["orders"] if one["symbol"] == MARKET}
    assert wanted, "the made-up history has orders in it"

    named = {"SDX_SYMBOLS": f"{MARKET},beamxUSDT", f"SDX_ASSETS_OF_{MARKET}": "币安人生,USDT"}
    code, _, err = await programs.done("reconcile", settings={**named, **ASCII})

    assert (code, "Traceback" in err) == (0, False), err
    found = await conn.fetch("SELECT order_id FROM ledger_v1.orders WHERE symbol = $1", MARKET)
    assert {row["order_id"] for row in found} == wanted


async def test_a_market_is_asked_for_as_it_is_spelt(programs: Bench) -> None:
    async with ScriptedHttp() as venue:

        def told() -> bytes:
            path = venue.asked[-1].path.rpartition("/")[2]
            empty = {"account": '{"balances":[]}', "time": "{}", "userDataStream": '{"listenKey":"k"}'}
            return reply(200, empty.get(path, "[]"))

        venue.script.extend([told] * 200)
        where = {"SDX_REST_URL": venue.url, "SDX_STREAM_URL": "ws://127.0.0.1:9"}
        program = programs.start("reconcile", "--symbol", "beamxUSDT", settings={**KEY, **where})
        await until(lambda: any(one.path.endswith("allOrders") for one in venue.asked), "the market is asked for")
        asked = {one.params["symbol"] for one in venue.asked if one.path.endswith("allOrders")}
        assert asked == {"beamxUSDT"}, program.err


async def test_doctor_reads_the_answer_it_judges_and_says_what_the_venue_says(programs: Bench) -> None:
    async with ScriptedHttp() as venue:

        def told() -> bytes:
            path = venue.asked[-1].path.rpartition("/")[2]
            answers = {
                "account": '{"balances":[]}',
                "userDataStream": '{"code":0,"msg":"success","data":{"listenKey":"lk0"}}',
            }
            return reply(200, answers.get(path, "[]"))

        venue.script.extend([told] * 50)
        where = {"SDX_REST_URL": venue.url, "SDX_STREAM_URL": "ws://127.0.0.1:9"}
        code, out, _ = await programs.done("doctor", "--json", settings={**KEY, **where})

    found = {one["what"]: one for one in json.loads(out)["findings"]}
    judged = found["account main: listen key"]
    assert (code, judged["verdict"]) == (4, "failed")
    assert "got no listen key in the answer; the venue says 'success' (code 0)" in judged["found"]
    assert "lk0" not in out
