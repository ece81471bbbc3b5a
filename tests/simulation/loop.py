"""An event loop whose time is virtual, and processes in it that can be killed or paused between any two steps.

Always holds: time moves only when nothing is left to do, to the next timer; what runs when depends on nothing but the
calls made. A step belongs to the process in whose context it was made; of a dead process no step ever runs again, not
even a ``finally``, and a paused one gets all its steps when it goes on, in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

STEPS_PER_INSTANT_MAX = 500_000
CLOSING_ROUNDS_MAX = 100


class Stuck(Exception):
    """Nothing is left to do and nobody waits for a time, or time does not move any more."""


class Process:
    """Something of its own in the world: lives until it is killed, and then does nothing more.

    ``kill_at``: the number of the touch with the outside world (from 1) at which it is killed; None: it is not.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.touches = 0
        self.kill_at: int | None = None
        self.on_killed: list[Callable[[], None]] = []
        self.last_touch = ""
        self.tasks: list[asyncio.Task[Any]] = []
        self.aside: list[asyncio.Handle] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def touch(self, what: str) -> bool:
        """The process is about to touch the outside world, or just did. True: it was killed here."""
        if not self.alive:
            return True
        self.touches += 1
        self.last_touch = what
        if self.touches == self.kill_at:
            self.kill()
        return not self.alive

    async def point(self, what: str) -> None:
        """``touch`` from within the process: does not return when it was killed here."""
        if self.touch(what):
            await asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        """No step of it runs from now on; whoever cares (sockets, database) is told."""
        if self.alive:
            self.alive = False
            for tell in self.on_killed:
                tell()


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class _Task(asyncio.Task[T]):
    """A task that stands in sets by its number, not by its address: task groups stop theirs in the order of a set."""

    def __init__(self, main: Any, *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(main, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The world's loop. ``steps`` counts what was run so far."""

    # What the base class keeps its work in, and our own reading of it: the library's stubs do not name them.
    _ready: deque[asyncio.Handle]
    _scheduled: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.closing = False
        self._now_s = 0.0
        self._steps_this_instant = 0
        self._tasks = 0
        self._world: Context = copy_context()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Virtual seconds since the world began."""
        return self._now_s

    def outside(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call back in so many seconds as the world, not as a process."""
        return self.call_later(delay_s, callback, *args, context=self._world)

    def spawn(self, process: Process, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start ``main`` as that process."""
        return self.create_task(main, context=process.context)

    def resume(self, process: Process) -> None:
        """Let a paused process go on where it was."""
        process.paused = False
        aside, process.aside = process.aside, []
        self._ready.extend(aside)

    def bury(self, processes: list[Process]) -> None:
        """Unwind what is left of them, whatever their code does then: nothing of it reaches the world any more."""
        self.closing = True
        for process in processes:
            process.kill()
            self.resume(process)
        for _ in range(CLOSING_ROUNDS_MAX):
            left = [task for process in processes for task in process.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            with contextlib.suppress(Stuck):
                self.run_until_complete(asyncio.sleep(1))

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, main: Any, *, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        self._tasks += 1
        task: asyncio.Task[Any] = _Task(main, number=self._tasks, loop=loop, context=context, **options)
        owner = PROCESS.get() if context is None else context.get(PROCESS)
        if owner is not None:
            owner.tasks.append(task)
            if len(owner.tasks) > 1000:
                owner.tasks = [one for one in owner.tasks if not one.done()]
        return task

    def _run_once(self) -> None:
        """What the base class does with a selector, without one: run what is ready, else go to the next timer."""
        ready, timers = self._ready, self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Stuck(f"nothing is left to do after {self._now_s:.3f} s")
            if timers[0]._when > self._now_s:
                self._now_s = timers[0]._when
                self._steps_this_instant = 0
        while timers and timers[0]._when <= self._now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            step = ready.popleft()
            if step._cancelled or not self._may_run(step):
                continue
            self.steps += 1
            self._steps_this_instant += 1
            step._run()
        if self._steps_this_instant > STEPS_PER_INSTANT_MAX:
            self._steps_this_instant = 0
            raise Stuck(f"time stands still at {self._now_s:.3f} s: somebody runs in a circle")

    def _may_run(self, step: Any) -> bool:
        owner = step._context.get(PROCESS)
        if owner is None or self.closing:
            return True
        if not owner.alive or owner.paused:
            owner.aside.append(step)
            return False
        return True

    def run_in_executor(  # type: ignore[override]  # the stubs' form cannot be written in the oldest Python we know
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """At once: a thread would finish when it likes."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""
