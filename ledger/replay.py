"""The journal told again from its first row, and whether that gives the very rows the mirror holds.

Always holds: rows become facts, and facts become rows, through the functions the service itself uses, in the batches
the service made; no network, no clock. The rows are made in a scratch schema that is dropped at the end, and compared
with the live ones column by column, as text. The same journal always gives the same rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Table, Text

from ledger import kept
from ledger.db import apply, code, quarantine, tables
from ledger.db import scratch as scratch_of
from ledger.db.apply import Batch, Entry
from ledger.errors import DatabaseError, LedgerError
from ledger.facts.identity import SessionMemory
from ledger.stream import consumer

SCRATCH = "ledger_replay"
REBUILT = (
    tables.orders,
    tables.order_amendments,
    tables.fills,
    tables.balances,
    tables.balance_history,
    tables.transfers,
)
"""What the journal alone determines; every column of these is compared."""
_GROWING = ("inbox", "orders", "fills", "balances", "balance_history", "transfers", "observations", "discrepancies")
SWAP = "swap"
"""Kind of the journal row that says which rows ``swap`` changed; told again, it gives them its seq."""

ROWS_READ_AT_ONCE = 200
BATCHES_PER_TRANSACTION = 100
"""A transaction that changes the account's row too often makes finding it slow."""
STEPS_AHEAD_MAX = 4
"""Transactions that are read while one is written."""
ROWS_UNDER_LOCK_MAX = 500
ROUNDS_MAX = 100
SESSIONS_REMEMBERED_MAX = 16
SHOWN_MAX = 5
LONG_S = 3600.0
"""For one statement over whole tables; the driver's own limit is for those of the service."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD = "SELECT head_seq FROM ledger.accounts WHERE account = $1"
_ADVISORY_LOCK = 7_236_473


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same. ``column`` ``*``: the row is on one side only, the other one is None."""

    table: str
    key: str
    column: str
    live: str | None
    replayed: str | None


@dataclass(frozen=True, slots=True)
class TableResult:
    """One table, compared. The SHA-256 is that of its canonical dump: rows by key, every column as text."""

    table: str
    live_rows: int
    replayed_rows: int
    only_live: int
    only_replayed: int
    changed: int
    live_sha256: str
    replayed_sha256: str
    first: tuple[Difference, ...] = ()

    @property
    def identical(self) -> bool:
        return self.live_sha256 == self.replayed_sha256


@dataclass(frozen=True, slots=True)
class Result:
    """One account, replayed up to ``through_seq``. ``swap_seq``: journal row that says what was corrected, if any."""

    account: str
    through_seq: int
    tables: tuple[TableResult, ...]
    swap_seq: int | None = None

    @property
    def identical(self) -> bool:
        return all(table.identical for table in self.tables)


@asynccontextmanager
async def scratch(owner: Any) -> AsyncIterator[None]:
    """The scratch schema, empty, for as long as this block lasts; one that a killed run left behind is dropped first.

    ``owner`` is an asyncpg connection of the role that owns the schema. Raises DatabaseError for any other, and while
    another replay is at work.
    """
    if not await owner.fetchval(
        f"SELECT has_database_privilege(current_database(), 'CREATE')"
        f" AND pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = '{code.SCHEMA}'"
    ):
        raise DatabaseError(
            "replay makes a scratch schema, which only the owner of the schema may; set SDX_OWNER_DATABASE_URL"
        )
    if not await owner.fetchval("SELECT pg_try_advisory_lock($1)", _ADVISORY_LOCK):
        raise DatabaseError("another replay is at work on this database; wait for its end")
    drop = f"SET client_min_messages = warning; DROP SCHEMA IF EXISTS {SCRATCH} CASCADE"
    try:
        await owner.execute(drop)
        await owner.execute(scratch_of.statements(SCRATCH))
        yield
    finally:
        await owner.execute(drop)
        await owner.execute("SELECT pg_advisory_unlock($1)", _ADVISORY_LOCK)


@dataclass(frozen=True, slots=True)
class _Step:
    """What one transaction tells: some calls of ``ledger.apply``, and the swap that the last of them was, if any."""

    batches: list[Batch]
    swap: bytes | None = None
    swap_seq: int = 0


