"""One case played: the program in processes of its own, a PostgreSQL database, a venue that says what failed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.wire import postgres
from tests.field.venue import API_KEY, API_SECRET, Venue, now_ms
from tests.flows.processes import FAST, Bench, Program, bench, until

SAMPLES = Path(__file__).parents[1] / "samples" / "field_failures.jsonl"
INPUT_MS = 1_795_974_288_000
"""The instant about which the inputs' times stand; they are moved to the instant of the play."""
SPAN_MS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the file: what was put in, and what is right."""

    case: str
    kind: str
    input: Any
    right: str


def samples() -> dict[str, Sample]:
    """Every line of the file by its name."""
    lines = SAMPLES.read_text("utf-8").splitlines()
    return {one.case: one for one in (Sample(**json.loads(line)) for line in lines)}


def moved(value: Any, to_ms: int) -> Any:
    """The same with its times, in ms or in microseconds, as far from ``to_ms`` as they were from ``INPUT_MS``."""
    if isinstance(value, dict):
        return {name: moved(one, to_ms) for name, one in value.items()}
    if isinstance(value, list):
        return [moved(one, to_ms) for one in value]
    if isinstance(value, int) and INPUT_MS - SPAN_MS < value < INPUT_MS + SPAN_MS:
        return value - INPUT_MS + to_ms
    if isinstance(value, int) and (INPUT_MS - SPAN_MS) * 1000 < value < (INPUT_MS + SPAN_MS) * 1000:
        return value - INPUT_MS * 1000 + to_ms * 1000
    return value


@dataclass(slots=True)
class Play:
    """What a case acts on and looks at."""

    sample: Sample
    venue: Venue
    programs: Bench
    conn: Any

    @property
    def input(self) -> Any:
        """The sample's input, its times moved to where the venue's begin."""
        return moved(self.sample.input, self.venue.start_ms)

    def just_now(self) -> Any:
        """The sample's input, its times moved to this very instant."""
        return moved(self.sample.input, now_ms())

    def run(self, **more: str) -> Program:
        """The service."""
        return self.programs.start("run", settings=more)

    async def mirrored(self, **more: str) -> Program:
        """The service, its stream up and its first gap closed."""
        program = self.run(**more)
        await self.comes("SELECT live AND complete_through_ms IS NOT NULL FROM ledger_v1.coverage WHERE symbol = '*'")
        return program

    async def comes(self, sql: str) -> bool:
        """Wait until the database says true; whether it did in time."""

        async def is_so() -> bool:
            return bool(await self.conn.fetchval(sql))

        with suppress(AssertionError):
            await until(is_so, sql)
            return True
        return False

    async def value(self, sql: str) -> Any:
        return await self.conn.fetchval(sql)

    async def text(self, sql: str) -> str:
        """One row, or ``nothing``, as one line."""
        row = await self.conn.fetchrow(sql)
        return "nothing" if row is None else " ".join("null" if value is None else str(value) for value in row)


Act = Callable[[Play], Awaitable[None]]
Look = Callable[[Play], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """``act`` does what failed; ``look`` tells what became of it; ``want`` is what it tells when all is right."""

    name: str
    want: str
    act: Act
    look: Look


async def outcome(case: Case, play: Play) -> str:
    """Act, look until it is right or patience ends; what was seen last."""
    seen = ""

    async def is_right() -> bool:
        nonlocal seen
        seen = await case.look(play)
        return seen == case.want

    await case.act(play)
    with suppress(AssertionError):
        await until(is_right, case.want)
    return seen


@asynccontextmanager
async def play_of(sample: Sample, database_url: str, folder: Path) -> AsyncIterator[Play]:
    """Everything for one case; gone afterwards."""
    conn = await postgres.connect(database_url, application="field")
    try:
        async with Venue() as venue:
            settings = {
                **FAST,
                "SDX_DATABASE_URL": database_url,
                "SDX_REST_URL": venue.url,
                "SDX_STREAM_URL": venue.stream_url,
                "SDX_API_KEY": API_KEY,
                "SDX_API_SECRET": API_SECRET,
            }
            with bench(folder, settings) as programs:
                yield Play(sample, venue, programs, conn)
    finally:
        await conn.close()
