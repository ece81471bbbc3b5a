"""``doctor``: looks at everything a mirror needs and says what to do about what is wrong.

Each check is tried whatever the others found; none of them changes anything at the venue or in the database.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ledger import app
from ledger.config import AccountSettings, Settings
from ledger.db import code
from ledger.errors import (
    ConfigError,
    DatabaseError,
    KeyRefused,
    LedgerError,
    NoLedger,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from ledger.reconcile.probe import FIRST_SYMBOL, probe
from ledger.stream.lease import key_in
from ledger.venue import capabilities, requests, rest_pages
from ledger.wire import embedded, pg_listen, postgres
from ledger.wire.clock import Clock
from ledger.wire.http import VenueHttp

DISK_FREE_MIN = 1_000_000_000
OFFSET_MAX_MS = 1_000
"""The venue refuses requests stamped further ahead than this; the mirror corrects itself, other programs may not."""

_MODES = {
    "trades": "trades can be read over REST: every fill missed in a gap is recovered",
    "orders_quote": "orders tell quantity and total: what a gap swallows is known, and its average price",
    "orders": "orders tell quantity only: what a gap swallows is known by quantity (missing_executions)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do (empty when all is well)."""

    what: str
    verdict: Literal["ok", "warning", "failed", "skipped"]
    found: str
    advice: str = ""
    exit_code: int = 0


def as_dict(finding: Finding) -> dict[str, Any]:
    """For ``--json``."""
    return asdict(finding)


def exit_code(findings: list[Finding]) -> int:
    """The exit code of the first check that failed; 0 when none did."""
    return next((finding.exit_code for finding in findings if finding.verdict == "failed"), 0)


async def examine(settings: Settings) -> list[Finding]:
    """Run every check. Raises nothing a check can say better."""
    findings = [Finding("settings", "warning", note, "see the README, Settings") for note in settings.notes()]
    for name in settings.unchecked_databases():
        found = f"{name} is on another machine, and nothing proves that it is the right one (SDX_DATABASE_TLS=off)"
        findings.append(Finding("database TLS", "warning", found, "add sslmode=verify-full to the URL"))
    for account in settings.all_accounts():
        findings += await _venue(settings, account)
    findings += await _database(settings)
    if settings.database_url is None:
        findings += _tcp(settings)
        findings.append(_disk(settings))
    return findings


async def _venue(settings: Settings, account: AccountSettings) -> list[Finding]:
    name = f"account {account.name}"
    try:
        app.keys(account)
    except ConfigError as error:
        return [Finding(f"{name}: key", "failed", str(error), "make a read-only key at the venue and set it", 3)]
    clock = Clock()
    async with app.venue_http(settings, account, clock) as http:
        checks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
            (f"{name}: clock", lambda: _clock(name, http)),
            (f"{name}: key", lambda: _key(name, http)),
            (f"{name}: listen key", lambda: _listen_key(name, http)),
            (f"{name}: recovery", lambda: _recovery(name, http, clock, account)),
        ]
        findings: list[Finding] = []
        for what, check in checks:
            try:
                findings.append(await _tried(what, check))
            except VenueUnreachable as error:
                asked = [Finding(what, "failed", str(error), "check the address and this machine's network", 4)]
                left = [one for one, _ in checks[len(findings) + 1 :]]
                return findings + asked + [Finding(one, "skipped", "not asked") for one in left]
        return findings


