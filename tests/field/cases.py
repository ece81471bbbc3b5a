"""The cases: what failed, and how one sees that it does not any more."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from tests.field.play import Case, Play
from tests.field.venue import Row, Rule, Venue, now_ms, order_row, refusal, told, trade_row
from tests.flows.processes import until
from tests.flows.scripted_http import Asked, reply

COUNTS = """
    SELECT (SELECT count(*) FROM ledger_v1.orders) || ' orders, '
           || (SELECT count(*) FROM ledger_v1.fills) || ' fills, '
           || (SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NULL) || ' gaps open, '
           || (SELECT CASE WHEN c.complete_through_ms IS NULL THEN 'nothing covered' WHEN c.complete_from_ms IS NULL
                      THEN 'covered from the beginning' ELSE 'covered from later on' END
               FROM ledger_v1.coverage c WHERE c.symbol = '*')
"""
HTML = {"Content-Type": "text/html"}
COVERED = "0 gaps open, covered from the beginning"
CASES: list[Case] = []


def at(name: str, answer: bytes, method: str = "GET") -> Rule:
    """This endpoint answers that."""
    return lambda asked: answer if asked.path.endswith(f"/{name}") and asked.method == method else None


async def counts(play: Play) -> str:
    return str(await play.value(COUNTS))


# --- pages and refusals


def capped(venue: Venue, rows: int) -> Rule:
    """Pages of so many rows at most, whatever is asked for."""

    def rule(asked: Asked) -> bytes | None:
        limit = int(asked.params.get("limit", 0))
        if limit <= rows:
            return None
        less = asked.target.replace(f"limit={limit}", f"limit={rows}")
        return venue.own_answer(Asked(asked.method, less, asked.headers))

    return rule


async def page_cap(play: Play) -> None:
    for number in range(play.input["orders"]):
        at_ms = play.venue.start_ms - (play.input["orders"] - number) * 1000
        play.venue.traded("BTCUSDT", number + 1, at_ms=at_ms)
    play.venue.rules = [capped(play.venue, 500)]
    play.run()


async def limit_refused(play: Play) -> None:
    for number in range(20):
        play.venue.traded("BTCUSDT", number + 1)
    answer = reply(play.input["status"], json.dumps(play.input["body"]))
    play.venue.rules = [lambda asked: answer if int(asked.params.get("limit", 0)) > 500 else None]
    play.run()


async def odd_guess(play: Play) -> None:
    play.venue.balances = {one["asset"]: (one["free"], one["locked"]) for one in play.input["account"]}
    for symbol in play.input["fills at"]:
        play.venue.traded(symbol, 1)
    odd = next(name.removeprefix("symbol ") for name in play.input if name.startswith("symbol "))
    refused = play.input[f"symbol {odd}"]
    answer = reply(refused["status"], json.dumps(refused["body"]))
    play.venue.rules = [lambda asked: answer if asked.params.get("symbol") == odd else None]
    play.run()


async def odd_guess_seen(play: Play) -> str:
    markets = await play.value("SELECT string_agg(symbol, ' ' ORDER BY symbol) FROM ledger_v1.fills")
    holes = await play.value("SELECT count(*) FROM ledger_v1.discrepancies WHERE uncovered_from_ms IS NOT NULL")
    return f"fills at {markets}; {await counts(play)}; {holes} holes"


async def no_trades_allowed(play: Play) -> None:
    play.venue.traded("BTCUSDT", 1)
    play.venue.rules = [at("myTrades", refusal(play.input["status"], play.input["body"]["code"], "permissions"))]
    play.run()


async def no_trades_seen(play: Play) -> str:
    mode = await play.text("SELECT mode FROM ledger.venue_state")
    balances = await play.value("SELECT count(*) FROM ledger_v1.balances")
    live = await play.text("SELECT live FROM ledger_v1.coverage WHERE symbol = '*'")
    return f"mode {mode}, {balances} balances, live {live}; {await counts(play)}"


def packed(venue: Venue) -> Rule:
    def rule(asked: Asked) -> bytes:
        head, _, body = venue.own_answer(asked).partition(b"\r\n\r\n")
        status = int(head.split()[1])
        return reply(status, gzip.compress(body), {"Content-Encoding": "gzip"})

    return rule


async def compressed(play: Play) -> None:
    play.venue.traded("BTCUSDT", 1)
    play.venue.rules = [packed(play.venue)]
    play.run()


async def null_list(play: Play) -> None:
    play.venue.traded("BTCUSDT", 1)
    play.venue.rules = [at("openOrders", told(None))]
    play.run()


async def null_list_seen(play: Play) -> str:
    """No list is no empty list: the market is walked, the refused question says what came and ends coverage."""
    words = await play.value("SELECT actual FROM ledger_v1.discrepancies WHERE kind = 'question_refused'")
    said = "got null" if "expected a list of rows, got null" in (words or "") else "no word about null"
    return f"question_refused, {said}; {await counts(play)}"


async def stream_gone(play: Play) -> None:
    """Orders are closed already; one more comes while the venue still has no listen key to give."""
    gone = play.input["POST"]
    play.venue.rules = [at("userDataStream", reply(gone["status"], gone["body"], HTML), "POST")]
    play.venue.traded("BTCUSDT", 1)
    play.run()
    await play.comes("SELECT count(*) = 1 FROM ledger_v1.fills")
    play.venue.traded("BTCUSDT", 2, at_ms=now_ms())


async def stream_gone_seen(play: Play) -> str:
    gap = await play.text("SELECT cause, from_ms, until_ms, closed_at FROM ledger_v1.gaps")
    live = await play.text("SELECT live FROM ledger_v1.coverage WHERE symbol = '*'")
    _, out, _ = await play.programs.done("status")
    said = re.search(r"no socket since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.sub(r"[│\s]+", " ", out))
    since = "since when" if said else f"not since when: {out}"
    return f"gap {gap}, live {live}, status says {since}; {await counts(play)}"


CASES += [
    Case("page limit smaller than ours, silently", f"1250 orders, 1250 fills, {COVERED}", page_cap, counts),
    Case("page limit refused", f"20 orders, 20 fills, {COVERED}", limit_refused, counts),
    Case(
        "guess with an odd name",
        f"fills at BTCUSDT ZECUSDT; 2 orders, 2 fills, {COVERED}; 0 holes",
        odd_guess,
        odd_guess_seen,
    ),
    Case(
        "permission refused on myTrades alone",
        f"mode orders_quote, 2 balances, live True; 1 orders, 0 fills, {COVERED}",
        no_trades_allowed,
        no_trades_seen,
    ),
    Case(
        "listen key gone for good",
        "gap start null null null, live False, status says since when; 2 orders, 2 fills, 1 gaps open, nothing covered",
        stream_gone,
        stream_gone_seen,
    ),
    Case("compressed answers", f"1 orders, 1 fills, {COVERED}", compressed, counts),
    Case(
        "null for an empty list",
        "question_refused, got null; 1 orders, 1 fills, 0 gaps open, nothing covered",
        null_list,
        null_list_seen,
    ),
]


# --- the stream


def position(at_ms: int, **held: str) -> Row:
    """The frame that tells what is held now."""
    balances = [{"a": asset, "f": free, "l": "0"} for asset, free in held.items()]
    return {"e": "outboundAccountPosition", "E": at_ms, "u": at_ms, "B": balances}


def hold(venue: Venue, **held: str) -> None:
    venue.balances |= {asset: (free, "0") for asset, free in held.items()}


async def amended(play: Play) -> None:
    await play.mirrored()
    frames = play.just_now()
    last = frames[-1]
    row = order_row("BTCUSDT", 7, frames[0]["T"], clientOrderId="new", origQty="4.00", executedQty="4.00")
    play.venue.orders.append(row | {"cummulativeQuoteQty": "8.00", "updateTime": last["T"]})
    whole = {"qty": "4.00", "quoteQty": "8.00", "commission": "0"}
    play.venue.trades.append(trade_row("BTCUSDT", 88, 7, last["T"], **whole))
    hold(play.venue, BTC="5.00", USDT="92.00")
    await play.venue.push(*frames, position(last["T"], BTC="5.00", USDT="92.00"))
    await play.comes("SELECT status = 'FILLED' FROM ledger_v1.orders WHERE order_id = 7")


async def amended_seen(play: Play) -> str:
    order = await play.text("SELECT orig_qty, client_order_id, status FROM ledger_v1.orders WHERE order_id = 7")
    doubts = await play.value("SELECT count(*) FROM ledger_v1.discrepancies")
    if doubts:
        return f"{order}, {doubts} discrepancies"
    code, _, _ = await play.programs.done("verify")
    return f"{order}, {doubts} discrepancies, verify {code}"


def rest_knows(venue: Venue, report: Row, at_ms: int) -> None:
    """The order of this report, executed at once, and its trade."""
    symbol, order_id = report["s"], report["i"]
    venue.markets.add(symbol)
    venue.orders.append(order_row(symbol, order_id, at_ms))
    venue.trades.append(trade_row(symbol, report["t"], order_id, at_ms, commission="0"))


async def new_market(play: Play) -> None:
    await play.mirrored()
    report = play.just_now()
    rest_knows(play.venue, report, report["T"])
    await play.venue.push(report)


async def microseconds(play: Play) -> None:
    await play.mirrored()
    report = play.just_now()
    rest_knows(play.venue, report, report["T"] // 1000)
    await play.venue.push(report)


async def report_seen(play: Play) -> str:
    return await play.text("SELECT symbol, order_id, qty, trade_id FROM ledger_v1.fills")


async def equal_credits(play: Play) -> None:
    hold(play.venue, BNB="1")
    await play.mirrored()
    frames = play.just_now()
    hold(play.venue, BNB="1.00002404")
    await play.venue.push(*frames, position(frames[0]["T"], BNB="1.00002404"))


async def equal_credits_seen(play: Play) -> str:
    return await play.text(
        "SELECT count(*), sum(amount) FROM ledger_v1.transfers WHERE asset = 'BNB' AND kind <> 'opening'"
    )


YEAR_LATER_MS = 400 * 86_400_000


def luna(at_ms: int, side: str, qty: str) -> Row:
    whole = {"q": qty, "l": qty, "z": qty, "p": "2.00", "L": "2.00"}
    state = {"x": "TRADE", "X": "FILLED", "o": "LIMIT", "f": "GTC", "c": f"luna{side}", "C": "", "n": "0", "N": "USDT"}
    times = {"E": at_ms, "T": at_ms, "O": at_ms}
    return {"e": "executionReport", "s": "LUNAUSDT", "i": 5, "S": side, "t": 77, **state, **whole, **times}


async def begun_anew(play: Play) -> None:
    """The first generation is known from long ago; then the ids come again."""
    later_ms = now_ms()
    first_ms = later_ms - YEAR_LATER_MS
    play.venue.markets.add("LUNAUSDT")
    play.venue.balances["LUNA"] = ("10.00", "0")
    play.venue.orders.append(order_row("LUNAUSDT", 5, first_ms, clientOrderId="lunaBUY"))
    play.venue.trades.append(trade_row("LUNAUSDT", 77, 5, first_ms, commission="0"))
    await play.mirrored()
    less = {"side": "SELL", "origQty": "3.00", "executedQty": "3.00", "cummulativeQuoteQty": "6.00"}
    play.venue.orders[:] = [order_row("LUNAUSDT", 5, later_ms, clientOrderId="lunaSELL", **less)]
    sold = {"qty": "3.00", "quoteQty": "6.00", "commission": "0", "isBuyer": False}
    play.venue.trades[:] = [trade_row("LUNAUSDT", 77, 5, later_ms, **sold)]
    await play.venue.push(luna(later_ms, "SELL", "3.00"))


async def begun_anew_seen(play: Play) -> str:
    order = await play.text("SELECT side, orig_qty FROM ledger_v1.orders WHERE symbol = 'LUNAUSDT'")
    kinds = await play.value(
        "SELECT string_agg(kind, ' ' ORDER BY kind) FROM ledger_v1.discrepancies WHERE symbol = 'LUNAUSDT'"
    )
    return f"{order} stays, told as {kinds}"


CASES += [
    Case("amended order", "4.00 new FILLED, 0 discrepancies, verify 0", amended, amended_seen),
    Case("unreadable report of a new market", "ZECUSDT 15 10.00 900", new_market, report_seen),
    Case("microseconds on the stream", "BTCUSDT 7 10.00 900", microseconds, report_seen),
    Case("equal credits in one ms", "2 0.00002404", equal_credits, equal_credits_seen),
    Case("symbol given to another coin", "BUY 10.00 stays, told as ids_began_anew", begun_anew, begun_anew_seen),
]


# --- rows with fields that describe


async def empty_tif(play: Play) -> None:
    (row,) = play.input
    play.venue.balances["USDC"] = ("10", "0")
    play.venue.markets.add(row["symbol"])
    play.venue.orders.append(row)
    whole = {"price": "1.1000", "qty": "10.0", "quoteQty": "11.0", "commission": "0", "isBuyer": False}
    play.venue.trades.append(trade_row(row["symbol"], 1, row["orderId"], row["time"], **whole))
    play.run()


async def empty_tif_seen(play: Play) -> str:
    order = await play.text("SELECT status, executed_qty, time_in_force FROM ledger_v1.orders")
    return f"{order}; {await counts(play)}"


async def empty_fee_asset(play: Play) -> None:
    (row,) = play.input
    whole = {"price": "1", "origQty": "1", "executedQty": "1", "cummulativeQuoteQty": "1"}
    play.venue.orders.append(order_row(row["symbol"], row["orderId"], row["time"], **whole))
    play.venue.trades.append(row)
    play.run()


async def empty_fee_asset_seen(play: Play) -> str:
    fill = await play.text("SELECT trade_id, qty, fee_asset FROM ledger_v1.fills")
    return f"{fill}; {await counts(play)}"


async def sized_in_quote(play: Play) -> None:
    (row,) = play.input
    play.venue.balances["USDC"] = ("1250", "0")
    play.venue.markets.add(row["symbol"])
    play.venue.orders.append(row)
    whole = {"price": "0.008", "qty": "1250.0", "quoteQty": "10.0", "commission": "0"}
    play.venue.trades.append(trade_row(row["symbol"], 1, row["orderId"], row["time"], **whole))
    play.run()


async def sized_in_quote_seen(play: Play) -> str:
    order = await play.text("SELECT status, executed_qty, orig_qty FROM ledger_v1.orders")
    told_of = await play.value("SELECT count(*) FROM ledger_v1.journal WHERE problem LIKE '%origQty%'")
    return f"{order}, {'remarked' if told_of else 'no word'}; {await counts(play)}"


CASES += [
    Case(
        "empty text for none on an order",
        f"FILLED 10.0 null; 1 orders, 1 fills, {COVERED}",
        empty_tif,
        empty_tif_seen,
    ),
    Case("empty fee asset", f"1 1 null; 1 orders, 1 fills, {COVERED}", empty_fee_asset, empty_fee_asset_seen),
    Case(
        "market order sized in quote",
        f"FILLED 1250.0 null, remarked; 1 orders, 1 fills, {COVERED}",
        sized_in_quote,
        sized_in_quote_seen,
    ),
]


# --- settings and commands


async def named_in_settings(play: Play) -> None:
    play.venue.traded(play.input["SDX_SYMBOLS"], 1)
    play.run(**play.input)


async def named_in_settings_seen(play: Play) -> str:
    market = await play.text("SELECT symbol, base, quote, source FROM ledger.markets WHERE source = 'setting'")
    return f"{market}; {await counts(play)}"


async def case_kept(play: Play) -> None:
    play.venue.traded("beamxUSDT", 1)
    await play.programs.done("reconcile", "--symbol", "beamxUSDT")


async def case_kept_seen(play: Play) -> str:
    asked = {one.params["symbol"] for name in ("allOrders", "myTrades") for one in play.venue.calls(name)}
    named = sorted(name for name in asked if name.upper() == "BEAMXUSDT")
    fills = await play.value("SELECT count(*) FROM ledger_v1.fills WHERE symbol = 'beamxUSDT'")
    return f"asked for {' '.join(named)}, {fills} fills"


async def odd_terminal(play: Play) -> None:
    hold(play.venue, 币安人生="8.5")
    await play.mirrored()
    report = luna(now_ms(), "BUY", "十")
    await play.venue.push(report | {"s": "币安人生USDT"})
    await play.comes("SELECT count(*) > 0 FROM ledger_v1.journal WHERE problem IS NOT NULL")


async def odd_terminal_seen(play: Play) -> str:
    said: list[str] = []
    for command in play.input["commands"]:
        program = play.programs.start(*command.split(), settings=play.input["env"])
        code = await program.ended()
        err = program.err_file.read_text("latin-1")
        spoke = bool(program.out_file.read_bytes()) and "Traceback" not in err
        said.append(f"{command}: {'spoke' if spoke and code in (0, 1) else f'ended with {code}, {err[-60:]!r}'}")
    return "; ".join(said)


async def nested_listen_key(play: Play) -> None:
    body: Any = play.input["POST userDataStream"]
    play.venue.rules = [at("userDataStream", told(body), "POST")]


async def nested_listen_key_seen(play: Play) -> str:
    _, out, _ = await play.programs.done("doctor", "--json")
    finding = next(one for one in json.loads(out)["findings"] if one["what"].endswith("listen key"))
    return f"{finding['verdict']}, {'names the listen key' if 'listen key' in finding['found'] else finding['found']}"


CASES += [
    Case(
        "names in settings",
        f"币安人生USDT 币安人生 USDT setting; 1 orders, 1 fills, {COVERED}",
        named_in_settings,
        named_in_settings_seen,
    ),
    Case("name folded to upper case", "asked for beamxUSDT, 1 fills", case_kept, case_kept_seen),
    Case(
        "terminal that is not UTF-8",
        "status: spoke; verify: spoke; status --json: spoke; discrepancy list: spoke",
        odd_terminal,
        odd_terminal_seen,
    ),
    Case(
        "doctor and a nested listen key",
        "failed, names the listen key",
        nested_listen_key,
        nested_listen_key_seen,
    ),
]


# --- the venue's clock

DATED_ANSWERS = 4
"""So many answers hold the wrong Date before the next thing happens, and as many the right one after it."""
WRONG_FOR_MS = 5000
SHORTLY_MS = 20_000


def dated(venue: Venue, ahead_s: Callable[[], int]) -> Rule:
    """A venue whose time nobody tells but the Date of its answers, which is ahead by so much."""

    def rule(asked: Asked) -> bytes:
        missing = reply(404, "<html>404 Not Found</html>", HTML)
        head, _, body = (missing if asked.path.endswith("/time") else venue.own_answer(asked)).partition(b"\r\n")
        at = datetime.fromtimestamp(now_ms() // 1000, UTC) + timedelta(seconds=ahead_s())
        return b"\r\n".join((head, f"Date: {format_datetime(at, usegmt=True)}".encode(), body))

    return rule


async def answered(venue: Venue, more: int, until_ms: int) -> None:
    """Wait for so many further calls, the last not before then."""
    asked = len(venue.asked)
    await until(lambda: len(venue.asked) >= asked + more and now_ms() >= until_ms, f"{more} further calls")


async def wrong_date(play: Play) -> None:
    """The Date is wrong for a while or from now on, the program is killed, an order is filled, it starts again."""
    ahead_s = 0
    play.venue.rules = [dated(play.venue, lambda: ahead_s)]
    program = await play.mirrored(SDX_RECONCILE_EVERY_S="1")
    ahead_s = play.input["ahead_s"]
    await answered(play.venue, DATED_ANSWERS, now_ms() + WRONG_FOR_MS)
    if not play.input["for_ever"]:
        ahead_s = 0
        await answered(play.venue, DATED_ANSWERS, now_ms())
    await program.killed()
    play.venue.traded("BTCUSDT", 7, at_ms=now_ms())
    play.run()


async def wrong_date_seen(play: Play) -> str:
    """The second gap is that of the outage: the order of its middle lies in it, and it begins shortly before that."""
    filled_ms = play.venue.orders[-1]["time"]
    gap = await play.text(
        f"SELECT CASE WHEN {filled_ms} NOT BETWEEN from_ms AND until_ms THEN 'misses the outage'"
        f" WHEN from_ms < {filled_ms - SHORTLY_MS} THEN 'begins too early' ELSE 'covers the outage' END,"
        " CASE WHEN closed_at IS NULL THEN 'is open' ELSE 'is closed' END, fills_found"
        " FROM ledger_v1.gaps WHERE gap_id = 2"
    )
    ahead = await play.value(f"SELECT complete_through_ms > {now_ms()} FROM ledger_v1.coverage WHERE symbol = '*'")
    return f"gap {gap} found, {'claims what is to come' if ahead else 'no claim ahead'}; {await counts(play)}"


IN_ITS_GAP = f"gap covers the outage is closed 1 found, no claim ahead; 1 orders, 1 fills, {COVERED}"

CASES += [
    Case(name, IN_ITS_GAP, wrong_date, wrong_date_seen)
    for name in ("Date right throughout", "Date two hours ahead for seconds", "Date of the year 9999 for ever")
]
