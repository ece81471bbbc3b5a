"""The only place that builds things: settings in, a running mirror out.

Always holds: everything started here is stopped here, in reverse order, whatever happens in between; once the service
runs, one account that fails never stops another.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog

from ledger.config import AccountSettings, Settings
from ledger.db import coverage, reads
from ledger.errors import ConfigError, DatabaseError, KeyRefused, VenueBusy, VenueError, VenueRefused
from ledger.facts.types import Order, Snapshot
from ledger.reconcile import check
from ledger.reconcile import runner as reconcile
from ledger.reconcile.plan import Scope
from ledger.reconcile.probe import FIRST_SYMBOL
from ledger.reconcile.runner import Outcome, Progress, Reconciler
from ledger.stream import consumer as stream
from ledger.stream.consumer import Consumer
from ledger.stream.lease import ListenKeyLease
from ledger.venue import requests, rest_pages
from ledger.wire import postgres
from ledger.wire.budget import Budget
from ledger.wire.clock import Clock
from ledger.wire.embedded import WRITER, Embedded
from ledger.wire.http import VenueHttp
from ledger.wire.postgres import Writer

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 8.0
"""A stop as a whole takes at most ten seconds; the rest is for leaving the hard way."""
FIRST_CONTACT_S = 5.0
ACCOUNT_PAUSE_S = 30.0
"""How long an account that failed rests before it is started again."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where the ledger is: URLs for the service, for migrations and for readers."""

    writer_url: str
    owner_url: str
    reader_url: str
    embedded: bool


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The configured database, or the embedded PostgreSQL for as long as this block lasts. Raises DatabaseError."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        owner = settings.owner_database_url.get_secret_value() if settings.owner_database_url else url
        reader = settings.read_database_url.get_secret_value() if settings.read_database_url else url
        yield Database(url, owner, reader, embedded=False)
        return
    async with Embedded(settings.data_dir) as server:
        owner = server.url()
        writer = server.url(user=WRITER)
        reader = settings.read_database_url.get_secret_value() if settings.read_database_url else writer
        yield Database(writer, owner, reader, embedded=True)


async def ready(db: Database) -> None:
    """Bring the schema up to date where we may, else refuse one this program was not made for. Raises DatabaseError."""
    refusal: DatabaseError | None = None
    try:
        await postgres.upgrade(db.owner_url)
    except DatabaseError as error:
        refusal = error
    async with postgres.reading(db.writer_url, application="sdx-ledger check") as conn:
        try:
            await postgres.check_schema(conn)
        except DatabaseError as error:
            told = refusal is None or str(refusal) == str(error)
            raise error if told else DatabaseError(f"{error} ({refusal})") from None


def fingerprint(settings: Settings, account: AccountSettings) -> str:
    """Keyed hash of the API key: tells whether it is the same key without keeping it."""
    _, secret = keys(account)
    key = account.api_key.get_secret_value() if account.api_key else ""
    return hmac.new(secret.encode(), f"{origin(settings)} {key}".encode(), hashlib.sha256).hexdigest()[:32]


def origin(settings: Settings) -> str:
    """Scheme, host and port of the REST API: an account belongs to one for ever."""
    parts = urlsplit(settings.rest_url)
    return f"{parts.scheme}://{parts.netloc}"


def keys(account: AccountSettings) -> tuple[str, str]:
    """API key and secret. Raises ConfigError naming what is missing."""
    if account.api_key is None or account.api_secret is None:
        missing = "SDX_API_KEY" if account.api_key is None else "SDX_API_SECRET"
        raise ConfigError(
            f"{missing}: not set for account '{account.name}'; set it or {missing}_FILE, to a key that only reads"
        )
    return account.api_key.get_secret_value(), account.api_secret.get_secret_value()


@asynccontextmanager
async def venue_http(
    settings: Settings, account: AccountSettings, clock: Clock, budget: Budget | None = None
) -> AsyncIterator[VenueHttp]:
    """A REST client for one account. ``budget`` is shared: the venue counts weight per address, not per account."""
    key, secret = keys(account)
    http = VenueHttp(settings.rest_url, key, secret, clock, budget=budget or Budget(settings.weight_per_minute))
    try:
        yield http
    finally:
        await http.close()