async def _tried(what: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """What a check found. Raises VenueUnreachable: where nothing answers the other checks find no more."""
    try:
        return await check()
    except VenueUnreachable:
        raise
    except KeyRefused as error:
        return Finding(what, "failed", str(error), "check SDX_API_KEY and SDX_API_SECRET, and the key's IP list", 3)
    except VenueError as error:
        return Finding(what, "failed", str(error), "check SDX_REST_URL and this machine's network; try again later", 4)


async def _clock(name: str, http: VenueHttp) -> Finding:
    offset_ms = await http.measure_offset()
    if abs(offset_ms) > OFFSET_MAX_MS:
        found = f"the venue's clock is {offset_ms:+d} ms from this machine's"
        return Finding(f"{name}: clock", "warning", found, "the mirror corrects for it; run NTP for everything else")
    # A venue without a time endpoint tells whole seconds, so nothing finer may be claimed.
    return Finding(f"{name}: clock", "ok", "the venue's clock and this machine's agree to the second")


async def _key(name: str, http: VenueHttp) -> Finding:
    request = requests.account()
    page = rest_pages.read(request, (await http.send(request)).body)
    return Finding(
        f"{name}: key",
        "ok",
        f"signed calls work, the account tells {page.rows} balances",
        "whether the key may trade cannot be asked here: use one that is read-only and bound to this IP",
    )


async def _listen_key(name: str, http: VenueHttp) -> Finding:
    key_in((await http.send(requests.create_listen_key())).body)
    return Finding(f"{name}: listen key", "ok", "the user data stream can be opened")


async def _recovery(name: str, http: VenueHttp, clock: Clock, account: AccountSettings) -> Finding:
    symbol = account.symbols[0] if account.symbols else FIRST_SYMBOL
    page = rest_pages.Page()
    try:
        request = requests.all_orders(symbol, limit=1)
        page = rest_pages.read(request, (await http.send(request)).body)
    except KeyRefused:
        raise
    except VenueRefused:
        pass  # an unknown symbol tells nothing about fields; the probe below decides without them
    found = capabilities.learn(await probe(http, (symbol,), now_s=clock.monotonic_s()), page.fields)
    extras = [text for text, offered in (("time", found.has_time), ("markets", found.has_exchange_info)) if offered]
    also = f"; it also tells {' and '.join(extras)}" if extras else ""
    told = f"mode {found.mode}: {_MODES[found.mode]}{also}"
    if found.trades.offered is None:
        found_now = f"{told}; myTrades gave no clear answer"
        return Finding(f"{name}: recovery", "warning", found_now, "`run` asks again within minutes")
    return Finding(f"{name}: recovery", "ok", told)


async def _database(settings: Settings) -> list[Finding]:
    if settings.database_url is None and not app.has_cluster(settings):
        # Whether PostgreSQL can run here is tried elsewhere: who only looks leaves no data folder behind.
        with tempfile.TemporaryDirectory(prefix="sdx-ledger-doctor-") as folder:
            return await _database_of(settings.model_copy(update={"data_dir": Path(folder) / "data"}))
    return await _database_of(settings)


async def _database_of(settings: Settings) -> list[Finding]:
    is_there = settings.database_url is not None or app.has_cluster(settings)
    opened = app.existing_database if is_there else app.database
    try:
        async with opened(settings) as db, postgres.reading(db.reader_url) as conn:
            version = await conn.fetchval("SELECT current_setting('server_version')")
            where = "embedded" if db.embedded else "SDX_DATABASE_URL"
            finding = Finding("database", "ok", f"PostgreSQL {version} ({where}), durable settings")
            try:
                await postgres.check_schema(conn)
            except NoLedger:
                return [Finding("database", "ok", f"PostgreSQL {version} ({where}), empty: `run` makes the schema")]
            except DatabaseError as error:
                return [finding, Finding("schema", "failed", str(error), "run: sdx-ledger db upgrade", 5)]
            return [finding, Finding("schema", "ok", f"version {code.NEWEST}"), *await _doors(conn)]
    except LedgerError as error:
        return [Finding("database", "failed", str(error), "start the server or correct the setting", error.exit_code)]


_PUBLIC_IS_OPEN = """
    SELECT EXISTS (
        SELECT FROM pg_namespace n CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')
"""


async def _doors(conn: Any) -> list[Finding]:
    """Others may create functions and tables in ``public``, where no name of ours is looked for; nothing if not."""
    if not await conn.fetchval(_PUBLIC_IS_OPEN):
        return []
    return [
        Finding(
            "schema public",
            "warning",
            "every role may create functions there, which other programs' sessions would run under their own rights",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC (databases made by PostgreSQL 14 or older have it open)",
        )
    ]


def _tcp(settings: Settings) -> list[Finding]:
    """Where SQL clients reach the embedded server over TCP, or could; nothing where none was asked for."""
    wanted, listen = settings.pg_listen, embedded.running_listen(settings.data_dir)
    if listen is None and wanted is not None and embedded.running_url(settings.data_dir) is None:
        try:
            pg_listen.refuse_taken(wanted)
        except ConfigError as error:
            return [Finding("SQL over TCP", "failed", str(error), "set SDX_PG_LISTEN to a free port", error.exit_code)]
        return [Finding("SQL over TCP", "ok", f"{wanted} is free; `run` listens on it")]
    if listen != wanted:
        found = f"the server that runs listens on {listen or 'no port'}, SDX_PG_LISTEN here is {wanted or 'not set'}"
        return [Finding("SQL over TCP", "warning", found, "start the service again with the setting you want")]
    if listen is None:
        return []
    return [Finding("SQL over TCP", "ok", f"{listen}, for {embedded.READER} with its password: `db url --tcp`")]


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {settings.data_dir}"
    if free < DISK_FREE_MIN:
        return Finding("disk", "failed", found, "free some space or set SDX_DATA_DIR: a full disk stops PostgreSQL", 5)
    return Finding("disk", "ok", found)
