"""Record the journals of this release: ``python -m tests.journals.record RELEASE DATABASE_SERVER_URL``.

Each comes from the sandbox through the real service over real sockets. A file that is there is left alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from ledger.db import explain
from ledger.sandbox.server import Sandbox
from ledger.wire import postgres, schema
from tests import journals
from tests.conftest import in_database
from tests.flows.mirrors import eventually, gaps_closed, mirroring, proof_of, settings_for, venue


async def a_day(sandbox: Sandbox, conn: Any) -> None:
    """Trading, and a connection lost in the middle of it."""
    await sandbox.step(40)
    await sandbox.fault({"do": "refuse_ws", "for_s": 0.3})
    await sandbox.fault({"do": "drop"})
    await sandbox.step(30)
    await gaps_closed(conn, 2)
    await sandbox.step(30)


async def everything(sandbox: Sandbox, conn: Any) -> None:
    """Frames doubled, late, lost and unreadable; a deposit nobody announced, which a person explains."""
    for fault in ({"do": "duplicate", "n": 30}, {"do": "garbage"}, {"do": "drop_frames", "n": 5}):
        await sandbox.fault(fault)
        await sandbox.step(20)
    await a_day(sandbox, conn)
    await sandbox.fault({"do": "move", "asset": "USDT", "amount": "123.45", "announce": False, "position": False})
    unexplained = "SELECT discrepancy_id FROM ledger_v1.discrepancies WHERE kind = 'unexplained_balance'"
    found = await eventually(conn, unexplained, lambda value: value is not None)
    await explain.decide(conn, "main", found, "deposit", note="seen at the bank", user="anna", now_ms=sandbox.now_ms())


JOURNALS: dict[str, tuple[str, int, Callable[[Sandbox, Any], Awaitable[None]]]] = {
    "documented": ("documented", 1, a_day),
    "orders_quote": ("orders_quote", 1, a_day),
    "mixed": ("mixed", 1, a_day),
    "full": ("full", 1, a_day),
    "everything": ("mixed", 2, everything),
}
"""name -> dialect, sockets, what happens"""


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[str]:
    """A database of its own, gone at the end."""
    name = f"sdx_journal_{uuid4().hex[:8]}"
    server = await postgres.connect(server_url, application="record")
    try:
        await server.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        await schema.upgrade(in_database(server_url, name))
        yield in_database(server_url, name)
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def record(release: str, server_url: str) -> None:
    for name, (dialect, sockets, story) in JOURNALS.items():
        path = journals.FOLDER / f"{release}-{name}.jsonl.gz"
        if path.exists():
            continue
        async with database(server_url) as url, venue(dialect) as sandbox:
            conn = await postgres.connect(url, application="record")
            await sandbox.step(20)
            async with mirroring(settings_for(sandbox, sockets=sockets), url):
                await gaps_closed(conn, 1)
                await story(sandbox, conn)
                proof = await proof_of(conn, sandbox)
                assert proof.differences == [], proof.differences
            rows = await journals.record(conn, "main", path)
            await conn.close()
        print(f"{path.name}: {rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(record(*sys.argv[1:]))
