"""``scripts/bench``: run suites, print their figures, and keep them as a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ledger import log
from tests.bench import apply, backfill, chart, export, latency, reads, scale, server, soak
from tests.bench.figures import HEAD, Figure

SUITES = {suite.SUITE: suite.run for suite in (apply, latency, backfill, reads, export, scale, soak)}
ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Exit 0: measured, whether or not every goal is met; 2: usage; 5: the server is not fit to be measured on."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the whole service, as ratios.")
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it runs, measures nothing")
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    parser.add_argument("--server", metavar="URL", help="a superuser's URL of a server at rest (default: embedded)")
    parser.add_argument("--busy", action="store_true", help="with --quick: never mind who else uses the server")
    parser.add_argument("--write", metavar="FOLDER", type=Path, help="keep the table there, one file a suite")
    options = parser.parse_args(arguments)
    log.setup("warning")
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    try:
        figures, where = asyncio.run(
            _measure(options.suites or list(SUITES), options.server, options.quick, options.busy and options.quick)
        )
    except server.Unfit as unfit:
        print(unfit, file=sys.stderr)
        return 5
    if options.json:
        print(json.dumps({"where": where, "figures": [figure.plain() for figure in figures]}, indent=2))
    else:
        _print(figures, where)
    if options.write:
        _write(options.write, figures, where)
    return 0


async def _measure(suites: list[str], server_url: str | None, quick: bool, busy: bool) -> tuple[list[Figure], str]:
    figures: list[Figure] = []
    async with server.server(server_url, busy=busy) as url:
        database = await server.about(url)
        for name in suites:
            print(f"… {name}", file=sys.stderr, flush=True)
            figures += await SUITES[name](url, quick=quick)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return figures, f"{day}; {machine}; {database}{'; quick, so no measurement' if quick else ''}"


def _print(figures: list[Figure], where: str) -> None:
    table = Table(*HEAD, title=where)
    for figure in figures:
        table.add_row(*figure.cells())
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _write(folder: Path, figures: list[Figure], where: str) -> None:
    """One Markdown file a suite, with its chart: a suite that is measured again replaces its own alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for suite in dict.fromkeys(figure.suite for figure in figures):
        own = [figure for figure in figures if figure.suite == suite]
        rows = [figure.cells()[1:] for figure in own]
        lines = [HEAD[1:], ("---",) * (len(HEAD) - 1), *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        picture = f"\n![{suite}]({suite}.png)\n" if suite in chart.AXIS else ""
        if picture:
            chart.draw(own, where, folder / f"{suite}.png")
        (folder / f"{suite}.md").write_text(f"# {suite}\n\n{where}\n\n{table}\n{picture}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
