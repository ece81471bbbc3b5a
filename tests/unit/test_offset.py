"""Which offset between two clocks is believed, and when."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.wire.offset import FAR_MS, LASTS_S, TRUST_MS, Offset, Reading, Source

HOUR_MS = 3_600_000


@dataclass
class Heard:
    """One reading: off by how much, from which part of the venue, at which second."""

    offset_ms: int
    source: Source
    at_s: float
    refused: bool = False
    passing: bool = False


def offset_after(*heard: Heard, own_ms: int = 0, settled_ms: int | None = None) -> Offset:
    """What is believed after these, where our own clocks say ``own_ms`` and ``settled_ms`` was believed before."""
    offset = Offset(2000)
    offset.vouch("this machine", own_ms)
    if settled_ms is not None:
        offset.set(settled_ms, 50, 0.0)
    for one in heard:
        reading = Reading(one.offset_ms, 50, one.at_s, one.source)
        offset.hear(reading, refused=one.refused, passing=one.passing)
    return offset


@pytest.mark.parametrize("source", ["time", "date"])
@pytest.mark.parametrize("off_ms", [HOUR_MS, -HOUR_MS, 30_000, -30_000, 10 * FAR_MS])
def test_one_reading_alone_never_moves_what_was_believed(source: Source, off_ms: int) -> None:
    offset = offset_after(Heard(off_ms, source, 1.0), settled_ms=0)
    assert offset.ms == 0
    assert offset.may_be_ahead is (off_ms < 0)


CASES = [
    # what was heard                                                       own      before  believed
    ([("time", 30_000, 1), ("time", 30_100, 1)], 0, 0, 30_100),  # near our own clock: two are enough
    ([("date", HOUR_MS, 1), ("date", HOUR_MS, 5)], 0, 0, 0),  # nobody vouches for it
    ([("date", HOUR_MS, 1), ("time", HOUR_MS, 5)], 0, 0, 0),  # both parts of the venue, against what was known
    ([("date", HOUR_MS, 1), ("date", HOUR_MS, 1 + LASTS_S)], 0, 0, HOUR_MS),  # but it lasts
    ([("date", HOUR_MS, 1), ("time", HOUR_MS, 1)], HOUR_MS, 0, HOUR_MS),  # our own clock says the same
    ([("date", HOUR_MS, 1), ("time", HOUR_MS, 1)], 0, None, HOUR_MS),  # first contact, a machine an hour behind
    ([("date", HOUR_MS, 1), ("date", HOUR_MS, 2)], 0, None, 0),  # by one part alone: the older counts for now
    ([("date", -HOUR_MS, 1)], 0, None, -HOUR_MS),  # and that is the venue's
    ([("date", HOUR_MS, 1), ("time", 0, 2), ("date", HOUR_MS, 70)], 0, 0, 0),  # told otherwise in between
    ([("time", 10 * FAR_MS, 1), ("date", 10 * FAR_MS, 100)], 0, None, 0),  # nonsense, however long
]


@pytest.mark.parametrize(("heard", "own_ms", "before_ms", "believed_ms"), CASES)
def test_what_is_believed(
    heard: list[tuple[Source, int, float]], own_ms: int, before_ms: int | None, believed_ms: int
) -> None:
    told = [Heard(offset_ms, source, at_s) for source, offset_ms, at_s in heard]
    assert offset_after(*told, own_ms=own_ms, settled_ms=before_ms).ms == believed_ms


def test_what_the_venue_refused_speaks_for_what_it_tells_then() -> None:
    told = [Heard(HOUR_MS, "date", 1.0, refused=True), Heard(HOUR_MS + 500, "date", 1.1, refused=True)]
    assert abs(offset_after(*told, settled_ms=0).ms - HOUR_MS) <= 500


@pytest.mark.parametrize(("own_ms", "believed_ms"), [(0, 0), (HOUR_MS, HOUR_MS)])
def test_what_the_venue_refused_to_hear_is_not_believed_unless_a_clock_of_our_own_says_it(
    own_ms: int, believed_ms: int
) -> None:
    offset = offset_after(Heard(HOUR_MS, "date", 1.0), own_ms=own_ms, settled_ms=0)
    offset.refuse(HOUR_MS)
    offset.hear(Reading(HOUR_MS, 50, 2.0, "date"), refused=True)
    offset.hear(Reading(HOUR_MS, 50, 3.0 + LASTS_S, "time"), refused=True)
    assert offset.ms == believed_ms


def test_a_step_back_is_counted_and_says_since_when_the_wrong_offset_was_believed() -> None:
    offset = offset_after(Heard(HOUR_MS, "date", 1.0), Heard(HOUR_MS, "time", 2.0))
    assert (offset.ms, offset.steps_back) == (HOUR_MS, 0)
    offset.hear(Reading(0, 50, 9.0, "time"))
    assert offset.may_be_ahead
    offset.hear(Reading(0, 50, 9.5, "time"))
    assert (offset.ms, offset.steps_back, offset.doubted_since_s) == (0, 1, 2.0)


@given(
    st.lists(
        st.builds(
            Heard,
            st.sampled_from([0, 1500, HOUR_MS, -HOUR_MS, 2 * HOUR_MS, 251_000_000_000_000]),
            st.sampled_from(["time", "date"]),
            st.floats(0, 300),
            st.booleans(),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_what_is_believed_was_told_twice_and_is_never_a_day_off(heard: list[Heard]) -> None:
    offset = Offset(2000)
    offset.vouch("this machine", 0)
    offset.set(0, 50, 0.0)
    seen: list[int] = []
    for one in sorted(heard, key=lambda one: one.at_s):
        before_ms = offset.ms
        offset.hear(Reading(one.offset_ms, 50, one.at_s, one.source), refused=one.refused, passing=one.passing)
        seen.append(one.offset_ms)
        if abs(offset.ms - before_ms) > TRUST_MS + 50:
            assert sum(abs(told_ms - offset.ms) <= TRUST_MS + 100 for told_ms in seen) >= 2
        assert abs(offset.ms) <= FAR_MS
