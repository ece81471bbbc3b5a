"""Play every case and print the table: ``.venv/bin/python -m tests.field [PART OF A NAME]``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ledger.wire import postgres, schema
from tests.field.cases import CASES
from tests.field.play import Case, outcome, play_of, samples
from tests.simulation.crew import a_server
from tests.simulation.world import silence

AT_ONCE = 4


def main(arguments: list[str]) -> int:
    """0: every case is right."""
    wanted = [case for case in CASES if all(word in case.name for word in arguments)]
    began_s = time.monotonic()
    with silence(), a_server() as url, tempfile.TemporaryDirectory(prefix="sdx-field-") as folder:
        right = asyncio.run(_table(wanted, url, Path(folder)))
    print(f"{right} of {len(wanted)} right, {time.monotonic() - began_s:.0f} s")
    return 0 if right == len(wanted) else 1


async def _table(wanted: list[Case], url: str, folder: Path) -> int:
    template = _in_database(url, "field")
    await _execute(url, "CREATE DATABASE field ENCODING 'UTF8' TEMPLATE template0")
    await schema.upgrade(template)
    free, right = asyncio.Semaphore(AT_ONCE), 0

    async def played(number: int, case: Case) -> str:
        async with free:
            name = f"field_{number}"
            await _execute(url, f"CREATE DATABASE {name} TEMPLATE field")
            (folder / name).mkdir()
            async with play_of(samples()[case.name], _in_database(url, name), folder / name) as play:
                return await outcome(case, play)

    print("| case | right | got | |\n| --- | --- | --- | --- |")
    tasks = [asyncio.create_task(played(number, case)) for number, case in enumerate(wanted)]
    for case, task in zip(wanted, tasks, strict=True):
        got = await task
        right += got == case.want
        print(f"| {case.name} | {case.want} | {got} | {'yes' if got == case.want else 'NO'} |", flush=True)
    return right


def _in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, sql: str) -> None:
    conn = await postgres.connect(url, application="field")
    try:
        await conn.execute(sql)
    finally:
        await conn.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
