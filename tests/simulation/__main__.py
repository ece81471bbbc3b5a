"""Run the simulation: ``scripts/simulate --seeds 60``. See ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from itertools import count, islice

from tests.simulation import crew
from tests.simulation.crew import Job
from tests.simulation.plants import PLANTS
from tests.simulation.scenario import KINDS
from tests.simulation.world import Outcome

FAILURES_SHOWN_MAX = 10
CRASH_DIALECTS = ("mixed", "documented")
PLANT_SEEDS = 60
TOLD_EVERY = 250
"""How many runs pass between two words on how far it is."""


def main(arguments: list[str] | None = None) -> int:
    """0: everything held (or every plant was caught). 1: something did not."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description="The seeded simulation of the whole mirror.")
    parser.add_argument("--seeds", type=int, default=60, help="how many seeds (default 60)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--seed", type=int, help="replay this one and print every event")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this mistake planted")
    parser.add_argument("--needs", choices=sorted(KINDS), help="with this kind of harm in every seed that allows it")
    parser.add_argument(
        "--plants",
        action="store_true",
        help="plant each mistake in turn, in seeds that can show it, and print what caught it",
    )
    parser.add_argument("--crash-matrix", action="store_true", help="kill at every touch with the outside world")
    options = parser.parse_args(arguments)
    needs = options.needs or (PLANTS[options.plant].needs if options.plant else None)
    if options.crash_matrix:
        return crash_matrix(options.workers)
    if options.plants:
        return plants(options.seeds if options.seeds != 60 else PLANT_SEEDS, options.workers)
    if options.seed is not None:
        return replay(options.seed, options.plant, needs)
    return run(range(options.first, options.first + options.seeds), options.workers, options.plant, needs)


def run(seeds: range, workers: int, plant: str | None, needs: str | None) -> int:
    """Many seeds; with a plant until it is caught."""
    began_s = time.monotonic()
    failures: list[Outcome] = []
    harm: Counter[str] = Counter()
    done = kills = 0
    slowest = Counter[int]()
    with crew.working(workers) as work:
        for outcome in work.outcomes(Job(seed, plant, needs=needs) for seed in seeds):
            done += 1
            harm += outcome.harm
            kills += outcome.kills
            slowest[outcome.seed] = round(outcome.healed_s)
            if outcome.failure is not None:
                failures.append(outcome)
                if len(failures) <= FAILURES_SHOWN_MAX:
                    print(told(outcome, plant, needs), flush=True)
                if plant:
                    break
            if done % TOLD_EVERY == 0:
                print(f"… {done} of {len(seeds)} seeds", file=sys.stderr, flush=True)
    print(
        f"{done} seeds, {len(failures)} failures, {kills} kills, {time.monotonic() - began_s:.1f} s, {workers} workers"
    )
    if slowest:
        print("healed after at most {1} virtual seconds (seed {0})".format(*slowest.most_common(1)[0]))
    print("harm done: " + ", ".join(f"{kind} {times}" for kind, times in sorted(harm.items())))
    return 1 if failures else 0


def replay(seed: int, plant: str | None, needs: str | None) -> int:
    """One seed, event by event."""
    with crew.working(1) as work:
        (outcome,) = work.outcomes([Job(seed, plant, keep_lines=True, needs=needs)])
    print("\n".join(outcome.lines))
    print(f"seed {seed}: {outcome.events} events, hash {outcome.digest}, {outcome.virtual_s:.0f} virtual seconds")
    if outcome.failure is not None:
        print(told(outcome, plant, needs))
    return 1 if outcome.failure else 0


def plants(seeds: int, workers: int) -> int:
    """Every plant in turn, in the seeds that can reach it: how many were run until it was caught, and by which
    invariant."""
    missed = 0
    print(f"{'plant':<51} {'needs':<18} {'runs':>4} {'seed':>4}  caught by", flush=True)
    with crew.working(workers) as work:
        for name, plant in PLANTS.items():
            reached = list(islice(filter(plant.reaches, count(1)), seeds))
            outcomes = zip(count(1), work.outcomes(Job(seed, name, needs=plant.needs) for seed in reached))
            runs, caught = next((one for one in outcomes if one[1].failure is not None), (len(reached), None))
            missed += caught is None
            seed, by = ("", "NOT CAUGHT") if caught is None else (caught.seed, caught.failure.invariant)
            print(f"{name:<51} {plant.needs or '':<18} {runs:>4} {seed:>4}  {by}", flush=True)
    print(f"{len(PLANTS) - missed} of {len(PLANTS)} plants caught")
    return 1 if missed else 0


def crash_matrix(workers: int) -> int:
    """One story in two dialects, with the process killed at each of its points in turn."""
    began_s = time.monotonic()
    points = covered = 0
    with crew.working(workers) as work:
        for dialect in CRASH_DIALECTS:
            (whole,) = work.outcomes([Job(dialect)])
            if whole.failure is not None:
                print(f"{dialect}, killed nowhere: {whole.failure}")
                return 1
            points += whole.touches
            jobs = [Job(dialect, kill_at=at) for at in range(1, whole.touches + 1)]
            for job, outcome in zip(jobs, work.outcomes(jobs), strict=True):
                if outcome.failure is None and outcome.kills == 1:
                    covered += 1
                else:
                    print(
                        f"{dialect}, killed at point {job.kill_at}: {outcome.failure or 'was not killed'}", flush=True
                    )
                if job.kill_at and job.kill_at % TOLD_EVERY == 0:
                    print(f"… {dialect}, {job.kill_at} of {whole.touches} points", file=sys.stderr, flush=True)
    print(f"{covered} of {points} points, {time.monotonic() - began_s:.1f} s, {workers} workers")
    return 0 if covered == points else 1


def told(outcome: Outcome, plant: str | None, needs: str | None) -> str:
    """A failure in words, with how to see it again."""
    again = f"scripts/simulate --seed {outcome.seed}" + (f" --plant '{plant}'" if plant else "")
    again += f" --needs {needs}" if needs else ""
    return f"seed {outcome.seed} FAILED, hash {outcome.digest}: {outcome.failure}\n  replay: {again}"


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # A set of text has another order in every process otherwise, and a replay would not be one.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
