"""The only place that builds things: settings in, a running mirror out.

Always holds: everything started here is stopped here, in reverse order, whatever happens in between; of several
accounts one that fails never stops another, at the start neither; of several processes on one account one writes and
the others stand by.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import structlog

from ledger import config, quarantine, verify
from ledger.config import AccountSettings, Settings
from ledger.db import accounts, coverage, leader, reads
from ledger.db.leader import Candidate
from ledger.errors import (
    ConfigError,
    DatabaseError,
    Fenced,
    KeyRefused,
    LedgerError,
    NoLedger,
    VenueBusy,
    VenueError,
    VenueRefused,
    WentBack,
)
from ledger.facts.types import Order, Snapshot
from ledger.reconcile import check
from ledger.reconcile import runner as reconcile
from ledger.reconcile.probe import FIRST_SYMBOL
from ledger.reconcile.runner import Outcome, Progress, Reconciler
from ledger.stream import consumer as stream
from ledger.stream.consumer import Consumer
from ledger.stream.lease import ListenKeyLease
from ledger.venue import requests, rest_pages
from ledger.venue.requests import Security
from ledger.wire import embedded, heads, postgres
from ledger.wire.budget import Budget
from ledger.wire.clock import Clock
from ledger.wire.embedded import OWNER, READER, WRITER, Embedded
from ledger.wire.heads import Head
from ledger.wire.http import VenueHttp
from ledger.wire.postgres import Writer
from ledger.wire.tip import Tip

if TYPE_CHECKING:
    from ledger import replay

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 8.0
"""A stop as a whole takes at most ten seconds; the rest is for leaving the hard way."""
FIRST_CONTACT_S = 5.0
LEAVE_S = 1.0
"""How long a stop waits for the database to take the lead back."""
CLOCK_EVERY_S = 5.0
"""How often an answer that contradicts our clock is followed up, the first two minutes; a tenth as often after that."""
ACCOUNT_PAUSE_S = 30.0
"""How long an account that failed rests before it is started again."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where the ledger is: URLs for the service, for migrations and for readers."""

    writer_url: str
    owner_url: str
    reader_url: str
    embedded: bool
    is_guest: bool = False
    """Whether another user runs the server: what only looks does so as the reader then."""

    @property
    def newest_url(self) -> str:
        """For who looks at what was written last, which a replica for readers may not have yet."""
        return self.reader_url if self.is_guest else self.writer_url


