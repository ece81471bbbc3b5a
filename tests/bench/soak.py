"""Suite ``soak``: the memory of ``sdx-ledger run`` under 1,000 events a second, for an hour."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from tests.bench import server
from tests.bench.figures import Figure, Goal, Spread
from tests.bench.latency import FellBehind, exact, loaded, serving, venue

SUITE = "soak"
RATE = 1_000
ROUNDS, ROUND_S = 60, 60.0
ROUNDS_QUICK, ROUND_QUICK_S = 2, 2.0
PEAK_MIB, GROWTH_MAX = 150.0, 1.05


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Rounds of load one after the other; memory is read after each. The first tenth warms."""
    rounds, round_s = (ROUNDS_QUICK, ROUND_QUICK_S) if quick else (ROUNDS, ROUND_S)
    resident_mib: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sdx-bench-") as folder, venue(Path(folder)) as address:
        try:
            async with (
                server.database(server_url, "soak") as url,
                server.connected(url) as conn,
                serving(Path(folder), address, url) as (service, commits),
            ):
                for _ in range(rounds):
                    await loaded(conn, address, commits, RATE, round_s)
                    resident_mib.append(await asyncio.to_thread(_resident_mib, service.pid))
                peak = await asyncio.to_thread(_resident_mib, service.pid, "VmHWM")
                await exact(conn)
        except FellBehind as behind:
            return [behind.figure(SUITE)]
    settled = resident_mib[max(1, len(resident_mib) // 10) :]
    tenth = max(1, len(settled) // 10)
    early, late = Spread(tuple(settled[:tenth]), "MiB"), Spread(tuple(settled[-tenth:]), "MiB")
    minutes = rounds * round_s / 60
    flat = None if quick else Goal("ratio", "at most", GROWTH_MAX)
    return [
        Figure(SUITE, f"memory of run after {minutes:.0f} min at {RATE:,}/s", late, early, "once warm", flat),
        Figure(SUITE, "its peak", Spread((peak,), "MiB"), goal=Goal("value", "at most", PEAK_MIB)),
    ]


def _resident_mib(pid: int, name: str = "VmRSS") -> float:
    found = re.search(rf"{name}:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) / 1024
