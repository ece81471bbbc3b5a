"""The exports: what an accountant opens must be what the database holds, to the last digit."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import html
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.db import coverage
from ledger.db.apply import Applied, Entry, apply, build
from ledger.db.coverage import register
from ledger.db.rows import lay
from ledger.errors import ConfigError, UsageError
from ledger.escapes import escaped
from ledger.export.csv_files import FORMATS
from ledger.export.writer import Exported, export
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Settlement, Transfer
from ledger.wire import postgres
from tests.patience import stretched

DAY_MS = 1_717_372_800_000  # 2024-06-03T00:00:00Z
NEXT_DAY_MS = DAY_MS + 86_400_000
NOW_MS = NEXT_DAY_MS + 86_400_000
FORTY_DIGITS = "1234567890123456789012345678901234567890"


async def tell(conn: Any, *facts: Fact, account: str = "main", session: int = 1) -> Applied:
    """One session says all of this in one frame."""
    await register(conn, account, rest_origin="http://127.0.0.1", key_fingerprint="k")
    entry = Entry(1, DAY_MS, "told", DAY_MS, b"{}", None, lay(facts))
    return await apply(conn, build(account, UUID(int=session), "stream", [entry], SessionMemory()))


def fill(trade_id: int | None, executed_ms: int = DAY_MS + 500, **told: Any) -> Fill:
    numbers = {"price": Exact("64000.00"), "qty": Exact("0.01000000"), "fee": Exact("0.64")}
    words: dict[str, Any] = {"symbol": "BTCUSDT", "order_id": 288274, "side": "BUY", "fee_asset": "USDT"}
    return Fill(executed_ms=executed_ms, trade_id=trade_id, **{**words, **numbers, **told})


async def text_of(
    conn: Any, name: str, *, account: str = "main", from_ms: int = DAY_MS, to_ms: int = NEXT_DAY_MS
) -> str:
    """The export as it goes to a pipe."""
    pipe = io.BytesIO()
    await export(conn, name, account, from_ms, to_ms, None, pipe, now_ms=NOW_MS)
    return pipe.getvalue().decode("utf-8")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


async def to_file(conn: Any, path: Path) -> Exported:
    return await export(conn, "fills-csv", "main", DAY_MS, NEXT_DAY_MS, path, io.BytesIO(), now_ms=NOW_MS)


async def test_a_fill_is_one_line_with_its_time_in_utc_and_its_numbers_as_told(conn: Any) -> None:
    await conn.execute("SET timezone TO 'Asia/Tokyo'")
    await tell(conn, fill(7))
    await conn.execute("SELECT ledger.learn_markets('main', '{BTCUSDT}', '{BTC}', '{USDT}', 'venue')")
    assert await text_of(conn, "fills-csv") == (
        "account,symbol,order_id,trade_id,side,price,qty,quote_qty,quote_derived,fee,fee_asset,is_maker,"
        "executed_at,executed_ms,source,fill_id,first_seq,executed_utc,base,quote\n"
        '"main","BTCUSDT",288274,7,"BUY",64000.00,0.01000000,640.0000000000,true,0.64,"USDT",,'
        '2024-06-03T00:00:00.500Z,1717372800500,"stream","1-1",1,2024-06-03 00:00:00,"BTC","USDT"\n'
    )


async def test_an_order_is_one_line_in_its_newest_state(conn: Any) -> None:
    placed, filled = DAY_MS + 1, NEXT_DAY_MS + 2
    await tell(
        conn,
        Order("BTCUSDT", 5, "NEW", "SELL", "LIMIT", "GTC", None, Exact("1.50"), Exact("2"), created_ms=placed),
        Order("BTCUSDT", 5, "FILLED", executed_qty=Exact("2"), executed_quote=Exact("3.00"), updated_ms=filled),
    )
    assert await text_of(conn, "orders-csv") == (
        "account,symbol,order_id,client_order_id,side,type,time_in_force,price,orig_qty,executed_qty,"
        "executed_quote,status,created_at,created_ms,updated_at,updated_ms,created_utc,updated_utc\n"
        '"main","BTCUSDT",5,,"SELL","LIMIT","GTC",1.50,2,2,3.00,"FILLED",'
        "2024-06-03T00:00:00.001Z,1717372800001,2024-06-04T00:00:00.002Z,1717459200002,"
        "2024-06-03 00:00:00,2024-06-04 00:00:00\n"
    )


async def test_a_balance_is_the_newest_state_before_the_end_of_the_range(conn: Any) -> None:
    await tell(
        conn,
        Balance("USDT", Exact("100.10"), Exact("0"), DAY_MS - 5),
        Balance("BTC", Exact("1"), Exact("0"), DAY_MS + 5),
        Balance("BTC", Exact("0.50"), Exact("0.25"), NEXT_DAY_MS - 1),
        Balance("BTC", Exact("9"), Exact("0"), NEXT_DAY_MS),
        Balance("ETH", Exact("3"), Exact("0"), NEXT_DAY_MS),
    )
    assert await text_of(conn, "balances-csv") == (
        "account,asset,free,locked,total,as_of,as_of_ms,source,as_of_utc,at,at_ms\n"
        '"main","BTC",0.50,0.25,0.75,2024-06-03T23:59:59.999Z,1717459199999,"stream",2024-06-03 23:59:59,'
        "2024-06-04T00:00:00.000Z,1717459200000\n"
        '"main","USDT",100.10,0,100.10,2024-06-02T23:59:59.995Z,1717372799995,"stream",2024-06-02 23:59:59,'
        "2024-06-04T00:00:00.000Z,1717459200000\n"
    )


async def test_balances_up_to_now_are_the_balances_of_the_contract(conn: Any) -> None:
    # Four states of one ms: the larger k is newer, whichever seq it has.
    states = [Balance("USDT", Exact(free), Exact("0"), DAY_MS) for free in ("9", "3", "7", "5")]
    await tell(conn, *states, Balance("DUST", Exact("0"), Exact("0"), DAY_MS + 1))
    held = await conn.fetch("SELECT asset, free, locked, total, as_of_ms FROM ledger_v1.balances ORDER BY asset")
    rows = rows_of(await text_of(conn, "balances-csv"))
    assert [(row["asset"], row["free"], row["total"], row["as_of_ms"]) for row in rows] == [
        (one["asset"], str(one["free"]), str(one["total"]), str(one["as_of_ms"])) for one in held
    ]
    assert [row["free"] for row in rows] == ["0", "5"]


async def test_the_sums_of_the_file_are_the_sums_of_the_contract(conn: Any) -> None:
    await tell(conn, *(fill(n, DAY_MS + n, qty=Exact(f"0.0000000{n % 9 + 1}")) for n in range(1, 1001)))
    rows = rows_of(await text_of(conn, "fills-csv"))
    sums = await conn.fetchrow(
        "SELECT count(*) AS n, sum(qty) AS qty, sum(quote_qty) AS quote, sum(fee) AS fee FROM ledger_v1.fills"
    )
    assert len(rows) == sums["n"] == 1000
    assert sum(Decimal(row["qty"]) for row in rows) == sums["qty"]
    assert sum(Decimal(row["quote_qty"]) for row in rows) == sums["quote"]
    assert sum(Decimal(row["fee"]) for row in rows) == sums["fee"]


VIEWS = {"missing-csv": "missing_executions", "journal": "journal"}
ADDED = {
    "fills-csv": ["executed_utc", "base", "quote"],
    "orders-csv": ["created_utc", "updated_utc"],
    "balances-csv": ["as_of_utc", "at", "at_ms"],
    "missing-csv": [
        *("side", "created_at", "created_ms", "updated_at", "updated_ms"),
        *("created_utc", "updated_utc", "base", "quote"),
    ],
    "transfers-csv": ["at_utc"],
    "journal": ["received_utc"],
}
"""What stands behind the columns of the contract."""


@pytest.mark.parametrize("name", FORMATS)
async def test_the_columns_are_named_as_in_the_contract(conn: Any, name: str) -> None:
    await tell(conn)
    header = (await text_of(conn, name, to_ms=DAY_MS)).strip().split("\n")[0].split(",")
    contract = [
        row["column_name"]
        for row in await conn.fetch(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'ledger_v1' AND table_name = $1 ORDER BY ordinal_position",
            VIEWS.get(name, name.removesuffix("-csv")),
        )
    ]
    # seq moves without the row saying anything else; is_open is what the status says; bytes are written in hex
    left_out = ("is_open", "seq") if name != "journal" else ()
    told = ["raw_hex" if column == "raw" else column for column in contract if column not in left_out]
    behind = ADDED[name]
    assert header[-len(behind) :] == behind
    # orders: created_at also in ms
    assert [column for column in header[: -len(behind)] if column != "created_ms"] == told


@pytest.mark.parametrize("name", FORMATS)
async def test_a_range_without_rows_is_a_header_alone(conn: Any, name: str) -> None:
    await tell(conn)
    text = await text_of(conn, name, from_ms=1, to_ms=2)
    assert text.endswith("\n")
    assert text.count("\n") == 1


async def test_the_range_holds_its_start_and_not_its_end(conn: Any) -> None:
    edges = (DAY_MS - 1, DAY_MS, NEXT_DAY_MS - 1, NEXT_DAY_MS)
    orders = [Order("BTCUSDT", n, status="NEW", created_ms=ms) for n, ms in enumerate(edges, start=1)]
    await tell(conn, *(fill(n, ms) for n, ms in enumerate(edges, start=1)), *orders)
    assert [row["trade_id"] for row in rows_of(await text_of(conn, "fills-csv"))] == ["2", "3"]
    assert [row["order_id"] for row in rows_of(await text_of(conn, "orders-csv"))] == ["2", "3"]


async def test_an_order_without_a_creation_time_is_placed_by_what_else_is_known(conn: Any) -> None:
    await tell(
        conn,
        Order("BTCUSDT", 1, status="NEW", updated_ms=DAY_MS + 1),
        fill(9, DAY_MS + 2, order_id=2),
        fill(10, NEXT_DAY_MS, order_id=2),
        fill(11, NEXT_DAY_MS, order_id=3),
    )
    assert [row["order_id"] for row in rows_of(await text_of(conn, "orders-csv"))] == ["1", "2"]


async def test_a_voided_fill_is_in_no_file(conn: Any) -> None:
    doubled = fill(None, status="PARTIALLY_FILLED")
    await tell(conn, doubled, doubled)
    assert len(rows_of(await text_of(conn, "fills-csv"))) == 2
    for session in (2, 3):
        await tell(conn, Settlement("BTCUSDT", 288274, Exact("0.01")), session=session)
    assert [row["fill_id"] for row in rows_of(await text_of(conn, "fills-csv"))] == ["1-1"]


async def test_only_the_account_asked_for_is_in_the_file(conn: Any) -> None:
    await tell(conn, fill(1), account="main")
    await tell(conn, fill(2), account="o'neil \\ $1", session=2)
    (row,) = rows_of(await text_of(conn, "fills-csv", account="o'neil \\ $1"))
    assert (row["account"], row["trade_id"]) == ("o'neil \\ $1", "2")


async def test_rows_of_one_millisecond_stand_in_one_order(conn: Any) -> None:
    last = [fill(n, order_id=7) for n in range(12, 0, -1)]
    await tell(conn, fill(99, order_id=9), fill(98, order_id=8), *last, fill(97, symbol="ADAUSDT", order_id=10))
    rows = rows_of(await text_of(conn, "fills-csv"))
    # symbol, order, then the place in the journal row: 3 to 14, where text would put 10 before 3
    assert [row["fill_id"] for row in rows] == ["1-15", *(f"1-{n}" for n in range(3, 15)), "1-2", "1-1"]


async def test_forty_digits_survive(conn: Any) -> None:
    tiny = "0." + "0" * 19 + "1"
    await tell(
        conn,
        fill(1, price=Exact(FORTY_DIGITS), qty=Exact(tiny), quote_qty=Exact(f"{FORTY_DIGITS}.{FORTY_DIGITS}")),
        Balance("BIG", Exact(FORTY_DIGITS), Exact(tiny), DAY_MS),
    )
    (row,) = rows_of(await text_of(conn, "fills-csv"))
    assert (row["price"], row["qty"]) == (FORTY_DIGITS, tiny)
    assert row["quote_qty"] == f"{FORTY_DIGITS}.{FORTY_DIGITS}"
    (held,) = rows_of(await text_of(conn, "balances-csv"))
    assert held["total"] == f"{FORTY_DIGITS}.{'0' * 19}1"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        *((f'{sign}cmd|"/c calc"!A1,x', f'\'{sign}cmd|"/c calc"!A1,x') for sign in "=+-@＝＋－＠"),
        ("  =1+1", "'  =1+1"),
        ("x;=1+1", "x;'=1+1"),
        ('x; "@SUM(A1)', "x;' \"@SUM(A1)"),
        ("\t=1+1", r"\x09=1+1"),
        ("x\t=1+1", r"x\x09=1+1"),
        ("x\r\n=1+1", r"x\x0d\x0a=1+1"),
        ("\xa0=1+1", r"\xa0=1+1"),
        ("\ufeff=1+1", r"\ufeff=1+1"),
        ("\u200b\u202e=1+1", r"\u200b\u202e=1+1"),
        ("\x1b[2J\x9b\U000e0041", r"\x1b[2J\x9b\U000e0041"),
    ],
)
async def test_a_text_that_a_spreadsheet_would_run_is_disarmed_and_what_is_hidden_shows(
    conn: Any, said: str, written: str
) -> None:
    await tell(
        conn,
        Order(said, 1, said, said, said, said, said, created_ms=DAY_MS),
        fill(1, order_id=1, symbol=said, side=said, fee_asset=said),
        Balance(said, Exact("1"), Exact("0"), DAY_MS),
    )
    (order,) = rows_of(await text_of(conn, "orders-csv"))
    words = ("symbol", "status", "side", "type", "time_in_force", "client_order_id")
    assert [order[word] for word in words] == [written] * 6
    (trade,) = rows_of(await text_of(conn, "fills-csv"))
    assert [trade[word] for word in ("symbol", "side", "fee_asset")] == [written] * 3
    (held,) = rows_of(await text_of(conn, "balances-csv"))
    assert held["asset"] == written


async def test_no_text_becomes_a_formula_whoever_reads_the_file_and_whatever_it_is(conn: Any) -> None:
    @given(word=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
    @example(word="x;=1")
    @settings(max_examples=25)
    def holds(word: str) -> None:
        shown.append(word)

    shown = ["=", ";=", " ;  -1", "\u2028=1", '"=1', ";\t@"]
    holds()
    shown = list(dict.fromkeys(shown))
    await tell(conn, *(Balance(word, Exact("1"), Exact("0"), DAY_MS) for word in shown))
    text = await text_of(conn, "balances-csv")
    assert len(rows_of(text)) == len(shown)
    assert len(text.splitlines()) == len(shown) + 1
    for separator in ",;\t":
        cells = [cell for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in line]
        assert [cell for cell in cells if cell.strip(' "').startswith(tuple("=+-@＝＋－＠"))] == []
    assert sorted(row["asset"].replace("'", "") for row in rows_of(text)) == sorted(
        escaped(word).replace("'", "") for word in shown
    )


async def test_a_negative_number_and_harmless_text_stay_as_they_are(conn: Any) -> None:
    rebate = fill(1, fee=Exact("-0.25"), symbol='A=B,"Ü"', fee_asset="")
    await tell(conn, rebate)
    (row,) = rows_of(await text_of(conn, "fills-csv"))
    assert (row["fee"], row["symbol"], row["fee_asset"]) == ("-0.25", 'A=B,"Ü"', "")


async def test_a_file_is_private_and_is_told_by_length_rows_and_digest(conn: Any, tmp_path: Path) -> None:
    await tell(conn, fill(1), fill(2))
    path = tmp_path / "fills.csv"
    exported = await to_file(conn, path)
    body = path.read_bytes()
    assert (exported.rows, exported.sha256, exported.bytes) == (2, hashlib.sha256(body).hexdigest(), len(body))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["fills.csv", "fills.csv.manifest.json"]
    assert stat.S_IMODE((tmp_path / "fills.csv.manifest.json").stat().st_mode) == 0o600


async def test_the_same_range_gives_the_same_bytes_whatever_was_learnt_in_between(conn: Any, tmp_path: Path) -> None:
    await tell(conn, *(fill(n, DAY_MS + n % 3, order_id=n % 5) for n in range(100)))
    first = await to_file(conn, tmp_path / "first.csv")
    await conn.execute("UPDATE ledger.fills SET seq = seq + 1000 WHERE trade_id % 2 = 0")
    await tell(conn, fill(1000, NEXT_DAY_MS), session=2)
    await conn.execute("SET enable_indexscan TO off; SET enable_bitmapscan TO off; SET extra_float_digits TO 0")
    second = await to_file(conn, tmp_path / "second.csv")
    assert first.sha256 == second.sha256
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


async def test_a_file_and_a_pipe_get_the_same_bytes(conn: Any, tmp_path: Path) -> None:
    await tell(conn, fill(1))
    await to_file(conn, tmp_path / "fills.csv")
    assert (tmp_path / "fills.csv").read_text("utf-8") == await text_of(conn, "fills-csv")
    pipe = io.BytesIO()
    await export(conn, "fills-csv", "main", DAY_MS, NEXT_DAY_MS, Path("-"), pipe, now_ms=NOW_MS)
    assert (tmp_path / "fills.csv").read_bytes() == pipe.getvalue()


async def test_an_export_that_fails_half_way_leaves_the_old_file_and_nothing_else(conn: Any, tmp_path: Path) -> None:
    await tell(conn, fill(1))
    # 50,000 good rows go out before the last one, whose time no calendar holds, stops the query.
    await conn.execute(
        """
        INSERT INTO ledger.fills (account, first_seq, first_index, symbol, order_id, trade_id, price, qty, quote_qty,
                                  executed_ms, source, state, seq)
        SELECT 'main', 2, n, 'BTCUSDT', 1, n, 1, 1, 1, CASE WHEN n = 50000 THEN 9e18::bigint ELSE $1::bigint + n END,
               'rest', 'confirmed', 2 FROM generate_series(1, 50000) n
        """,
        DAY_MS,
    )
    path = tmp_path / "fills.csv"
    path.write_text("of last month")
    with pytest.raises(Exception, match="timestamp out of range"):
        await export(conn, "fills-csv", "main", DAY_MS, 2**63 - 1, path, io.BytesIO(), now_ms=NOW_MS)
    assert path.read_text() == "of last month"
    assert os.listdir(tmp_path) == ["fills.csv"]


async def test_a_cancelled_export_leaves_nothing(conn: Any, database_url: str, tmp_path: Path) -> None:
    await tell(conn, fill(1))
    async with postgres.reading(database_url) as other, conn.transaction(), asyncio.timeout(stretched(20)):
        await conn.execute("LOCK TABLE ledger.fills IN ACCESS EXCLUSIVE MODE")
        running = asyncio.create_task(to_file(other, tmp_path / "fills.csv"))
        while not os.listdir(tmp_path):  # noqa: ASYNC110 - the file that has no name yet is the signal
            await asyncio.sleep(0)
        assert not (tmp_path / "fills.csv").exists()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert os.listdir(tmp_path) == []


def test_a_kill_in_the_middle_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "fills.csv"
    half = (
        "import pathlib, sys; from ledger.export.writer import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'account,'); file.flush(); print('half', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", half, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        (part,) = tmp_path.iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        process.kill()
    assert not path.exists()
    assert part.name.startswith(".sdx-ledger-")


async def test_a_link_a_folder_and_a_device_are_refused_and_left_alone(conn: Any, tmp_path: Path) -> None:
    await tell(conn, fill(1))
    secret = tmp_path / "secret"
    secret.write_text("keep")
    link = tmp_path / "fills.csv"
    link.symlink_to(secret)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (link, tmp_path, fifo):
        with pytest.raises(UsageError, match="expected the name of a file, got"):
            await to_file(conn, path)
    assert link.is_symlink()
    assert secret.read_text() == "keep"
    assert sorted(os.listdir(tmp_path)) == ["fifo", "fills.csv", "secret"]


async def test_a_folder_that_is_not_there_is_one_sentence(conn: Any, tmp_path: Path) -> None:
    await tell(conn)
    with pytest.raises(UsageError, match=r"cannot write .*/none/fills\.csv: No such file or directory"):
        await to_file(conn, tmp_path / "none" / "fills.csv")


async def test_wrong_questions_are_refused_in_words(conn: Any) -> None:
    await tell(conn)
    with pytest.raises(
        ConfigError,
        match=r"expected a format of fills-csv, .*, balances-csv, missing-csv, transfers-csv, journal, got 'xls'",
    ):
        await text_of(conn, "xls")
    with pytest.raises(ConfigError, match="account 'nobody' is not in this database; check SDX_ACCOUNT"):
        await text_of(conn, "fills-csv", account="nobody")
    with pytest.raises(ConfigError, match="expected --from before --to"):
        await text_of(conn, "fills-csv", from_ms=2, to_ms=1)


async def test_a_reader_that_may_only_read_can_export(conn: Any, database_url: str) -> None:
    await tell(conn, fill(1))
    async with postgres.reading(database_url) as reader:
        assert len(rows_of(await text_of(reader, "fills-csv"))) == 1


async def test_a_range_that_is_covered_lacks_nothing(conn: Any) -> None:
    await tell(conn, fill(1))
    await covered(conn, through_ms=NEXT_DAY_MS)
    assert await lacking(conn) == []
    assert await lacking(conn, to_ms=NEXT_DAY_MS + 1) == ["complete through 2024-06-04 00:00:00.000 UTC only"]
    assert await lacking(conn, "balances-csv") == ["no balance is known yet"]
    await tell(conn, Balance("BTC", Exact("1"), Exact("0"), NEXT_DAY_MS), session=2)
    assert await lacking(conn, "balances-csv") == ["the first balance known is of 2024-06-04 00:00:00.000 UTC"]
    assert await lacking(conn, "balances-csv", to_ms=NOW_MS + 1) == [
        "--to is in the future (2024-06-05 00:00:00.001 UTC): what happens until then is not in it",
        "complete through 2024-06-04 00:00:00.000 UTC only",
    ]


async def test_what_an_export_lacks_is_said_and_stands_in_the_manifest(conn: Any, tmp_path: Path) -> None:
    await tell(
        conn, fill(1), Order("BTCUSDT", 5, "FILLED", executed_qty=Exact("2"), created_ms=DAY_MS, updated_ms=DAY_MS)
    )
    await covered(conn, through_ms=DAY_MS + 5, from_ms=DAY_MS + 1)
    twin = fill(None, status="PARTIALLY_FILLED", order_id=9)
    await tell(
        conn, twin, twin, Doubt("refused_row", "BTCUSDT", "", "", symbol="BTCUSDT", uncovered_from_ms=DAY_MS), session=2
    )
    await coverage.open_gap(conn, "main", cause="test", until_ms=DAY_MS + 20)
    said = await lacking(conn)
    assert said == [
        "1 order executed more than these fills tell; see: sdx-ledger export missing-csv",
        "1 fill provisional: the same frame may have come twice",
        "1 gap in this range not read yet; see: sdx-ledger status",
        "1 hole in what is known of this range: refused, or not readable; see: sdx-ledger discrepancy list",
        "known from 2024-06-03 00:00:00.001 UTC on only",
        "complete through 2024-06-03 00:00:00.000 UTC only",
    ]
    done = await to_file(conn, tmp_path / "fills.csv")
    manifest = json.loads((tmp_path / "fills.csv.manifest.json").read_text("utf-8"))
    assert (manifest["complete"], manifest["missing"]["sentences"]) == (False, said)
    assert (manifest["missing"]["missing_orders"], manifest["missing"]["open_gaps"]) == (1, 1)
    assert manifest["files"] == [{"name": "fills.csv", "bytes": done.bytes, "rows": 3, "sha256": done.sha256}]
    assert (manifest["from"], manifest["to"]) == ("2024-06-03 00:00:00.000 UTC", "2024-06-04 00:00:00.000 UTC")


async def test_missing_executions_are_those_of_orders_that_lived_in_the_range(conn: Any) -> None:
    filled = {"status": "FILLED", "executed_qty": Exact("2"), "executed_quote": Exact("3")}
    await tell(
        conn,
        Order("BTCUSDT", 1, created_ms=DAY_MS - 9, updated_ms=DAY_MS - 1, **filled),
        Order("BTCUSDT", 2, created_ms=DAY_MS - 9, updated_ms=DAY_MS, side="BUY", **filled),
        Order("BTCUSDT", 3, created_ms=NEXT_DAY_MS, updated_ms=NEXT_DAY_MS, **filled),
    )
    (row,) = rows_of(await text_of(conn, "missing-csv"))
    assert (row["order_id"], row["missing_qty"], row["missing_quote"], row["side"]) == ("2", "2", "3", "BUY")
    assert row["average_price"].startswith("1.50")


async def test_transfers_and_the_journal_of_a_range(conn: Any) -> None:
    moves = [Transfer("USDT", Exact("-5"), "withdrawal", ms) for ms in (DAY_MS - 1, DAY_MS, NEXT_DAY_MS)]
    await tell(conn, *moves)
    (row,) = rows_of(await text_of(conn, "transfers-csv"))
    assert (row["asset"], row["amount"], row["kind"], row["at_utc"]) == (
        "USDT",
        "-5",
        "withdrawal",
        "2024-06-03 00:00:00",
    )
    (frame,) = rows_of(await text_of(conn, "journal"))
    assert (frame["seq"], bytes.fromhex(frame["raw_hex"]), frame["received_utc"]) == ("1", b"{}", "2024-06-03 00:00:00")


async def covered(conn: Any, *, through_ms: int, from_ms: int | None = None) -> None:
    """As if BTCUSDT had been read over REST, and the mirror live until then."""
    await conn.execute(
        "INSERT INTO ledger.coverage (account, symbol, complete_from_ms, live_through_ms, live)"
        " VALUES ('main', '*', $1, $2, false), ('main', 'BTCUSDT', $1, null, false) ON CONFLICT (account, symbol)"
        " DO UPDATE SET complete_from_ms = excluded.complete_from_ms, live_through_ms = excluded.live_through_ms",
        from_ms,
        through_ms,
    )


async def lacking(conn: Any, name: str = "fills-csv", *, to_ms: int = NEXT_DAY_MS) -> list[str]:
    done = await export(conn, name, "main", DAY_MS, to_ms, None, io.BytesIO(), now_ms=NOW_MS)
    return done.shortfall.sentences


@pytest.mark.parametrize("separator", [",", ";"])
async def test_libreoffice_takes_times_for_times_and_runs_no_text(conn: Any, tmp_path: Path, separator: str) -> None:
    soffice = shutil.which("soffice")
    if soffice is None:
        assert os.environ.get("CI") != "true", "on CI scripts/bootstrap --system installs it"
        pytest.skip("LibreOffice is not installed; scripts/bootstrap --system installs it")
    await tell(conn, fill(1, DAY_MS + 3_661_500, symbol="=1+1", side="x;=1+1", fee_asset=" =1+1", fee=Exact("-0.25")))
    await to_file(conn, tmp_path / "fills.csv")
    # Separator, quote, UTF-8, from line 1, English (USA), quoted cells are looked at too, special numbers detected.
    form = f"CSV:{ord(separator)},34,76,1,,1033,false,true"
    words = (f"--infilter={form}", "--convert-to", "ods", "--outdir", str(tmp_path), str(tmp_path / "fills.csv"))
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    process = await asyncio.create_subprocess_exec(soffice, profile, "--headless", *words)
    assert await asyncio.wait_for(process.wait(), stretched(100)) == 0

    sheet = zipfile.ZipFile(tmp_path / "fills.ods").read("content.xml").decode("utf-8")
    assert "table:formula" not in sheet
    if separator == ",":
        assert 'office:value-type="date" office:date-value="2024-06-03T01:01:01"' in sheet
        assert 'office:value-type="float" office:value="-0.25"' in sheet
        assert re.findall(r"<text:p>([^<]*1\+1)</text:p>", html.unescape(sheet)) == ["'=1+1", "x;'=1+1", "' =1+1"]
        assert "<text:p>1-1</text:p>" in sheet, "an id is no date"