@asynccontextmanager
async def database(settings: Settings, *, listen: bool = False) -> AsyncIterator[Database]:
    """The configured database, or the embedded PostgreSQL for as long as this block lasts; ``listen``: over TCP too,
    where SDX_PG_LISTEN asks for it. Raises DatabaseError, ConfigError."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        owner = settings.owner_database_url.get_secret_value() if settings.owner_database_url else url
        reader = settings.read_database_url.get_secret_value() if settings.read_database_url else url
        yield Database(url, owner, reader, embedded=False)
        return
    async with Embedded(settings.data_dir, listen=settings.pg_listen if listen else None) as server:
        owner = server.url()
        writer = server.url(user=WRITER)
        reader = settings.read_database_url.get_secret_value() if settings.read_database_url else writer
        yield Database(writer, owner, reader, embedded=True)


@asynccontextmanager
async def existing_database(settings: Settings, *, writes: bool = False) -> AsyncIterator[Database]:
    """``database``, for who finds it there: where there is none, none is made, and NoLedger is raised.

    The embedded server of another user is looked at as a guest while it runs, and ``writes`` there are root's alone.
    Raises DatabaseError.
    """
    if settings.database_url is None and not has_cluster(settings):
        raise NoLedger(f"no ledger in {settings.data_dir} yet; start one with: sdx-ledger run")
    if settings.database_url is None and embedded.is_of_another(settings.data_dir):
        yield await _as_guest(settings, writes=writes)
        return
    async with database(settings) as db:
        yield db


async def _as_guest(settings: Settings, *, writes: bool) -> Database:
    if writes and os.geteuid() != 0:
        raise DatabaseError(
            f"the ledger in {settings.data_dir} is another user's, where this command is for that user and for root "
            "(sudo)"
        )
    url = await embedded.guest_of(settings.data_dir)
    return Database(url(WRITER), url(OWNER), url(READER), embedded=True, is_guest=True)


def has_cluster(settings: Settings) -> bool:
    """Whether an embedded server was made under the data folder; True too where that cannot be seen."""
    try:
        (settings.data_dir / "pg" / "PG_VERSION").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


async def upgrade(db: Database, *, anew: bool = False) -> str:
    """Bring the schema to this program's version, which is returned, and try again what is quarantined: the new
    version may take it. Raises DatabaseError."""
    from ledger.wire import schema  # brings SQLAlchemy and Alembic, 30 MB that no reading command needs

    was_current = not anew and await schema.is_current(db.owner_url)
    version = await schema.upgrade(db.owner_url, anew=anew)
    if not was_current:
        try:
            await retry_quarantined(db.owner_url, None)
        except DatabaseError as error:  # the schema is current all the same
            log.error("not everything that is quarantined could be tried", error=str(error))
    return version


async def retry_quarantined(url: str, account: str | None) -> list[quarantine.Retried]:
    """Apply again what is quarantined, of one account or of all, as the role of ``url``."""
    writer = Writer(url, application="sdx-ledger quarantine")
    try:
        return await quarantine.retry(writer, account, now_ms=Clock().now_ms())
    finally:
        await writer.close()


async def ready(db: Database) -> None:
    """Bring the schema up to date where we may, else refuse one this program was not made for. Raises DatabaseError."""
    refusal: DatabaseError | None = None
    try:
        await upgrade(db)
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
    """Scheme, host and port of the REST API: an account belongs to the first that accepted its key, for ever."""
    parts = urlsplit(settings.rest_url)
    return f"{parts.scheme}://{parts.netloc}"


def keys(account: AccountSettings) -> tuple[str, str]:
    """API key and secret. Raises ConfigError naming what is missing."""
    if account.api_key is None or account.api_secret is None:
        missing = "SDX_API_KEY" if account.api_key is None else "SDX_API_SECRET"
        raise ConfigError(
            f"{missing}: not set for account '{account.name}' ({config.looked_at()}); set it or {missing}_FILE, to a "
            "key that only reads"
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
    """One account's mirror: its stream, its reconciler and what they share.

    ``consumer``, ``reconciler`` and ``lease`` are those of the newest lead; before the first, unfenced ones.
    """

    def __init__(
        self, settings: Settings, account: AccountSettings, db: Database, http: VenueHttp, clock: Clock
    ) -> None:
        self.name = account.name
        self._settings = settings
        self._account = account
        self._clock = clock
        self._http = http
        self._admin = Writer(db.writer_url, application=f"sdx-ledger {account.name}", account=account.name)
        self._tip = Tip(
            account.name,
            clock,
            rest_lag_s=settings.rest_lag_s,
            register=self._register_again,
            is_up=lambda: self.consumer.is_up,
        )
        self._stream_writer = Writer(
            db.writer_url, application=f"sdx-ledger stream {account.name}", account=account.name, tip=self._tip
        )
        self._reconcile_writer = Writer(
            db.writer_url, application=f"sdx-ledger reconcile {account.name}", account=account.name, tip=self._tip
        )
        self._lead_writer = Writer(db.writer_url, application=f"sdx-ledger lead {account.name}", account=account.name)
        self._heads = heads.Keeper(settings.data_dir, account.name)
        self._head_writer = Writer(db.writer_url, application=f"sdx-ledger head {account.name}", account=account.name)
        self.leads = False
        """Whether this process is the one that writes, as far as it knows."""
        self.lease = self._new_lease()
        self.consumer = self._new_consumer(None)
        self.reconciler = self._new_reconciler(None)

    def _new_lease(self) -> ListenKeyLease:
        return ListenKeyLease(
            self._http, self._clock, keepalive_s=self._settings.keepalive_s, ttl_s=self._settings.listen_key_ttl_s
        )

    def _new_consumer(self, fence: int | None) -> Consumer:
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
            fence=fence,
        )

    def _new_reconciler(self, fence: int | None) -> Reconciler:
        return Reconciler(
            self.name,
            reconcile.Rules(
                rest_lag_s=self._settings.rest_lag_s,
                every_s=self._settings.reconcile_every_s,
                symbols=self._account.symbols,
                history_start_ms=self._account.history_start_ms,
                assets_of=self._settings.assets_of,
            ),
            self._http,
            self._reconcile_writer,
            self._clock,
            fence=fence,
            on_missed=lambda since_ms: self.consumer.doubt(since_ms),
        )

    async def register(self, *, adopt_key: bool = False) -> None:
        """Make the account known, obey a ban that outlived a restart, and recognise the account behind a new key.

        Raises ConfigError when this database's account is another one.
        """
        known = await self._admin.run(lambda conn: coverage.register(conn, self.name))
        coverage.belongs(known, self.name, origin(self._settings))
        # What a process that was killed said last; whoever is paused now says it again in a moment.
        await self._admin.run(lambda conn: coverage.set_paused(conn, self.name, None))
        self._clock.vouch("the database", await self._admin.run(reads.clock_ms))
        await self._obey_block()
        self._http.on_blocked = self._remember_block
        self._http.on_accepted = self._claim
        if known.key_fingerprint not in (None, self._fingerprint()):
            # Where nothing is mirrored yet any key is as good: the one before may have been mistyped.
            if known.head_seq and not adopt_key and not await self._recognises():
                raise ConfigError(
                    f"SDX_API_KEY: this key is new to account '{self.name}' and neither an order nor the balances "
                    "behind it are known here; if it is the same account, run once with --adopt-key"
                )
            await self._admin.run(lambda conn: coverage.adopt_key(conn, self.name, self._fingerprint()))

    async def _claim(self, security: Security) -> None:
        """The venue has accepted the key: the account belongs to it from now on, before anything it says is kept.

        The secret is proven by a signed call alone. Raises ConfigError when another venue was first.
        """
        key_fingerprint = self._fingerprint() if security == "signed" else None
        await self._admin.run(
            lambda conn: coverage.register(
                conn, self.name, rest_origin=origin(self._settings), key_fingerprint=key_fingerprint
            )
        )

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
        """Stand by until nobody leads, mirror until another leads, and again, until cancelled."""
        while True:
            who = Candidate(self.name, uuid4(), f"{platform.node()}, process {os.getpid()}")
            await self._lead(who, await self._stand_by(who))

    async def _stand_by(self, who: Candidate) -> int:
        """Wait until this process leads; returns its fence. The venue is asked nothing meanwhile."""
        told: str | None = None
        patient_until_s = 0.0
        while True:
            asked_s = self._clock.monotonic_s()
            led_by = await self._lead_writer.run(lambda conn: leader.led_by(conn, self.name))
            now_s = self._clock.monotonic_s()
            if now_s - asked_s > leader.RENEW_S:
                # The database was away, so the lease may have lapsed under a leader in good health: it goes first.
                patient_until_s = now_s + leader.TTL_S
            if led_by is not None and led_by != told:
                told = led_by
                log.info("standing by", account=self.name, led_by=led_by)
            if led_by is None and now_s >= patient_until_s:
                if self._tip.seq:
                    # A database that went back may not even know the account.
                    await self._lead_writer.run(self._register_again)
                fence = await self._lead_writer.run(lambda conn: leader.take(conn, who))
                if fence is not None:
                    return fence
            await self._clock.sleep(leader.POLL_S)

    async def _lead(self, who: Candidate, fence: int) -> None:
        """Mirror under this fence, until cancelled or until another leads. Any other failure is an ExceptionGroup."""
        log.info("leading", account=self.name, fence=fence)
        self.leads = True
        await self._obey_block()
        self._tip.fence = fence
        self._stream_writer.go_on()
        self._reconcile_writer.go_on()
        self.consumer, self.reconciler = self._new_consumer(fence), self._new_reconciler(fence)
        looked = asyncio.Event()
        parts = [
            asyncio.create_task(part)
            for part in (
                self._follow_stream(looked),
                self._reconcile(fence, looked),
                self._keep_lead(who, fence),
                self._keep_heads(),
                self._keep_clock(),
            )
        ]
        lost: Fenced | None = None
        failures: list[Exception] = []
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for error in await _ended(parts):
                if isinstance(error, Fenced):
                    lost = error
                else:
                    failures.append(error)
                    log.error("a part of the account failed", account=self.name, error=repr(error))
            self.leads = False
            if lost is None:
                await self._leave(who, fence)
        if failures:
            raise ExceptionGroup(f"account {self.name} failed", failures)
        log.warning("another process leads, nothing more is written here", account=self.name, error=str(lost))
        # What the key's deadline says of the past is the other leader's business now.
        self.lease = self._new_lease()

    async def _follow_stream(self, looked: asyncio.Event) -> None:
        """Mirror the stream, once it is known that the database holds what the head kept outside it says."""
        try:
            head = await self._head_writer.run(self._lost_head)
        except (OSError, LedgerError) as error:
            log.error("the head kept outside the database tells nothing", account=self.name, error=str(error))
            head = None
        if head is not None:
            self._tip.expect(head.seq, bytes.fromhex(head.digest))
            with suppress(WentBack):
                await self._stream_writer.run(self._tip.check)
            self._stream_writer.go_on()
        looked.set()
        await self.consumer.run()

    async def _lost_head(self, conn: Any) -> Head | None:
        """The head kept outside, where the database's journal is shorter: it was restored, or failed over."""
        head = await heads.read(conn, self._settings.data_dir, self.name)
        if head is None or head.seq <= await reads.head_seq(conn, self.name):
            return None
        return head if await reads.lost_row(conn, self.name, head.seq) is None else None

    async def _reconcile(self, fence: int, looked: asyncio.Event) -> None:
        """Reconcile; after the database went back with nothing in mind of what it was."""
        await looked.wait()
        while True:
            self._reconcile_writer.go_on()
            try:
                await self.reconciler.run()
            except WentBack as error:
                log.warning("reconciling begins anew", account=self.name, error=str(error))
                self.reconciler = self._new_reconciler(fence)

    async def _register_again(self, conn: Any) -> object:
        return await coverage.register(
            conn, self.name, rest_origin=origin(self._settings), key_fingerprint=self._fingerprint()
        )

    async def _keep_lead(self, who: Candidate, fence: int) -> None:
        """Renew the lead for as long as it is ours. Raises Fenced once it is not.

        Nothing is given up while no renewal gets through: until another leads, this process is the right one, and from
        that moment on the database refuses its writes.
        """
        while await self._lead_writer.run(lambda conn: leader.keep(conn, who, fence)):
            await self._clock.sleep(leader.RENEW_S)
        raise Fenced(f"account {self.name} is led under a later number than {fence}")

    async def _keep_clock(self) -> None:
        """Follow up answers that contradict our clock until it is clear which of the two is wrong."""
        while True:
            patient = self._clock.doubted_for_s > 24 * CLOCK_EVERY_S
            await self._clock.sleep(CLOCK_EVERY_S * (10 if patient else 1))
            if self._clock.is_doubted:
                try:
                    await self._http.measure_offset()
                except VenueError as error:
                    log.info("the venue's clock could not be measured now", account=self.name, error=str(error))

    async def _keep_heads(self) -> None:
        """Keep the end of the journal outside the database too, for as long as this process leads."""
        while True:
            await self._clock.sleep(heads.EVERY_S)
            await self._keep_head()
            self._clock.vouch("the database", await self._head_writer.run(reads.clock_ms))

    async def _keep_head(self) -> None:
        now_ms, generation = self._clock.now_ms(), self._tip.generation
        kept = await self._head_writer.run(lambda conn: self._heads.follow(conn, now_ms))
        if kept is not None and generation == self._tip.generation:
            self._tip.expect(kept.seq, bytes.fromhex(kept.digest))

    async def _leave(self, who: Candidate, fence: int) -> None:
        """Let a standby lead at once. The listen key goes first: a standby would ask for the same one."""
        if self._settings.release_key:
            await self._release()
        if self._lead_writer.away:
            return  # the lead lapses by itself
        try:
            await asyncio.wait_for(self._lead_writer.run(lambda conn: leader.leave(conn, who, fence)), LEAVE_S)
            await asyncio.wait_for(self._keep_head(), LEAVE_S)
        except TimeoutError:
            log.warning("the lead was not given back, it lapses by itself", account=self.name)

    async def close(self) -> None:
        """Close the database connections."""
        for writer in (self._admin, self._stream_writer, self._reconcile_writer, self._lead_writer, self._head_writer):
            await writer.close()

    async def heal_once(
        self, *, since_ms: int | None, symbols: tuple[str, ...], on_progress: Callable[[Progress], None] | None
    ) -> Outcome:
        """One pass for the ``reconcile`` command: what is uncovered until now, and every gap that is open."""
        now_ms = self._clock.venue_now_ms()
        if not symbols:
            await self._reconcile_writer.run(
                lambda conn: coverage.open_gap(
                    conn,
                    self.name,
                    cause=coverage.ASKED_FOR,
                    until_ms=now_ms,
                    not_after_ms=since_ms,
                    live=False,
                    now_ms=now_ms,
                    trail_ms=self._clock.trail_ms(self._settings.rest_lag_s),
                )
            )
            gaps = await self._reconcile_writer.run(lambda conn: coverage.open_gaps(conn, self.name))
            return await self.reconciler.heal(gaps, on_progress=on_progress)
        return await self.reconciler.heal_symbols(symbols, since_ms, on_progress=on_progress)

    def _fingerprint(self) -> str:
        return fingerprint(self._settings, self._account)

    async def _obey_block(self) -> None:
        """Be silent for as long as the venue asked, whichever process it told so."""
        until_ms = await self._admin.run(lambda conn: reads.blocked_until_ms(conn, self.name))
        if until_ms is not None:
            self._http.block_until(until_ms)

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