class Mirror:
    """One account's mirror: its stream, its reconciler and what they share."""

    def __init__(
        self, settings: Settings, account: AccountSettings, db: Database, http: VenueHttp, clock: Clock
    ) -> None:
        self.name = account.name
        self._settings = settings
        self._account = account
        self._clock = clock
        self._http = http
        self._admin = Writer(db.writer_url, application=f"sdx-ledger {account.name}")
        self._stream_writer = Writer(db.writer_url, application=f"sdx-ledger stream {account.name}")
        self._reconcile_writer = Writer(db.writer_url, application=f"sdx-ledger reconcile {account.name}")
        self.lease = ListenKeyLease(http, clock, keepalive_s=settings.keepalive_s, ttl_s=settings.listen_key_ttl_s)
        self.consumer = self._new_consumer()
        self.reconciler = Reconciler(
            account.name,
            reconcile.Rules(
                rest_lag_s=settings.rest_lag_s,
                every_s=settings.reconcile_every_s,
                symbols=account.symbols,
                history_start_ms=account.history_start_ms,
            ),
            http,
            self._reconcile_writer,
            clock,
        )

    def _new_consumer(self) -> Consumer:
        return Consumer(
            self.name,
            stream.Rules(
                stream_url=self._settings.stream_url,
                silence_s=self._settings.silence_s,
                max_age_s=self._settings.connection_max_age_s,
                rest_lag_s=self._settings.rest_lag_s,
                sockets=self._settings.sockets,
            ),
            self.lease,
            self._stream_writer,
            self._clock,
        )

    async def register(self, *, adopt_key: bool = False) -> None:
        """Make the account known, obey a ban that outlived a restart, and recognise the account behind a new key.

        Raises ConfigError when this database's account is another one.
        """
        known = await self._admin.run(
            lambda conn: coverage.register(
                conn, self.name, rest_origin=origin(self._settings), key_fingerprint=self._fingerprint()
            )
        )
        until_ms = await self._admin.run(lambda conn: reads.blocked_until_ms(conn, self.name))
        if until_ms is not None:
            self._http.block_until(until_ms)
        self._http.on_blocked = self._remember_block
        if known.key_fingerprint != self._fingerprint():
            if not adopt_key and not await self._recognises():
                raise ConfigError(
                    f"SDX_API_KEY: this key is new to account '{self.name}' and neither an order nor the balances "
                    "behind it are known here; if it is the same account, run once with --adopt-key"
                )
            await self._admin.run(lambda conn: coverage.adopt_key(conn, self.name, self._fingerprint()))

    async def first_contact(self) -> None:
        """Ask something signed once: a wrong key stops the start (KeyRefused), a venue that is away does not."""
        try:
            async with asyncio.timeout(FIRST_CONTACT_S):
                await self._http.send(requests.open_orders(FIRST_SYMBOL))
        except (VenueBusy, TimeoutError) as error:
            log.warning("venue does not answer yet, going on", account=self.name, error=str(error) or "no answer")
        except VenueRefused as refused:
            if isinstance(refused, KeyRefused):
                raise

    async def run(self) -> None:
        """Mirror until cancelled, then leave things tidy."""
        self.consumer = self._new_consumer()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.consumer.run())
                tasks.create_task(self.reconciler.run())
        finally:
            if self._settings.release_key:
                await self._release()
            await self.close()

    async def close(self) -> None:
        """Close the database connections."""
        for writer in (self._admin, self._stream_writer, self._reconcile_writer):
            await writer.close()

    async def heal_once(
        self, *, since_ms: int | None, symbols: tuple[str, ...], on_progress: Callable[[Progress], None] | None
    ) -> Outcome:
        """One pass for the ``reconcile`` command: what is uncovered until now, and every gap that is open."""
        now_ms = self._clock.venue_now_ms()
        if not symbols:
            await self._reconcile_writer.run(
                lambda conn: coverage.open_gap(
                    conn, self.name, cause="asked for", until_ms=now_ms, not_after_ms=since_ms, live=False
                )
            )
            gaps = await self._reconcile_writer.run(lambda conn: coverage.open_gaps(conn, self.name))
            return await self.reconciler.heal(gaps, on_progress=on_progress)
        scope = Scope(since_ms, symbols, strict=True)
        return await self.reconciler.walk(scope, gap=None, on_progress=on_progress)

    def _fingerprint(self) -> str:
        return fingerprint(self._settings, self._account)

    async def _remember_block(self, until_ms: int) -> None:
        await self._admin.run(lambda conn: coverage.set_block(conn, self.name, until_ms))

    async def _recognises(self) -> bool:
        """Whether the account behind the key is the one mirrored here: a known order, or the very same balances."""
        ours = await self._admin.run(lambda conn: reads.balances(conn, self.name))
        request = requests.account()
        page = rest_pages.read(request, (await self._http.send_patiently(request)).body)
        snapshot = next((fact for fact in page.facts if isinstance(fact, Snapshot)), None)
        holds_something = any(free + locked for free, locked in ours.values())
        if snapshot is not None and holds_something and not check.compare(ours, snapshot):
            return True
        request = requests.open_orders()
        page = rest_pages.read(request, (await self._http.send_patiently(request)).body)
        keys_there = [(fact.symbol, fact.order_id) for fact in page.facts if isinstance(fact, Order)]
        return await self._admin.run(lambda conn: reads.knows_any_order(conn, self.name, keys_there))

    async def _release(self) -> None:
        try:
            await asyncio.wait_for(self.lease.release(), STOP_WITHIN_S / 3)
        except (VenueError, TimeoutError) as error:
            log.warning("listen key not released, it lapses by itself", account=self.name, error=str(error))