class Replay:
    """One account's journal on its way into the scratch schema.

    ``reader`` and ``writer`` are asyncpg connections outside a transaction, used at the same time.
    """

    def __init__(self, reader: Any, writer: Any, account: str) -> None:
        self.account = account
        self.through_seq = 0
        self._reader = reader
        self._writer = writer
        self._memories: OrderedDict[UUID, SessionMemory] = OrderedDict()
        self._steps = 0
        self._quarantined: dict[int, Batch] = {}
        """Rows that were refused, by seq, each with its facts as its session counted them."""

    async def start(self) -> None:
        """Make the account known to the scratch schema."""
        await self._writer.execute("SET synchronous_commit = off")
        await self._writer.execute(
            f"INSERT INTO {SCRATCH}.accounts (account, created_at) VALUES ($1, '-infinity')", self.account
        )

    async def forward(self, to_seq: int) -> None:
        """Tell all journal rows up to ``to_seq``. Raises LedgerError where the journal is not whole."""
        ahead: asyncio.Queue[_Step | None] = asyncio.Queue(STEPS_AHEAD_MAX)
        reading = asyncio.create_task(self._read_ahead(to_seq, ahead))
        try:
            while (step := await ahead.get()) is not None:
                await self._tell(step)
        finally:
            reading.cancel()
            await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()

    async def _read_ahead(self, to_seq: int, ahead: asyncio.Queue[_Step | None]) -> None:
        try:
            batches: list[Batch] = []
            async for rows in _groups(self._reader, self.account, self.through_seq, to_seq):
                batches += await self._batches(rows)
                last = rows[-1]
                self.through_seq = last["seq"]
                if last["kind"] == SWAP:
                    await ahead.put(_Step(batches, last["raw"], last["seq"]))
                elif len(batches) >= BATCHES_PER_TRANSACTION:
                    await ahead.put(_Step(batches))
                else:
                    continue
                batches = []
            await ahead.put(_Step(batches))
        finally:
            await ahead.put(None)

    async def _tell(self, step: _Step) -> None:
        self._steps += 1
        if self._steps & (self._steps - 1) == 0:
            # Plans made while the tables were smaller read the whole account per fill (see wire.postgres.Writer).
            await self._writer.execute(f"ANALYZE {', '.join(f'{SCRATCH}.{name}' for name in _GROWING)}; DISCARD PLANS")
        async with self._writer.transaction():
            await self._writer.executemany(apply.call(SCRATCH), [batch.arguments(None) for batch in step.batches])
            if step.swap is not None:
                await _touch(self._writer, self.account, json.loads(step.swap), step.swap_seq)

    async def _batches(self, rows: Sequence[Mapping[str, Any]]) -> list[Batch]:
        """The call of ``ledger.apply`` that wrote these rows; the calls, where it was sent again row by row."""
        first = rows[0]
        if first["kind"] == quarantine.KIND and first["source"] == "operator":
            return [self._again(first)]
        memory = await self._memory(first)
        batch = apply.build(
            self.account,
            first["session_id"],
            first["source"],
            [kept.entry(row) for row in rows],
            memory,
            asked_seq=first["asked_seq"],
            clockless=bool(first["clockless"]),
            lag_ms=first["lag_ms"] or 0,
        )
        if not any(kept.is_refused(row) for row in rows):
            return [batch]
        # The facts of a refused row were counted within the session, but not written then.
        singles = batch.split()
        for n, row in enumerate(rows):
            if kept.is_refused(row):
                self._quarantined[row["seq"]] = singles[n]
                singles[n] = singles[n].without_facts("")
        return singles

    def _again(self, row: Mapping[str, Any]) -> Batch:
        """The call that applied a refused row later: its facts came in here."""
        seq = quarantine.decode(row["raw"])
        if seq not in self._quarantined:
            raise LedgerError(
                f"journal row {row['seq']} of account '{self.account}' applies row {seq} again, which is none that was "
                "refused before it; sdx-ledger verify says more"
            )
        return quarantine.again(
            self._quarantined[seq], seq, session_id=row["session_id"], received_ms=kept.received_ms(row)
        )

    async def _memory(self, row: Mapping[str, Any]) -> SessionMemory:
        """What the session had said before this row."""
        if row["source"] != "stream":
            return SessionMemory()  # says nothing that it would have to remember
        session = row["session_id"]
        memory = self._memories.pop(session, None)
        if memory is None:
            memory = SessionMemory()
            if row["frame_no"] > 1:
                await kept.remember(self._reader, self.account, memory, row["session_id"], before_seq=row["seq"])
        self._memories[session] = memory
        if len(self._memories) > SESSIONS_REMEMBERED_MAX:
            self._memories.popitem(last=False)
        return memory


