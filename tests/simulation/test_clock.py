"""A wrong clock of the venue for seconds, then an hour away: the gap covers the hour, what happened in it is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from random import Random
from unittest import mock

import pytest

from tests.simulation import world
from tests.simulation.crew import Bench, Crew
from tests.simulation.plants import PLANTS, Plant, planted
from tests.simulation.scenario import Harm, Scenario, crash_story
from tests.simulation.venue import START_MS, YEAR_9999_MS
from tests.simulation.world import HOUR_MS, World

WRONG_FROM_S, WRONG_FOR_S = 6.0, 5.0
AWAY_S = 3600.0
TRADED_S = 1800.0

TAKEN_AS_IT_STANDS = Plant("a mark is taken as it stands", ("open_gap", "v_mark > v_vouched_ms + 2000", "false"))

_numbers = count(1)


@pytest.fixture(scope="module")
def bench(server_url: str) -> Iterator[Bench]:
    with Crew(server_url, "sdx_clock_test", 1) as crew:
        assert crew.bench is not None
        yield crew.bench


def chance_of(wanted: float, *choices: float) -> int:
    """A seed whose first choice of these is the wanted one."""
    return next(seed for seed in count() if Random(seed).choice(choices) == wanted)


def story(dialect: str, killed_s: float, off_ms: int | None) -> Scenario:
    """Traded for a while, killed, an hour away, traded in its middle; ``off_ms``: the Date was wrong by so much."""
    kill = next(seed for seed in count() if _kill_lasts(seed))
    harm = [Harm(killed_s, "kill", 1, AWAY_S, kill)]
    if off_ms is not None:
        wrong = chance_of(off_ms, 2 * HOUR_MS, -2 * HOUR_MS, YEAR_9999_MS)
        harm.insert(0, Harm(WRONG_FROM_S, "wrong_date", 1, WRONG_FOR_S, wrong))
    told = crash_story(dialect)
    return replace(
        told,
        settings=replace(told.settings, every_s=2.0, max_age_s=100_000.0),
        harm=tuple(harm),
        actions=(*(2.2 + 0.25 * n for n in range(40)), *(TRADED_S + n for n in range(12))),
        coin_s=None,
        duration_s=killed_s + AWAY_S + 20,
    )


def _kill_lasts(seed: int) -> bool:
    chance = Random(seed)
    return chance.randint(1, 60) < 5 and chance.choice((0.0, 0.5, AWAY_S)) == AWAY_S


def gap_after(bench: Bench, scenario: Scenario, *, look_every_s: float = 60.0) -> tuple[float, float]:
    """From and until of the last gap, seconds of the story; the mirror equals the venue and every check is green.

    ``look_every_s``: how often what must hold at any moment is looked at."""
    account = f"clock-{next(_numbers)}"
    with mock.patch.object(world, "WATCH_EVERY_S", look_every_s):
        outcome = World(scenario, bench.server, account).run()
    assert outcome.failure is None, outcome.failure
    row = bench.server.run(
        bench.server.own.fetchrow(
            "SELECT from_ms, until_ms, closed_at FROM ledger.gaps WHERE account = $1 ORDER BY gap_id DESC LIMIT 1",
            account,
        )
    )
    assert row["closed_at"] is not None
    return (row["from_ms"] - START_MS) / 1000, (row["until_ms"] - START_MS) / 1000


@pytest.mark.parametrize(("dialect", "off_ms"), [("documented", 2 * HOUR_MS), ("full", YEAR_9999_MS)])
def test_a_date_wrong_for_seconds_leaves_the_gap_of_a_later_outage_as_it_is_without(
    bench: Bench, dialect: str, off_ms: int
) -> None:
    killed_s = WRONG_FROM_S + WRONG_FOR_S + 4
    began_s, ended_s = gap_after(bench, story(dialect, killed_s, None))
    assert began_s <= killed_s
    assert ended_s - began_s >= AWAY_S
    found = gap_after(bench, story(dialect, killed_s, off_ms))
    assert found == (pytest.approx(began_s, abs=1.5), pytest.approx(ended_s, abs=1.5))


def covers_the_outage(bench: Bench, scenario: Scenario, killed_s: float) -> None:
    # While it is away the mark stands ahead, as the planted mistake left it.
    began_s, ended_s = gap_after(bench, scenario, look_every_s=2 * AWAY_S)
    assert began_s <= killed_s
    assert ended_s - began_s >= AWAY_S


@pytest.mark.parametrize("off_ms", [2 * HOUR_MS, YEAR_9999_MS])
def test_a_mark_that_ran_ahead_is_found_out_by_the_databases_own_clock(bench: Bench, off_ms: int) -> None:
    """The process is killed while it believes the wrong time, which only a planted mistake makes it do.

    The venue has no time endpoint: its next answer would bring the right time.
    """
    killed_s = WRONG_FROM_S + 2
    with planted(PLANTS["one Date is believed"], bench.server):
        covers_the_outage(bench, story("documented", killed_s, off_ms), killed_s)
        # Whoever takes a mark as it stands loses the hour, or claims what lies in the future.
        with planted(TAKEN_AS_IT_STANDS, bench.server), pytest.raises(AssertionError):
            covers_the_outage(bench, story("documented", killed_s, off_ms), killed_s)
