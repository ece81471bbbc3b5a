"""The demo: a sandbox venue per dialect, a real PostgreSQL, live mirrors, lost connections, healed gaps, a proof.

Everything it starts it stops; its data lives in a temporary folder and goes with it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ledger import app, output, screen
from ledger.config import Settings
from ledger.db import reads
from ledger.errors import LedgerError
from ledger.proof import Proof, prove
from ledger.wire import loopback, postgres

DIALECTS = ("documented", "orders_quote", "mixed", "full")
SHOWN = "full"
"""The account whose balances, orders and fills the live view shows."""
ACTIONS_PER_S = 4.0
REST_LAG_S = 1
RECONCILE_EVERY_S = 10
WEIGHT_PER_MINUTE = 6000
OUTAGE_S = 2.0
PROOF_WITHIN_S = 45.0
STARTED_WITHIN_S = 20.0
LINE_WIDTH = 110
"""Width of tables that go to a file or a pipe."""
REFRESH_S = 1.0
CAPTION = "at venue: fills the venue made; what is not here stands in missing_executions, exactly"


@dataclass(frozen=True, slots=True)
class Venue:
    """A sandbox venue in a process of its own."""

    dialect: str
    rest_url: str
    stream_url: str
    api_key: str
    api_secret: str
    process: asyncio.subprocess.Process

    def end(self) -> None:
        """Ask its process to stop."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()


async def show(settings: Settings, stop: asyncio.Event, *, seconds: int | None, seed: int) -> bool:
    """Run the demo until ``stop``, or for ``seconds`` with two outages and a proof. Returns whether the proof holds."""
    console = output.console(LINE_WIDTH)
    with tempfile.TemporaryDirectory(prefix="sdx-ledger-demo-") as folder:
        async with AsyncExitStack() as stack:
            output.line("starting four venues (one per dialect) and a PostgreSQL …")
            venues = [await stack.enter_async_context(venue(dialect, seed + n)) for n, dialect in enumerate(DIALECTS)]
            own = settings.model_copy(
                update={"data_dir": Path(folder) / "data", "database_url": None, "read_database_url": None}
            )
            db = await stack.enter_async_context(app.database(own))
            await app.ready(db)
            output.line(f"database: {db.writer_url}")
            reader = await stack.enter_async_context(postgres.reading(db.reader_url))
            running = [
                asyncio.create_task(app.keep_running(its, its.all_accounts()[0], db))
                for its in (settings_for(own, one) for one in venues)
            ]
            try:
                await watch(console, reader, venues, stop, seconds)
                if seconds is None or stop.is_set():
                    return True
                return await settle_and_prove(reader, venues)
            finally:
                for one in venues:
                    one.end()  # all at once; each is waited for when its block ends
                for task in running:
                    task.cancel()
                await asyncio.wait(running, timeout=app.STOP_WITHIN_S)


@asynccontextmanager
async def venue(dialect: str, seed: int) -> AsyncIterator[Venue]:
    """Start one sandbox venue on a free port and stop it at the end. Raises LedgerError if it does not come up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "ledger", "sandbox", "--port", "0", "--seed", str(seed)),
        *("--dialect", dialect, "--rate", str(ACTIONS_PER_S), "--weight-per-minute", str(WEIGHT_PER_MINUTE * 2)),
        "--child",  # its end of this pipe tells it when the demo is gone, also after a kill
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = await asyncio.wait_for(_told(process), STARTED_WITHIN_S)
        yield Venue(
            dialect,
            told["SDX_REST_URL"],
            told["SDX_STREAM_URL"],
            told["SDX_API_KEY"],
            told["SDX_API_SECRET"],
            process,
        )
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _told(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The `export NAME=value` lines a sandbox prints when it listens."""
    assert process.stdout is not None
    told: dict[str, str] = {}
    while "SDX_API_SECRET" not in told:
        line = (await process.stdout.readline()).decode()
        if not line:
            raise LedgerError(f"the sandbox venue ended while it started (status {await process.wait()})")
        name, _, value = line.strip().removeprefix("export ").partition("=")
        told[name] = value
    return told


def settings_for(settings: Settings, one: Venue) -> Settings:
    """Settings that mirror one sandbox venue under its dialect's name, with clocks fast enough to watch."""
    return settings.model_copy(
        update={
            "account": one.dialect,
            "accounts": (),
            "api_key": SecretStr(one.api_key),
            "api_secret": SecretStr(one.api_secret),
            "rest_url": one.rest_url,
            "stream_url": one.stream_url,
            "rest_lag_s": REST_LAG_S,
            "reconcile_every_s": RECONCILE_EVERY_S,
            "weight_per_minute": WEIGHT_PER_MINUTE,
            "history_start_ms": None,
            "symbols": (),
        }
    )