async def _groups(reader: Any, account: str, after_seq: int, to_seq: int) -> AsyncIterator[list[Mapping[str, Any]]]:
    """The rows of each call of ``ledger.apply``, in order."""
    group: list[Mapping[str, Any]] = []
    expected = after_seq + 1
    while expected <= to_seq:
        rows = await reader.fetch(
            f"{kept.JOURNAL} AND i.seq BETWEEN $2 AND $3 ORDER BY i.seq",
            account,
            expected,
            min(to_seq, expected + ROWS_READ_AT_ONCE - 1),
        )
        if not rows:
            raise _broken(account, expected)
        for row in rows:
            if row["seq"] != expected or row["last_seq"] is None:
                raise _broken(account, expected)
            expected += 1
            if group and (len(group) == consumer.FRAMES_PER_CALL_MAX or not _together(group[-1], row)):
                yield group
                group = []
            group.append(row)
    if group:
        yield group


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one call wrote both rows. A batch sealed by the upgrade that made the chain may hold several calls: of
    those each answer, and each decision, was one of its own."""
    if other["source"] != "stream":
        return False
    return (one["last_seq"], one["session_id"]) == (other["last_seq"], other["session_id"])


def _broken(account: str, seq: int) -> LedgerError:
    return LedgerError(f"the journal of account '{account}' is not whole at seq {seq}; sdx-ledger verify says more")


async def replay(reader: Any, writer: Any, holder: Any, account: str, *, swap: bool = False) -> Result:
    """Tell the journal of ``account`` again and compare; the scratch schema must be there (``scratch``).

    The three are asyncpg connections of the owner, outside a transaction. The service may run meanwhile: it waits
    while the last few rows are told, and with ``swap`` while tables are compared and corrected.
    Raises LedgerError where the journal is not whole or grows faster than it can be told.
    """
    told = Replay(reader, writer, account)
    await told.start()
    await _catch_up(reader, told)
    async with holder.transaction():
        head_seq = await holder.fetchval("SELECT head_seq FROM ledger.lock_account($1, NULL)", account)
        await told.forward(head_seq)
        if swap:
            before = Result(account, head_seq, await compare(holder, account))
            return before if before.identical else await _swap(holder, before)
        # From here on the reader sees the live tables as they are now, whatever is written after.
        frozen = reader.transaction(isolation="repeatable_read", readonly=True)
        await frozen.start()
        await reader.fetchval(_HEAD, account)
    try:
        return Result(account, head_seq, await compare(reader, account))
    finally:
        await frozen.rollback()


async def _catch_up(reader: Any, told: Replay) -> None:
    """Tell the journal until so little of it is left that the service may wait for the rest."""
    for _ in range(ROUNDS_MAX):
        head_seq = await reader.fetchval(_HEAD, told.account)
        if head_seq - told.through_seq <= ROWS_UNDER_LOCK_MAX:
            return
        await told.forward(head_seq)
    raise LedgerError(
        f"the journal of account '{told.account}' grows faster than it can be told again; stop the service or try later"
    )


async def compare(conn: Any, account: str) -> tuple[TableResult, ...]:
    """Every rebuilt table of the live schema against the scratch schema, within one transaction of ``conn``."""
    return tuple([await _compare(conn, account, table) for table in REBUILT])


async def dump_sha256(conn: Any, schema: str, account: str, table: Table, columns: Sequence[str]) -> str:
    """SHA-256 of a table's canonical dump: its rows by key, these columns as text, as COPY writes them."""
    digest = hashlib.sha256()

    async def add(data: bytes) -> None:
        digest.update(data)

    await conn.copy_from_query(
        f"SELECT {', '.join(columns)} FROM {schema}.{table.name} WHERE account = $1 ORDER BY {_order(table)}",
        account,
        output=add,
        timeout=LONG_S,
    )
    return digest.hexdigest()


async def _compare(conn: Any, account: str, table: Table) -> TableResult:
    names = [column.name for column in table.columns]
    live = await dump_sha256(conn, code.SCHEMA, account, table, names)
    replayed = await dump_sha256(conn, SCRATCH, account, table, names)
    live_rows, replayed_rows = await conn.fetchrow(
        f"SELECT (SELECT count(*) FROM {code.SCHEMA}.{table.name} WHERE account = $1),"
        f" (SELECT count(*) FROM {SCRATCH}.{table.name} WHERE account = $1)",
        account,
        timeout=LONG_S,
    )
    same = TableResult(table.name, live_rows, replayed_rows, 0, 0, 0, live, replayed)
    if live == replayed:
        return same
    rows = await conn.fetch(
        f"SELECT count(*) FILTER (WHERE replayed IS NULL) OVER () AS only_live,"
        f" count(*) FILTER (WHERE live IS NULL) OVER () AS only_replayed, count(*) OVER () AS n, live, replayed"
        f" FROM ({_differing(table)}) d LIMIT {SHOWN_MAX}",
        account,
        timeout=LONG_S,
    )
    only_live, only_replayed = rows[0]["only_live"], rows[0]["only_replayed"]
    first = [difference for row in rows for difference in _differences(table, row["live"], row["replayed"])]
    return replace(
        same,
        only_live=only_live,
        only_replayed=only_replayed,
        changed=rows[0]["n"] - only_live - only_replayed,
        first=tuple(first),
    )


