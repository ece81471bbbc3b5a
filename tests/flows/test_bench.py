"""``scripts/bench --quick``: every suite runs and measures what it says it does. What the figures are is not judged."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.bench import server
from tests.bench.__main__ import SUITES
from tests.bench.chart import AXIS
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.flows.processes import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_suite_runs_on_the_real_service_and_keeps_its_table(server_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--json", "--write", str(tmp_path), *SUITES]
    bench = await asyncio.create_subprocess_exec(
        *command,
        "--server",
        server_url,
        "--busy",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await bench.communicate()

    assert bench.returncode == 0, err.decode()[-3000:]
    figures = json.loads(out)["figures"]
    assert {figure["suite"] for figure in figures} == set(SUITES)
    assert all(value > 0 for figure in figures for value in figure["values"] if "above" not in figure["what"])
    assert sum(figure["reference"] is not None for figure in figures) >= len(SUITES)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [*(f"{suite}.md" for suite in SUITES), *(f"{suite}.png" for suite in AXIS)]
    )


async def test_a_server_with_settings_that_flatter_is_refused(server_url: str) -> None:
    flattering = f"{server_url}{'&' if '?' in server_url else '?'}synchronous_commit=off"

    with pytest.raises(server.Unfit, match="synchronous_commit is off, expected on"):
        async with server.server(flattering):
            pass


def test_a_goal_is_met_by_the_middle_of_the_repeats() -> None:
    reference = Spread((10.0, 10.0, 10.0), "ms")
    met = Figure("s", "w", Spread((40.0, 17.0, 1.0), "ms"), reference, "one commit", Goal("ratio", "at most", 1.8))
    missed = Figure("s", "w", Spread((19.0, 19.0, 1.0), "ms"), reference, "one commit", Goal("ratio", "at most", 1.8))

    assert met.cells()[-3:] == ("1.70x", "at most 1.8x", "met")
    assert missed.cells()[-1] == "NOT MET"


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, wanted: int) -> None:
    assert percentile(range(100, 0, -1), share) == wanted
