"""Suite ``export``: a CSV file of every fill by ``sdx-ledger export``, against psql's COPY of the same rows."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ledger.export.csv_files import FORMATS
from tests.bench import peak, server
from tests.bench.figures import Figure, Goal, Spread
from tests.bench.stored import store
from tests.flows.processes import ROOT

SUITE = "export"
FILLS, FILLS_QUICK = 1_000_000, 20_000
SHARE_OF_COPY = 0.80
PEAK_MIB = 64.0
ACCOUNT, FROM_MS, TO_MS = "a0", 1_577_836_800_000, 1_893_456_000_000
"""The account whose fills are exported, from 2020 to 2030."""


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Both as programs, from start to end; the peak memory is the whole program's."""
    fills = FILLS_QUICK if quick else FILLS
    async with server.database(server_url, "export") as url, server.connected(url) as conn:
        await store(conn, fills, accounts=1)
        # psql is the yardstick; without it the figures stand alone.
        psql = shutil.which("psql")
        ours: list[float] = []
        theirs: list[float] = []
        peaks: list[float] = []
        with tempfile.TemporaryDirectory(prefix="sdx-bench-") as folder:
            for _ in range(2 if quick else 5):
                taken_s, peak_mib, rows = await asyncio.to_thread(_export, url, Path(folder))
                assert rows == fills, f"{rows} of {fills} rows were exported"
                ours.append(fills / taken_s)
                peaks.append(peak_mib)
                if psql is not None:
                    theirs.append(fills / await asyncio.to_thread(_psql, psql, url, Path(folder)))
    reference = Spread(tuple(theirs), "rows/s") if theirs else None
    return [
        Figure(
            SUITE,
            f"{fills:,} fills to CSV",
            Spread(tuple(ours), "rows/s"),
            reference,
            "psql COPY" if theirs else "",
            Goal("ratio", "at least", SHARE_OF_COPY) if theirs else None,
        ),
        Figure(SUITE, "its peak memory", Spread(tuple(peaks), "MiB"), goal=Goal("value", "at most", PEAK_MIB)),
    ]


def _export(url: str, folder: Path) -> tuple[float, float, int]:
    """Seconds, peak memory of the program in MiB, data rows of the file."""
    file = folder / "fills.csv"
    command = [sys.executable, "-m", "tests.bench.peak", "export", "fills-csv", "--account", ACCOUNT, "-o", str(file)]
    span = ["--from", "2020-01-01", "--to", "2030-01-01"]
    environment = {"SDX_DATABASE_URL": url, "SDX_DATA_DIR": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    began_s = time.perf_counter()
    done = subprocess.run([*command, *span], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    taken_s = time.perf_counter() - began_s
    with file.open("rb") as lines:
        rows = sum(1 for _ in lines) - 1
    file.unlink()
    return taken_s, float(done.stderr.rpartition(peak.MARK)[2]) / 1024, rows


def _psql(psql: str, url: str, folder: Path) -> float:
    query = FORMATS["fills-csv"].query
    for place, value in (("$1", f"'{ACCOUNT}'"), ("$2", str(FROM_MS)), ("$3", str(TO_MS))):
        query = query.replace(place, value)
    began_s = time.perf_counter()
    with (folder / "psql.csv").open("wb") as file:
        subprocess.run([psql, "-Xq", url, "-c", f"COPY ({query}) TO STDOUT CSV HEADER"], stdout=file, check=True)
    return time.perf_counter() - began_s