def _differing(table: Table) -> str:
    """Query for the rows of $1 that differ: every column as text, ``live`` and ``replayed``, null where absent."""
    keys = [column.name for column in table.primary_key]

    def side(alias: str, schema: str) -> str:
        cells = ", ".join(f"{column.name}::text" for column in table.columns)
        told = f"SELECT {', '.join(keys)}, ARRAY[{cells}] AS cells FROM {schema}.{table.name} WHERE account = $1"
        return f"({told}) {alias}"

    return (
        f"SELECT l.cells AS live, r.cells AS replayed FROM {side('l', code.SCHEMA)}"
        f" FULL JOIN {side('r', SCRATCH)} USING ({', '.join(keys)}) WHERE l.cells IS DISTINCT FROM r.cells"
        f" ORDER BY {_order(table)}"
    )


def _differences(table: Table, live: list[str] | None, replayed: list[str] | None) -> list[Difference]:
    names = [column.name for column in table.columns]
    cells = dict(zip(names, live or replayed or [], strict=True))
    key = "/".join(cells[column.name] for column in table.primary_key if column.name != "account")
    if live is None or replayed is None:
        whole = " ".join(f"{name}={value}" for name, value in cells.items())
        return [Difference(table.name, key, "*", whole if live else None, whole if replayed else None)]
    pairs = zip(names, live, replayed, strict=True)
    return [Difference(table.name, key, name, one, other) for name, one, other in pairs if one != other]


def _order(table: Table) -> str:
    """By key, and text by its bytes: the same on every server."""
    return ", ".join(
        f'{column.name} COLLATE "C"' if isinstance(column.type, Text) else column.name for column in table.primary_key
    )


# --- swap ------------------------------------------------------------------------------------------------------


async def _swap(owner: Any, before: Result) -> Result:
    """Make the live rows what the journal says, in the transaction that holds the account's lock.

    A journal row of its own names every row that changed, and they take its seq: readers that follow seq see them
    again, and a later replay touches the same rows. Rows that go leave no trace for such readers but that journal row.
    """
    account = before.account
    live: dict[str, list[list[str]]] = {}
    wanted: dict[str, list[list[str]]] = {}
    for table in REBUILT:
        rows = await owner.fetch(_differing(table), account, timeout=LONG_S)
        live[table.name] = [_key(table, row["live"]) for row in rows if row["live"] is not None]
        wanted[table.name] = [_key(table, row["replayed"]) for row in rows if row["replayed"] is not None]
    seq = await _note_swap(owner, account, {"was": live, "is": wanted})
    for table in REBUILT:
        names = ", ".join(column.name for column in table.columns)
        into, source = f"{code.SCHEMA}.{table.name}", f"{SCRATCH}.{table.name}"
        where = _where(table)
        await owner.execute(f"DELETE FROM {into} WHERE {where}", account, *_columns(table, live[table.name]))
        await owner.execute(
            f"INSERT INTO {into} ({names}) SELECT {names} FROM {source} WHERE {where}",
            account,
            *_columns(table, wanted[table.name]),
        )
    await _touch(owner, account, {"is": wanted}, seq, schema=code.SCHEMA)
    return replace(before, swap_seq=seq)


async def _note_swap(owner: Any, account: str, keys: Mapping[str, Any]) -> int:
    """The journal row that names what changes; returns its seq."""
    now_ms = await owner.fetchval("SELECT (extract(epoch FROM ledger.clock()) * 1000)::bigint")
    row = Entry(1, now_ms, SWAP, None, json.dumps(keys, ensure_ascii=False).encode(), None, ())
    done = await apply.apply(owner, apply.build(account, uuid4(), "operator", [row], SessionMemory()))
    assert done.last_seq is not None, "a decision is always kept"
    return done.last_seq


async def _touch(conn: Any, account: str, keys: Mapping[str, Any], seq: int, *, schema: str = SCRATCH) -> None:
    """Give the rows that a swap brought the seq of the journal row that tells it."""
    for table in REBUILT:
        await conn.execute(
            f"UPDATE {schema}.{table.name} SET seq = {seq} WHERE {_where(table)}",
            account,
            *_columns(table, keys["is"].get(table.name, [])),
        )


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key if column.name != "account"]


def _key(table: Table, cells: Sequence[str]) -> list[str]:
    told = dict(zip((column.name for column in table.columns), cells, strict=True))
    return [told[name] for name in _keys(table)]


def _where(table: Table) -> str:
    """Condition for the rows of account $1 whose keys, as text, are the columns $2 …"""
    keys = _keys(table)
    given = ", ".join(f"${n}::text[]" for n in range(2, 2 + len(keys)))
    return f"account = $1 AND ({', '.join(f'{name}::text' for name in keys)}) IN (SELECT * FROM unnest({given}))"


def _columns(table: Table, keys: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[key[n] for key in keys] for n in range(len(_keys(table)))]