@asynccontextmanager
async def mirrors(
    settings: Settings, db: Database, *, adopt_key: bool = False, clock: Clock | None = None
) -> AsyncIterator[list[Mirror]]:
    """Every configured account, registered and ready to run."""
    async with AsyncExitStack() as stack:
        made: list[Mirror] = []
        budget = Budget(settings.weight_per_minute)
        for account in settings.all_accounts():
            its_clock = clock or Clock()
            http = await stack.enter_async_context(venue_http(settings, account, its_clock, budget))
            mirror = Mirror(settings, account, db, http, its_clock)
            stack.push_async_callback(mirror.close)
            await mirror.register(adopt_key=adopt_key)
            made.append(mirror)
        yield made


async def run(settings: Settings, stop: asyncio.Event, *, adopt_key: bool = False) -> None:
    """The service: every configured account, until ``stop`` is set, be it still starting.

    Raises LedgerError when it cannot start.
    """
    for account in settings.all_accounts():
        keys(account)
    await until(stop, [asyncio.create_task(_mirror_all(settings, adopt_key=adopt_key))])
    log.info("service stopped")


async def _mirror_all(settings: Settings, *, adopt_key: bool) -> None:
    async with database(settings) as db:
        await ready(db)
        async with mirrors(settings, db, adopt_key=adopt_key) as all_mirrors:
            for mirror in all_mirrors:
                await mirror.first_contact()
            log.info("service started", accounts=[mirror.name for mirror in all_mirrors], embedded=db.embedded)
            async with asyncio.TaskGroup() as tasks:
                for mirror in all_mirrors:
                    tasks.create_task(keep_running(mirror))


async def keep_running(mirror: Mirror) -> None:
    """Run one account; when it fails in a way nobody foresaw, say so, rest, and start it again."""
    while True:
        try:
            await mirror.run()
        except* Exception as errors:
            log.exception("account failed, starting it again", account=mirror.name, errors=str(errors))
        await asyncio.sleep(ACCOUNT_PAUSE_S)


async def until(stop: asyncio.Event, tasks: list[asyncio.Task[Any]]) -> None:
    """Let the tasks run until ``stop`` is set or one ends; then stop them all, within a bound."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((stopping, *tasks), return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        task.cancel()
    done, late = await asyncio.wait((stopping, *tasks), timeout=STOP_WITHIN_S)
    if late:
        log.error("not everything stopped in time; what was not written is a gap at the next start", tasks=len(late))
    for task in done - {stopping}:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
