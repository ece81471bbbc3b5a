"""The simulation itself: a seed is one story, a kill is a kill, and a mistake that is planted is found."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import ledger
from ledger.sandbox.books import Movement, Report
from ledger.sandbox.market import Market, live_through
from tests.simulation.crew import Crew, Job
from tests.simulation.loop import Process, SimLoop, Stuck
from tests.simulation.plants import PLANTS, DoesNotFit, Plant, planted
from tests.simulation.scenario import Harm, choose, crash_story
from tests.simulation.venue import START_MS
from tests.simulation.world import World

OTHER_CLOCKS = re.compile(
    r"\b(clock_timestamp|statement_timestamp|transaction_timestamp|now|timeofday|gen_random_uuid|uuidv[47])\(\)"
    r"|\b(current_(timestamp|time|date)|localtime(stamp)?)\b(?!\()",
    re.IGNORECASE,
)
"""SQL that reads real time, or what is another at every run."""


@pytest.fixture(scope="module")
def crew(server_url: str) -> Iterator[Crew]:
    with Crew(server_url, "sdx_simulation_test", 1) as crew:
        yield crew


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop()
    yield loop
    loop.close()


def test_an_hour_passes_at_once(loop: SimLoop) -> None:
    began_s = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600
    assert time.monotonic() - began_s < 5


def test_a_world_in_which_nothing_can_happen_any_more_is_found_out(loop: SimLoop) -> None:
    with pytest.raises(Stuck, match="nothing is left to do"):
        loop.run_until_complete(loop.create_future())


def test_a_world_that_turns_in_a_circle_is_found_out(loop: SimLoop) -> None:
    async def circle() -> None:
        while loop.time() < 1:  # noqa: ASYNC110 - the mistake this test is about
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="time stands still"):
        loop.run_until_complete(circle())
    loop.bury([])


def test_nothing_of_a_killed_process_runs_any_more_not_even_its_finally(loop: SimLoop) -> None:
    process, done = Process("victim"), []

    async def victim() -> None:
        try:
            done.append("began")
            await process.point("before the write")
            done.append("wrote")
            await process.point("after the write")
            done.append("told")
        finally:
            done.append("cleaned up")

    process.kill_at = 2
    loop.spawn(process, victim())
    loop.run_until_complete(asyncio.sleep(10))

    assert not process.alive
    assert process.last_touch == "after the write"
    assert done == ["began", "wrote"]
    loop.bury([process])


def test_a_paused_process_does_nothing_and_then_goes_on_where_it_was(loop: SimLoop) -> None:
    process, ticks = Process("sleeper"), []

    async def sleeper() -> None:
        for _ in range(4):
            await asyncio.sleep(1)
            ticks.append(loop.time())

    loop.spawn(process, sleeper())
    loop.run_until_complete(asyncio.sleep(1.5))
    process.paused = True
    loop.run_until_complete(asyncio.sleep(60))
    assert ticks == [1.0]
    loop.resume(process)
    loop.run_until_complete(asyncio.sleep(10))
    assert ticks == [1.0, 61.5, 62.5, 63.5]


@pytest.mark.parametrize("seed", [3, 7])
def test_the_same_seed_is_the_same_story_event_by_event(crew: Crew, seed: int) -> None:
    one, other = crew.outcomes([Job(seed, keep_lines=True), Job(seed, keep_lines=True)])
    assert one.failure is None
    assert one.events > 100
    assert one.lines == other.lines
    assert one.digest == other.digest


def test_nothing_but_one_function_reads_a_clock_that_is_not_the_worlds(crew: Crew) -> None:
    """What the database decides by real time differs beside a load: a sign of life once was 3 real seconds old."""
    assert crew.bench is not None
    server = crew.bench.server
    functions = server.run(
        server.own.fetch(
            "SELECT p.proname, p.prosrc FROM pg_proc p"
            " WHERE p.pronamespace IN ('ledger'::regnamespace, 'ledger_v1'::regnamespace)"
        )
    )
    views = server.run(
        server.own.fetch(
            "SELECT c.relname, pg_get_viewdef(c.oid) FROM pg_class c"
            " WHERE c.relkind = 'v' AND c.relnamespace = 'ledger_v1'::regnamespace"
        )
    )
    assert len(functions) > 20
    assert len(views) > 5
    package = Path(ledger.__file__).parent
    files = [(path.name, path.read_text("utf-8")) for path in package.rglob("*.py") if "sandbox" not in path.parts]
    readers = [name for name, text in (*functions, *views, *files) if OTHER_CLOCKS.search(text)]
    assert readers == []
    assert any("sdx.now_ms" in text for name, text in functions if name == "clock")


def test_another_seed_is_another_story(crew: Crew) -> None:
    digests = {outcome.digest for outcome in crew.outcomes([Job(3), Job(4)])}
    assert len(digests) == 2


def test_a_planted_mistake_is_caught_and_gone_afterwards(crew: Crew) -> None:
    name = "key without the symbol"
    (broken,) = crew.outcomes([Job(2, plant=name)])
    (healthy,) = crew.outcomes([Job(2)])
    assert broken.failure is not None
    assert broken.failure.invariant == "the mirror equals the venue"
    assert healthy.failure is None


def test_a_snapshot_that_trails_and_counts_at_once_is_found_in_the_history_of_balances(crew: Crew) -> None:
    (broken,) = crew.outcomes([Job(2, plant="one look is enough", needs="rest_lag")])
    assert broken.failure is not None
    assert broken.failure.invariant == "every balance was the venue's at the time it is recorded for"


@pytest.mark.parametrize(
    ("kind", "seed"), [("coin_unheard", 1), ("twin_in_lag", 1), ("lost_then_canceled", 2), ("trade_before_frame", 7)]
)
def test_a_story_that_must_be_asked_for_is_told_and_everything_holds(crew: Crew, kind: str, seed: int) -> None:
    (healthy,) = crew.outcomes([Job(seed, needs=kind)])
    assert healthy.failure is None
    assert healthy.harm[kind] == 2


def test_a_plant_is_tried_in_the_seeds_alone_that_can_show_it() -> None:
    plant = Plant("late twin", needs="twin_in_lag", dialects=("documented",))
    stories = [choose(seed, plant.needs) for seed in range(100) if plant.reaches(seed)]
    assert len(stories) > 5
    assert {story.dialect.name for story in stories} == {"documented"}
    assert all("twin_in_lag" in story.kinds for story in stories)


def test_what_a_seed_tells_is_not_changed_by_harm_that_must_be_asked_for() -> None:
    asked_for = {"coin_unheard", "twin_in_lag", "lost_then_canceled", "trade_before_frame"}
    assert not any(choose(seed).kinds & asked_for for seed in range(500))
    silent = {"lose_frames", "deafen"}
    assert all(story.loses_silently for seed in range(500) if (story := choose(seed, "lose_frames")).kinds & silent)


def test_a_plant_that_does_not_fit_the_program_is_an_error(crew: Crew) -> None:
    gone = Plant("gone", sql=("apply", "text that apply never had", ""))
    assert crew.bench is not None
    with pytest.raises(DoesNotFit, match="0 times"), planted(gone, crew.bench.server):
        pass


def test_every_plant_fits_the_program(crew: Crew) -> None:
    assert len(PLANTS) >= 20
    assert crew.bench is not None
    for plant in PLANTS.values():
        with planted(plant, crew.bench.server):
            pass


def test_the_process_dies_at_the_point_that_was_named_and_another_takes_over(crew: Crew) -> None:
    whole, killed = crew.outcomes([Job("mixed"), Job("mixed", kill_at=150)])
    assert (whole.kills, killed.kills) == (0, 1)
    assert whole.touches > 150
    assert killed.touches == 150
    assert whole.failure is None
    assert killed.failure is None


def test_the_crash_story_tells_everything_that_can_be_told() -> None:
    story = crash_story("mixed")
    market = Market(story.seed)
    live_through(market, story.history, START_MS - 86_400_000, START_MS)
    assert len(market.books.orders) > story.page_rows
    events = [event for n in range(len(story.actions)) for event in market.step(START_MS + n)]
    told = {event.order.status for event in events if isinstance(event, Report)}
    assert {"NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED"} <= told
    assert story.coin_s is not None or any(isinstance(event, Movement) for event in events)


def test_where_no_trades_are_told_a_seed_doubles_fills_or_loses_frames_never_both() -> None:
    blind = [story for story in map(choose, range(500)) if not story.dialect.trades]
    losing = {"cut", "silence", "kill", "lose_frames", "late", "expire_key", "oversize"}
    assert any(story.doubles_fills for story in blind)
    assert any(story.kinds & losing for story in blind)
    assert not any(story.doubles_fills and story.kinds & losing for story in blind)


ANY_ERROR, NO_HOLE = "any error of the database is about content", "what is quarantined is no hole"


@pytest.mark.parametrize(
    ("kind", "chance", "plant", "caught_by"),
    [
        ("db_grants", 2, ANY_ERROR, "the mirror never fails by itself"),  # the right to apply
        ("db_function", 1, ANY_ERROR, "the mirror never fails by itself"),
        ("db_content", 1, NO_HOLE, "coverage is never past what is known"),
    ],
)
def test_a_database_that_refuses_for_a_while_costs_nothing_and_mistakes_about_it_are_caught(
    crew: Crew, kind: str, chance: int, plant: str, caught_by: str
) -> None:
    story = replace(crash_story("full"), harm=(Harm(2.3, kind, 1, 5.0, chance),))
    assert crew.bench is not None
    server, found = crew.bench.server, []
    for mistake in (None, plant):
        with planted(PLANTS[mistake] if mistake else None, server):
            outcome = World(story, server, f"{kind}-{len(found)}").run()
        assert outcome.harm[kind.replace("db_", "database_")] == 1
        found.append(None if outcome.failure is None else outcome.failure.invariant)
    assert found == [None, caught_by]
