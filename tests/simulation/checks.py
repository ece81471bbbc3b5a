"""What must hold: at any moment of a simulated world, and in the end.

Each check has a name and says what it found. They read the tables as any reader would and compare with the venue's own
books; nothing here knows how the mirror works.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from ledger import verify
from ledger.proof import prove
from ledger.sandbox.books import Balance
from ledger.wire import heads
from tests.simulation.venue import START_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

SHOWN_MAX = 4
ROW_WITHIN_S = 12.0
"""So long nobody was connected before the row of the outage must be seen."""
FRESH_WITHIN_MS = 15_000
"""How far behind a healthy mirror's coverage may be, beyond what its settings hold it back."""
OVERDUE_MS = 60_000
"""How late an order may be asked for in a healthy world."""
TERMINAL = frozenset({"FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "REJECTED"})
LATE_MS = 30_000
"""An order of so long ago has come by REST or the stream, whatever may have been lost."""
UNKNOWABLE = frozenset({"balances_are_explained", "locks_are_explained", "nothing_is_set_aside"})
"""Verdicts that tell of the venue, not of us: what it lost or garbled cannot be explained."""
CONFLICTS = frozenset({"fill_conflict", "order_conflict", "terminal_conflict"})


class Broken(Exception):
    """An invariant does not hold: its name, and what was found instead."""

    def __init__(self, invariant: str, found: str) -> None:
        super().__init__(invariant, found)
        self.invariant = invariant
        self.found = found

    def __str__(self) -> str:
        return f"{self.invariant}: {self.found}"


class Memory:
    """What was seen at the last look: such things never go back."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, int], Any] = {}
        self.fills: set[tuple[Any, ...]] = set()
        self.balances_ms: dict[str, int] = {}


async def always(conn: Any, world: World) -> None:
    """What holds at any moment, in the worst trouble too. Raises Broken."""
    orders = await _orders(conn, world)
    _none("orders never go back", _regressions(world, orders))
    _none("no order is further than at the venue", _ahead(world, orders))
    _none("every journal row has the next number", await _journal_holes(conn, world))
    _none("nothing lands under an older fence", world.database.trespasses)
    _none("a fill once seen never goes, nor changes its id", await _vanished(conn, world))
    _none("an outage is a row while it goes on", await _unrecorded_outage(conn, world))
    _none("a good key is never called a refused one", await _key_refused(conn, world))
    if world.scenario.dialect.position_clock:
        _none("a balance never goes back in time", await _older_balances(conn, world))
    if world.may_trust_coverage:
        _none("coverage is never past what is known", await _uncovered(conn, world, orders))


async def in_the_end(conn: Any, world: World) -> None:
    """What holds once the trouble is over. Raises Broken with the first that does not."""
    orders = await _orders(conn, world)
    former = frozenset(key for key, mine in orders.items() if _is_former(world, key, mine))
    proof = await prove(conn, world.account, world.venue.truth(former))
    _none("ids that begin anew are said once, and nothing is merged", await _anew(conn, world, former))
    if world.venue.done["ids_began_anew"]:
        # The trades of what was there before can be read no more.
        proof.differences = [one for one in proof.differences if not one.startswith("trades can be read over REST")]
    _none("the mirror equals the venue", proof.differences)
    if not world.scenario.dialect.trades and not world.guesses_doubles:
        _none("every fill that a frame told is a row", await _untold_fills(conn, world))
    if world.scenario.dialect.trades and world.scenario.loses_silently:
        _none("after a walk over everything every fill has its trade id", await _nameless_fills(conn, world))
    _none("executed is what the fills add up to and what is missing", await _sums(conn, world))
    _none("a lost tail is a gap from where the database was live last", await _no_gap_over_lost_tail(conn, world))
    _none("no provisional fill, no snapshot in doubt is left", await _undecided(conn, world))
    _none("every journal row has the next number", await _journal_holes(conn, world))
    _none("frames are kept as they came, in their order", await _unfaithful(conn, world))
    _none("no balance was ever invented", await _invented_balances(conn, world))
    if world.scenario.dialect.position_clock:
        _none("every balance was the venue's at the time it is recorded for", await _misdated_balances(conn, world))
    _none("no transfer was ever invented", await _invented_transfers(conn, world))
    _none("no conflict is left open", await _conflicts(conn, world))
    _none("no order is left unknown", await _unknown_orders(conn, world))
    _none("every order that must be asked for again is asked for", await _overdue(conn, world))
    _none("a field that only describes costs no report", await _costly(conn, world))
    _none("a report that could not be read was asked about", await _unasked(conn, world))
    _none("a socket of the valid listen key is up", [] if world.venue.subscribed() else ["none that hears"])
    _none("the stream is live and covered", await _stale(conn, world))
    _none("nothing is asked while the venue wants silence, nor beyond the budget", world.venue.impolite)


async def covered_but_for(conn: Any, world: World, refused: frozenset[str]) -> None:
    """Of a market that the venue refuses to tell of nothing is claimed beyond what was told. Raises Broken."""
    orders = await _orders(conn, world)
    if world.may_trust_coverage:
        _none("coverage is never past what is known", await _uncovered(conn, world, orders))
    _none("a refusal stops nothing but its question", await _left_out(conn, world, orders, refused))


async def covered_but_for_the_past(conn: Any, world: World, refused: frozenset[str]) -> None:
    """Nothing is claimed of what the venue does not tell for its age, and everything else is known. Raises Broken.

    ``refused``: markets that it told nothing of until now.
    """
    orders = await _orders(conn, world)
    _none("coverage is never past what is known", await _uncovered(conn, world, orders))
    _none("what is too old to be served stops nothing", await _left_out(conn, world, orders, refused))


async def _left_out(conn: Any, world: World, orders: dict[tuple[str, int], Any], refused: frozenset[str]) -> list[str]:
    """Orders that the venue tells of and that are unknown. One that an open discrepancy names, since its row could not
    be read, is asked for again at a time of its own, and so is a market that was refused."""
    if world.scenario.loses_silently:
        return []
    rows = await conn.fetch(
        "SELECT symbol, order_id FROM ledger_v1.discrepancies WHERE account = $1 AND kind = 'rest_row'"
        " AND resolved_at IS NULL AND order_id IS NOT NULL",
        world.account,
    )
    asked_later = {(row["symbol"], row["order_id"]) for row in rows}
    return [
        f"order {key} of {other.created_ms} is unknown"
        for key, other in world.venue.books.orders.items()
        if key[0] not in refused | world.listed_late
        and key not in orders
        and key not in asked_later
        and world.venue.rest.hidden(other, world.venue.now_ms()) is None
        and _told_from_ms(world) <= other.created_ms < world.venue.now_ms() - LATE_MS
    ]


def _told_from_ms(world: World) -> int:
    """Since when the venue's history goes, with an hour to spare."""
    days = world.venue.rest.history_days
    return 0 if days is None else world.venue.now_ms() - int(days * 86_400_000) + 3_600_000


async def verified(conn: Any, world: World) -> None:
    """What ``sdx-ledger verify`` says, which looks at the database alone. Raises Broken with the first that is off."""
    head = await heads.read(conn, world.data_dir, world.account)
    report = await verify.verify(conn, world.account, now_ms=world.venue.now_ms(), head=head)
    for verdict in report.verdicts:
        if verdict.name not in UNKNOWABLE and not verdict.holds:
            _none(f"verify: {verdict.meaning}", [f"{row.key} {row.found}" for row in verdict.first])


def _none(invariant: str, found: Iterable[str]) -> None:
    found = list(found)
    if found:
        more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        raise Broken(invariant, "; ".join(found[:SHOWN_MAX]) + more)


async def _orders(conn: Any, world: World) -> dict[tuple[str, int], Any]:
    rows = await conn.fetch(
        "SELECT o.symbol, o.order_id, o.status, o.executed_qty, o.seq, o.updated_at, f.qty AS filled_qty"
        " FROM ledger_v1.orders o"
        " LEFT JOIN (SELECT symbol, order_id, sum(qty) AS qty FROM ledger_v1.fills WHERE account = $1 GROUP BY 1, 2) f"
        " USING (symbol, order_id) WHERE o.account = $1",
        world.account,
    )
    return {(row["symbol"], row["order_id"]): row for row in rows}


def _is_former(world: World, key: tuple[str, int], mine: Any) -> bool:
    """Whether the mirror has this order as it was before the ids of its market began anew."""
    if key not in world.venue.former.orders:
        return False
    updated_at = mine["updated_at"]
    return key not in world.venue.books.orders or (updated_at is not None and updated_at.timestamp() * 1000 < START_MS)


async def _anew(conn: Any, world: World, former: frozenset[tuple[str, int]]) -> list[str]:
    """A market of which the mirror knows orders of both generations by one id has one discrepancy, others none."""
    rows = await conn.fetch(
        "SELECT symbol FROM ledger_v1.discrepancies WHERE account = $1 AND kind = 'ids_began_anew'", world.account
    )
    said = Counter(row["symbol"] for row in rows)
    twice = {key[0] for key in former if key in world.venue.books.orders}
    relisted = {symbol for symbol, _ in world.venue.former.orders}
    return [f"{symbol}: said {said[symbol]} times" for symbol in sorted(twice) if said[symbol] != 1] + [
        f"{symbol}: said, but its ids did not begin anew" for symbol in sorted(said.keys() - relisted)
    ]


def _regressions(world: World, orders: dict[tuple[str, int], Any]) -> list[str]:
    found, memory = [], world.memory
    for key, before in memory.orders.items():
        now = orders.get(key)
        if now is None:
            found.append(f"order {key} is gone")
        elif before["status"] in TERMINAL and now["status"] not in TERMINAL:
            found.append(f"order {key} was {before['status']} and is {now['status']}")
        elif (now["executed_qty"] or 0) < (before["executed_qty"] or 0) and not (
            world.guesses_doubles or key in world.twins or key in world.venue.twins
        ):
            found.append(f"order {key} had {before['executed_qty']} executed and has {now['executed_qty']}")
        elif (now["seq"] or 0) < before["seq"]:
            found.append(f"order {key} had seq {before['seq']} and has {now['seq']}")
    memory.orders = orders
    return found


def _ahead(world: World, orders: dict[tuple[str, int], Any]) -> list[str]:
    """Compared with the venue's books of now: the mirror may be behind, never ahead."""
    found = []
    for key, mine in orders.items():
        books = world.venue.former if _is_former(world, key, mine) else world.venue.books
        other = books.orders.get(key)
        if other is None:
            found.append(f"order {key} is unknown to the venue")
            continue
        if (mine["executed_qty"] or 0) > other.executed_qty and not world.guesses_doubles:
            found.append(f"order {key}: {mine['executed_qty']} executed here, {other.executed_qty} there")
        if mine["status"] in TERMINAL and mine["status"] != other.status:
            found.append(f"order {key} is {mine['status']} here, {other.status} there")
    return found


async def _journal_holes(conn: Any, world: World) -> list[str]:
    row = await conn.fetchrow(
        """
        SELECT count(*) AS n, coalesce(min(i.seq), 1) AS first, coalesce(max(i.seq), 0) AS last,
               (SELECT head_seq FROM ledger.accounts WHERE account = $1) AS head
        FROM ledger.inbox i WHERE i.account = $1
        """,
        world.account,
    )
    if row["head"] is None or (row["first"] == 1 and row["n"] == row["last"] == row["head"]):
        return []
    return [f"{row['n']} rows from {row['first']} to {row['last']}, head {row['head']}"]


async def _vanished(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT fill_id, symbol, order_id, price, qty FROM ledger_v1.fills f WHERE account = $1", world.account
    )
    fills = {tuple(row) for row in rows}
    gone = set() if world.guesses_doubles else world.memory.fills - fills
    world.memory.fills = fills
    return [f"fill {one[0]} of {one[1]}/{one[2]} is gone" for one in sorted(gone)]


async def _older_balances(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch("SELECT asset, as_of_ms FROM ledger_v1.balances WHERE account = $1", world.account)
    before = world.memory.balances_ms
    world.memory.balances_ms = {row["asset"]: row["as_of_ms"] for row in rows}
    return [
        f"{row['asset']} was of {before[row['asset']]} and is of {row['as_of_ms']}"
        for row in rows
        if row["as_of_ms"] < before.get(row["asset"], 0)
    ]


async def _uncovered(conn: Any, world: World, orders: dict[tuple[str, int], Any]) -> list[str]:
    """What happened at the venue before the end of coverage, the account's or a market's own, and is not known here."""
    rows = await conn.fetch(
        "SELECT symbol, coalesce(complete_from_ms, 0), complete_through_ms FROM ledger_v1.coverage"
        " WHERE account = $1 AND complete_through_ms IS NOT NULL",
        world.account,
    )
    covered = {symbol: (max(from_ms, world.served_from_ms), through_ms) for symbol, from_ms, through_ms in rows}

    def claimed(symbol: str, at_ms: int) -> bool:
        spans = (covered[name] for name in (symbol, "*") if name in covered)
        return any(from_ms <= at_ms <= through_ms for from_ms, through_ms in spans)

    named = {symbol for symbol, _ in orders}
    executed: dict[tuple[str, int], Any] = {}
    for fill in world.venue.books.fills.values():
        if claimed(fill.symbol, fill.time_ms):
            key = (fill.symbol, fill.order_id)
            executed[key] = executed.get(key, 0) + fill.qty
    tells_trades = world.scenario.dialect.trades and "deny_trades" not in world.scenario.kinds
    found = []
    for key, other in world.venue.books.orders.items():
        if not claimed(key[0], other.created_ms) or world.venue.rest.hidden(other, world.venue.now_ms()) is not None:
            continue
        if key[0] in world.listed_late - named:
            continue  # what nothing names is no market
        through_ms = max(covered[name][1] for name in (key[0], "*") if name in covered)
        mine = orders.get(key)
        if mine is None or _is_former(world, key, mine):
            found.append(f"order {key} of {other.created_ms} is unknown, covered to {through_ms}")
        # Without trades, or denied them, an order that lost fills shows later ones only when it was asked for again.
        # A twin is a row at once, but counts only when its order was asked for.
        elif tells_trades and max(mine["executed_qty"] or 0, mine["filled_qty"] or 0) < executed.get(key, 0):
            found.append(f"order {key}: {mine['executed_qty']} executed here, {executed[key]} at {through_ms}")
        elif other.status in TERMINAL and claimed(key[0], other.updated_ms) and mine["status"] not in TERMINAL:
            found.append(f"order {key} is {mine['status']} here, {other.status} since {other.updated_ms}")
    return found


async def _unrecorded_outage(conn: Any, world: World) -> list[str]:
    """No socket was up at any look for a while, though one process led, and was well, all the time."""
    fence = await conn.fetchval("SELECT fence FROM ledger.accounts WHERE account = $1", world.account)
    is_led = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM ledger.leases WHERE account = $1 AND until_at > ledger.clock())", world.account
    )
    if fence != world.alone_fence or not is_led:
        world.alone_fence, world.alone_since_s = fence, world.loop.time()
    alone_s = world.loop.time() - world.alone_since_s
    if not fence or alone_s < ROW_WITHIN_S or world.venue.live():
        return []
    open_ended = await conn.fetchval(
        "SELECT count(*) FROM ledger_v1.gaps WHERE account = $1 AND closed_at IS NULL AND until_ms IS NULL",
        world.account,
    )
    return [] if open_ended == 1 else [f"{open_ended} gaps without an end, {alone_s:.0f} s without a socket"]


async def _key_refused(conn: Any, world: World) -> list[str]:
    """The venue refuses no key here, only calls that not every key may make."""
    told = await conn.fetchval("SELECT last_error FROM ledger.venue_state WHERE account = $1", world.account)
    return [told] if told and "check SDX_API_KEY" in told else []


async def _sums(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        """
        SELECT o.symbol, o.order_id, o.executed_qty, coalesce(f.qty, 0) AS qty, coalesce(m.missing_qty, 0) AS missing
        FROM ledger_v1.orders o
        LEFT JOIN (SELECT symbol, order_id, sum(qty) AS qty FROM ledger_v1.fills WHERE account = $1 GROUP BY 1, 2) f
          USING (symbol, order_id)
        LEFT JOIN (SELECT * FROM ledger_v1.missing_executions WHERE account = $1) m USING (symbol, order_id)
        WHERE o.account = $1 AND coalesce(o.executed_qty, 0) <> coalesce(f.qty, 0) + coalesce(m.missing_qty, 0)
        """,
        world.account,
    )
    return [f"{r['symbol']}/{r['order_id']}: {r['executed_qty']} <> {r['qty']} + {r['missing']}" for r in rows]


async def _untold_fills(conn: Any, world: World) -> list[str]:
    """Fills of the journal's own frames that are no rows. Of equal frames as many count as one session heard."""
    rows = await conn.fetch(
        "SELECT session_id, raw FROM ledger.inbox WHERE account = $1 AND source = 'stream'"
        " AND (problem IS NULL OR starts_with(problem, 'remark: ')) AND kind = 'executionReport'",
        world.account,
    )
    sessions: dict[Any, Counter[tuple[Any, ...]]] = defaultdict(Counter)
    for row in rows:
        told = msgspec.json.decode(row["raw"])
        content = (told["s"], told["i"], told["T"], Decimal(told["l"]), Decimal(told["L"]), told["X"] == "FILLED")
        if content[3]:
            # FILLED happens once, however often it is told.
            sessions[row["session_id"]][content] = 1 if content[5] else sessions[row["session_id"]][content] + 1
    heard: Counter[tuple[Any, ...]] = Counter()
    for contents in sessions.values():
        heard |= contents
    wanted: Counter[tuple[Any, ...]] = Counter()
    for content, times in heard.items():
        wanted[content[:5]] += times
    rows = await conn.fetch(
        "SELECT symbol, order_id, executed_ms, qty, price FROM ledger_v1.fills WHERE account = $1", world.account
    )
    return [f"{n} x {one}" for one, n in (wanted - Counter(tuple(row) for row in rows)).items()]


async def _nameless_fills(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT fill_id, symbol, order_id FROM ledger_v1.fills WHERE account = $1 AND trade_id IS NULL", world.account
    )
    return [f"fill {row['fill_id']} of {row['symbol']}/{row['order_id']}" for row in rows]


async def _undecided(conn: Any, world: World) -> list[str]:
    fills = await conn.fetchval(
        "SELECT count(*) FROM ledger.fills WHERE account = $1 AND state = 'provisional'", world.account
    )
    votes = await conn.fetchval(
        "SELECT count(*) FROM ledger.observations WHERE account = $1 AND kind = 'snapshot'", world.account
    )
    return [f"{fills} provisional fills, {votes} votes"] if fills or votes else []


async def _unfaithful(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT session_id, frame_no, raw, problem FROM ledger.inbox WHERE account = $1 AND source = 'stream'"
        " ORDER BY session_id, seq",
        world.account,
    )
    found, last = [], (None, 0)
    for row in rows:
        session, number = row["session_id"], row["frame_no"]
        if number != (last[1] + 1 if session == last[0] else 1):
            found.append(f"session {session}: frame {number} follows {last[1] if session == last[0] else 'nothing'}")
        last = (session, number)
        if row["raw"] not in world.venue.pushed and row["problem"] != "oversize":
            found.append(f"a frame the venue never sent: {row['raw'][:100]!r}")
    return found


async def _invented_balances(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT asset, free, locked FROM ledger_v1.balance_history WHERE account = $1", world.account
    )
    was_held = {(asset, held) for asset, states in world.venue.held.items() for _, held in states}
    return [
        f"{asset}: {free} free {locked} locked was never true"
        for asset, free, locked in rows
        if (asset, Balance(free, locked)) not in was_held
    ]


async def _misdated_balances(conn: Any, world: World) -> list[str]:
    """Balances of the history that the venue had at another time: neither in that millisecond nor still since before.

    Those of before anything moved are left out: the venue gives no time of them, and our clock may be ahead.
    """
    rows = await conn.fetch(
        "SELECT asset, free, locked, as_of_ms FROM ledger_v1.balance_history WHERE account = $1", world.account
    )
    found = []
    for asset, free, locked, as_of_ms in rows:
        until = [(since_ms, held) for since_ms, held in world.venue.held[asset] if since_ms <= as_of_ms]
        of_then = [held for since_ms, held in until if since_ms == as_of_ms] or [held for _, held in until[-1:]]
        if Balance(free, locked) not in (*of_then, *(held for since_ms, held in until if not since_ms)):
            found.append(f"{asset} at {as_of_ms}: {free} free {locked} locked, the venue had {of_then}")
    return found


async def _invented_transfers(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT asset, amount, at_ms FROM ledger_v1.transfers WHERE account = $1 AND kind <> 'opening'", world.account
    )
    ours = Counter((row["asset"], row["amount"], row["at_ms"]) for row in rows)
    theirs = Counter((one.asset, one.amount, one.at_ms) for one in world.venue.books.movements)
    return [f"{n} x {one}" for one, n in (ours - theirs).items()]


async def _conflicts(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT kind, subject, expected, actual FROM ledger_v1.discrepancies"
        " WHERE account = $1 AND resolved_at IS NULL AND kind = ANY ($2)",
        world.account,
        sorted(CONFLICTS),
    )
    return [" ".join(str(value) for value in row.values()) for row in rows]


async def _unknown_orders(conn: Any, world: World) -> list[str]:
    """What REST has none of, rightly, is nothing to be told; everything else it knows in the end, and was asked for."""
    rows = await conn.fetch(
        "SELECT subject, expected, actual FROM ledger_v1.discrepancies"
        " WHERE account = $1 AND resolved_at IS NULL AND kind = 'order_unknown'",
        world.account,
    )
    waiting = await conn.fetch(
        "SELECT symbol, order_id, reason, tries FROM ledger.order_checks"
        " WHERE account = $1 AND reason = 'unknown_to_venue'",
        world.account,
    )
    return [" ".join(str(value) for value in row.values()) for row in (*rows, *waiting)]


async def _no_gap_over_lost_tail(conn: Any, world: World) -> list[str]:
    """What the database confirmed and lost again is looked for from the last instant that it kept."""
    if world.database.returned_to is None:
        return []
    live_ms, gap_id = world.database.returned_to
    found = await conn.fetchval(
        "SELECT count(*) FROM ledger_v1.gaps WHERE account = $1 AND coalesce(from_ms, 0) <= $2"
        " AND (gap_id > $3 OR until_ms IS NULL OR until_ms > $2)",
        world.account,
        live_ms,
        gap_id,
    )
    return [] if found else [f"no gap from {live_ms} on"]


async def _overdue(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT symbol, order_id, reason, tries, due_ms FROM ledger.order_checks WHERE account = $1"
        " AND reason <> 'absent' AND (due_ms IS NULL OR ($2 AND due_ms < $3))",
        world.account,
        world.may_trust_clock,
        world.venue.now_ms() - OVERDUE_MS,
    )
    return [" ".join(str(value) for value in row.values()) for row in rows]


async def _unasked(conn: Any, world: World) -> list[str]:
    rows = await conn.fetch(
        "SELECT subject, actual FROM ledger_v1.discrepancies WHERE account = $1 AND kind = 'unreadable_report'"
        " AND resolved_at IS NULL AND order_id IS NOT NULL",
        world.account,
    )
    return [f"{row['subject']}: {row['actual']}" for row in rows]


async def _costly(conn: Any, world: World) -> list[str]:
    """Reports that could not be read for nothing but their type, time in force or maker flag."""
    rows = await conn.fetch(
        "SELECT seq, problem FROM ledger.inbox WHERE account = $1 AND source = 'stream'"
        " AND problem ~ '^executionReport [^ ]+: field (f|o|m):'",
        world.account,
    )
    return [f"row {row['seq']}: {row['problem']}" for row in rows]


async def _stale(conn: Any, world: World) -> list[str]:
    row = await conn.fetchrow(
        "SELECT live, live_through_ms FROM ledger.coverage WHERE account = $1 AND symbol = '*'", world.account
    )
    settings = world.scenario.settings
    held_back_ms = int((settings.rest_lag_s + settings.silence_s) * 1000) + FRESH_WITHIN_MS
    if row is None or not row["live"]:
        return ["the stream is down"]
    late_ms = world.venue.now_ms() - row["live_through_ms"]
    return [f"covered to {late_ms} ms ago"] if late_ms > held_back_ms and world.may_trust_clock else []