async def watch(
    console: output.Console, reader: Any, venues: list[Venue], stop: asyncio.Event, seconds: int | None
) -> None:
    """Show the accounts live; with ``seconds`` cut every socket after a third and after two thirds of them."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    outages_s = [seconds / 3, seconds * 2 / 3] if seconds else [15.0, 45.0]
    seen: dict[str, int] = {}
    note = "trading"
    with output.live(console, transient=seconds is not None) as live:
        while not stop.is_set():
            passed_s = loop.time() - began_s
            if seconds is not None and passed_s >= seconds:
                return
            if outages_s and passed_s >= outages_s[0]:
                outages_s.pop(0)
                note = f"cut every connection at {passed_s:.0f} s, for {OUTAGE_S:.0f} s, while trading goes on"
                if not console.is_terminal:
                    output.line(note)
                await asyncio.gather(*(cut(one) for one in venues))
            rows = await reads.status(reader)
            if console.is_terminal:
                live.update(await _view(console, reader, rows, seen, note), refresh=True)
            seen.update({row["account"]: row["frames_seen"] for row in rows})
            try:
                await asyncio.wait_for(stop.wait(), REFRESH_S)
            except TimeoutError:
                continue


async def cut(one: Venue) -> None:
    """Break every connection of a venue and let none in for a while; it trades on meanwhile."""
    await loopback.post(f"{one.rest_url}/sandbox/fault", {"do": "refuse_ws", "for_s": OUTAGE_S})
    await loopback.post(f"{one.rest_url}/sandbox/fault", {"do": "drop"})


async def settle_and_prove(reader: Any, venues: list[Venue]) -> bool:
    """Stop trading, wait until the mirrors have caught up, and compare with the venues' own books."""
    for one in venues:
        await loopback.post(f"{one.rest_url}/sandbox/pause", {})
    output.line("trading paused; comparing the mirrors with the venues' own books …")
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + PROOF_WITHIN_S
    while True:
        proofs = [
            await prove(reader, one.dialect, await loopback.get(f"{one.rest_url}/sandbox/truth")) for one in venues
        ]
        if all(proof.holds for proof in proofs) or loop.time() >= deadline_s:
            break
        await asyncio.sleep(REFRESH_S)
    table = proof_block(proofs).table(output.console(LINE_WIDTH).width)
    table.title_style, table.caption = "italic", CAPTION
    output.show(table, width=LINE_WIDTH)
    for proof in proofs:
        for difference in proof.differences[:20]:
            output.line(f"{proof.dialect}: {difference}")
    return all(proof.holds for proof in proofs)


def proof_block(proofs: list[Proof]) -> screen.Block:
    """The comparison as a table; on a narrow terminal its headers fold."""
    columns = ("dialect", "orders", "fills", "at venue", "missing on", "balances", "gaps", "closed", "mirror = venue")
    return screen.Block(
        "mirror and venue",
        columns,
        tuple(
            (
                proof.dialect,
                str(proof.orders),
                str(proof.fills),
                str(proof.venue_fills),
                f"{proof.missing} orders",
                str(proof.balances),
                str(proof.gaps_opened),
                str(proof.gaps_closed),
                "yes" if proof.holds else "NO",
            )
            for proof in proofs
        ),
        drop=("balances", "gaps"),
        numbers=columns[1:8],
    )


async def _view(
    console: output.Console, reader: Any, rows: list[dict[str, Any]], seen: dict[str, int], note: str
) -> output.Group:
    """Everything on one screen: the accounts, and the shown account's balances, open orders and fills."""
    held = await reader.fetch("SELECT * FROM ledger_v1.balances WHERE account = $1 ORDER BY asset", SHOWN)
    open_orders = await reader.fetch(
        "SELECT * FROM ledger_v1.orders WHERE account = $1 AND status IN ('NEW', 'PARTIALLY_FILLED')"
        " ORDER BY updated_ms DESC LIMIT 6",
        SHOWN,
    )
    last_fills = await reader.fetch(
        "SELECT * FROM ledger_v1.fills WHERE account = $1 ORDER BY executed_ms DESC, seq DESC LIMIT 8", SHOWN
    )
    return screen.whole(
        console.width,
        console.height,
        screen.accounts(rows, seen, note),
        screen.balances(SHOWN, held),
        (screen.orders(open_orders), screen.fills(last_fills)),
    )