async def _ended(parts: list[asyncio.Task[None]]) -> list[Exception]:
    """Stop them all; what those that failed failed with."""
    for part in parts:
        part.cancel()
    await asyncio.wait(parts)
    errors = [part.exception() for part in parts if not part.cancelled()]
    return [error for error in errors if isinstance(error, Exception)]


def _leaves(error: Exception) -> list[Exception]:
    """The failures themselves, out of the groups they came in."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


@asynccontextmanager
async def mirror_of(
    settings: Settings,
    account: AccountSettings,
    db: Database,
    *,
    budget: Budget | None = None,
    adopt_key: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator[Mirror]:
    """One account, registered and ready to run. Raises LedgerError when it cannot be."""
    its_clock = clock or Clock()
    async with venue_http(settings, account, its_clock, budget) as http:
        mirror = Mirror(settings, account, db, http, its_clock)
        try:
            await mirror.register(adopt_key=adopt_key)
            yield mirror
        finally:
            await mirror.close()


@asynccontextmanager
async def mirrors(
    settings: Settings, db: Database, *, adopt_key: bool = False, clock: Clock | None = None
) -> AsyncIterator[list[Mirror]]:
    """Every configured account, registered and ready to run: all of them, or a LedgerError."""
    budget = Budget(settings.weight_per_minute)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                mirror_of(settings, account, db, budget=budget, adopt_key=adopt_key, clock=clock)
            )
            for account in settings.all_accounts()
        ]


async def run(settings: Settings, stop: asyncio.Event, *, adopt_key: bool = False) -> None:
    """The service: every configured account, until ``stop`` is set, be it still starting.

    Raises LedgerError when it cannot start: the database, or the account where there is one only.
    """
    if len(settings.all_accounts()) == 1:
        keys(settings.all_accounts()[0])
    await until(stop, [asyncio.create_task(_mirror_all(settings, adopt_key=adopt_key))])
    log.info("service stopped")


async def _mirror_all(settings: Settings, *, adopt_key: bool) -> None:
    accounts = settings.all_accounts()
    async with database(settings, listen=True) as db:
        await ready(db)
        log.info(
            "service started",
            accounts=[account.name for account in accounts],
            embedded=db.embedded,
            see="sdx-ledger status",
        )
        budget = Budget(settings.weight_per_minute)
        if len(accounts) == 1:
            await keep_running(settings, accounts[0], db, budget=budget, adopt_key=adopt_key, alone=True)
            return
        async with asyncio.TaskGroup() as tasks:
            for account in accounts:
                tasks.create_task(keep_running(settings, account, db, budget=budget, adopt_key=adopt_key))


async def keep_running(
    settings: Settings,
    account: AccountSettings,
    db: Database,
    *,
    budget: Budget | None = None,
    adopt_key: bool = False,
    alone: bool = False,
) -> None:
    """Mirror one account; when it fails, whatever the reason, say so, rest, and start it again.

    An account that is ``alone`` and cannot even start has nothing to go on for: its error is raised.
    """
    started = False
    while True:
        try:
            async with mirror_of(settings, account, db, budget=budget, adopt_key=adopt_key) as mirror:
                await mirror.first_contact()
                started = True
                await mirror.run()
        except Exception as error:
            if alone and not started:
                raise
            await _tell(db, account.name, error)
        await asyncio.sleep(ACCOUNT_PAUSE_S)


async def _tell(db: Database, account: str, error: Exception) -> None:
    """Say in the log and in ``status`` why an account failed. Raises nothing: the others go on."""
    leaves = _leaves(error)
    foreseen = all(isinstance(leaf, LedgerError) for leaf in leaves)
    # What nobody foresaw may quote anything, a secret too: its words are for the log, which hides those.
    words = str(leaves[0]) if foreseen else f"failed ({type(leaves[0]).__name__}), the log tells more"
    log.error(
        "account failed, starting it again",
        account=account,
        error=str(leaves[0]),
        pause_s=ACCOUNT_PAUSE_S,
        exc_info=None if foreseen else error,
    )
    writer = Writer(db.writer_url, application=f"sdx-ledger {account}")
    try:
        async with asyncio.timeout(ACCOUNT_PAUSE_S):
            await writer.run(lambda conn: coverage.set_error(conn, account, words))
    except Exception as refused:
        log.error("its error could not be kept", account=account, error=str(refused))
    finally:
        await writer.close()


async def verify_all(
    settings: Settings, db: Database, account: str | None, *, strict: bool, against_venue: bool
) -> list[verify.Report]:
    """Every check over this account, or over all that are mirrored here; ``against_venue``: over the venue too.

    Raises ConfigError, DatabaseError or VenueError; what is broken is in the reports.
    """
    clock = Clock()
    reports: list[verify.Report] = []
    async with postgres.reading(db.newest_url, application="sdx-ledger verify") as conn:
        await postgres.check_schema(conn)
        for name in await accounts.named(conn, account):
            head = await heads.read(conn, settings.data_dir, name)
            report = await verify.verify(conn, name, now_ms=clock.now_ms(), head=head, strict=strict)
            if against_venue:
                found = await _ask_venue(settings, conn, name, clock)
                report = replace(report, verdicts=(*report.verdicts, *found))
            reports.append(report)
    return reports


async def _ask_venue(settings: Settings, conn: Any, name: str, clock: Clock) -> tuple[verify.Verdict, ...]:
    account = next((one for one in settings.all_accounts() if one.name == name), None)
    if account is None:
        raise ConfigError(f"SDX_ACCOUNT: no key is configured for account '{name}', so its venue cannot be asked")
    async with venue_http(settings, account, clock) as http:
        until_ms = await reads.blocked_until_ms(conn, name)
        if until_ms is not None:
            http.block_until(until_ms)
        return await verify.against_venue(conn, http, clock, name, rest_lag_s=settings.rest_lag_s)


async def replay_all(db: Database, account: str | None, *, swap: bool) -> list[replay.Result]:
    """The journal of this account, or of all, told again and compared. Raises DatabaseError unless run as the owner."""
    from ledger import replay  # brings SQLAlchemy

    async with AsyncExitStack() as stack:
        reader, writer, holder = [
            await stack.enter_async_context(
                postgres.reading(db.owner_url, application="sdx-ledger replay", writes=True)
            )
            for _ in range(3)
        ]
        await postgres.check_schema(reader)
        names = await accounts.named(reader, account)
        await stack.enter_async_context(replay.scratch(writer))
        return [await replay.replay(reader, writer, holder, name, swap=swap) for name in names]


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
