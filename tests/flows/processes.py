"""Real processes of this program: started with an environment of their own, watched, and always ended.

Their output goes to files, so nothing ever waits for a reader. Each leads a process group, as in a terminal.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger import config
from ledger.wire import loopback
from tests.patience import Patience, stretched

ROOT = Path(config.__file__).parents[1]
PATIENCE_S = 30.0
POLL_S = 0.02
NONE: Mapping[str, str] = {}


async def until(true: Callable[[], bool | Awaitable[bool]], what: str, within_s: float = PATIENCE_S) -> None:
    """Look again until it is so; another process signals nothing."""
    patience = Patience(within_s)
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert not patience.is_over, f"not within {within_s:.0f} s of an idle machine: {what}"
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the system's table of processes."""

    pid: int
    parent: int
    started: int
    """Ticks since boot: with the pid it names one process for ever."""

    @property
    def command(self) -> str:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return ""


def living() -> dict[int, Process]:
    """Every process that lives; the dead whom nobody has reaped yet are dead."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            found[int(folder.name)] = Process(int(folder.name), int(fields[1]), int(fields[19]))
    return found


def family(pid: int) -> set[Process]:
    """The process and all its descendants."""
    table = living()
    members = {pid}
    while more := {one.pid for one in table.values() if one.parent in members} - members:
        members |= more
    return {table[member] for member in members if member in table}


def left_of(processes: set[Process]) -> list[str]:
    """The command lines of those that still live, whoever their parent is by now."""
    table = living()
    return [one.command for one in processes if one.pid in table and table[one.pid].started == one.started]


def end_all(processes: set[Process]) -> None:
    """Kill those that still live: what a failed test left behind."""
    table = living()
    for one in processes:
        if one.pid in table and table[one.pid].started == one.started:
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)


def serving(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    return [one.pid for one in living().values() if str(folder) in one.command]


@dataclass(slots=True)
class Program:
    """``sdx-ledger ...`` in a process of its own."""

    process: subprocess.Popen[bytes]
    out_file: Path
    err_file: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self.out_file.read_text("utf-8")

    @property
    def err(self) -> str:
        return self.err_file.read_text("utf-8")

    @property
    def events(self) -> list[str]:
        """What its log has told so far."""
        lines = [line for line in self.err.splitlines() if line.startswith("{") and line.endswith("}")]
        return [str(json.loads(line).get("event")) for line in lines]

    async def says(self, event: str) -> None:
        """Wait until its log tells this."""

        def told() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.poll()}: {self.err[-2000:]}"
            return event in self.events

        await until(told, f"{event!r} in the log")

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended; minus the signal that killed it."""
        await until(lambda: self.process.poll() is not None, f"the end of {self.process.args!r}", within_s)
        code = self.process.poll()
        assert code is not None
        return code

    async def killed(self) -> None:
        """kill -9, and wait for it to be gone."""
        self.process.kill()
        assert await self.ended() == -signal.SIGKILL

    async def stopped(self, number: int = signal.SIGTERM, within_s: float = PATIENCE_S) -> int:
        """Send the signal and wait for the exit code."""
        self.process.send_signal(number)
        return await self.ended(within_s)


class Bench:
    """Starts programs in one folder. ``settings`` are the SDX_ variables of each, more may be given per call."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.settings = settings or {}
        self.programs: list[Program] = []

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Nothing of the environment the tests run in but where programs are found."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": "/tmp",
            "SDX_DATA_DIR": str(self.folder / "data"),
            **{name: value for name, value in self.settings.items() if value},
            **{name: value for name, value in more.items() if value},
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "ledger", *words]

    def start(self, *words: str, settings: Mapping[str, str] = NONE) -> Program:
        """``sdx-ledger WORDS`` with further settings, its output in files."""
        number = len(self.programs)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        program = Program(process, out, err)
        self.programs.append(program)
        return program

    async def done(
        self, *words: str, settings: Mapping[str, str] = NONE, within_s: float = PATIENCE_S
    ) -> tuple[int, str, str]:
        """Run it to its end: exit code, standard output, standard error."""
        program = self.start(*words, settings=settings)
        code = await program.ended(within_s)
        return code, program.out, program.err

    async def sandbox(self, *words: str) -> str:
        """A venue in a process of its own; ``settings`` point at it from then on. Returns its REST address."""
        venue = self.start("sandbox", "--port", "0", "--weight-per-minute", "120000", *words)

        def listens() -> bool:
            assert venue.process.poll() is None, f"the sandbox ended with {venue.process.poll()}: {venue.err}"
            return "SDX_API_SECRET=" in venue.out

        await until(listens, "the sandbox listens")
        lines = [line.removeprefix("export ") for line in venue.out.splitlines() if line.startswith("export ")]
        # Account and data folder are those of the test, whatever the sandbox would have.
        own = ("SDX_ACCOUNT", "SDX_DATA_DIR")
        self.settings |= {name: value for name, value in (line.split("=", 1) for line in lines) if name not in own}
        return self.settings["SDX_REST_URL"]

    def end(self) -> None:
        """Kill whatever still runs."""
        for program in self.programs:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.process.wait(stretched(PATIENCE_S))


@contextmanager
def bench(folder: Path, settings: dict[str, str] | None = None) -> Iterator[Bench]:
    """A ``Bench`` whose programs are gone at the end, also after a failure."""
    made = Bench(folder, settings)
    try:
        yield made
    finally:
        made.end()


FAST = {
    "SDX_REST_LAG_S": "1",
    "SDX_RECONCILE_EVERY_S": "5",
    "SDX_WEIGHT_PER_MINUTE": "100000",
    "SDX_SILENCE_S": "15",
    "SDX_LOG_FORMAT": "json",
}
"""Settings that mirror a sandbox at a pace one can watch."""


async def truth(rest_url: str) -> dict[str, Any]:
    """The sandbox's own books."""
    books: dict[str, Any] = await loopback.get(f"{rest_url}/sandbox/truth")
    return books


async def pause(rest_url: str) -> None:
    """Stop the sandbox's trading."""
    await loopback.post(f"{rest_url}/sandbox/pause", {})
