"""What a suite measures: a value, its reference of the same run, the goal, and whether that is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeats of one measurement, in ``unit``."""

    values: tuple[float, ...]
    unit: str

    @property
    def middle(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        around = "" if len(self.values) == 1 else f" ({short(low)} to {short(high)})"
        return f"{short(self.middle)} {self.unit}{around}"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for the value itself, or for its ratio to the reference."""

    of: Literal["ratio", "value"]
    side: Literal["at least", "at most"]
    bound: float

    def holds(self, figure: Figure) -> bool:
        told = figure.ratio if self.of == "ratio" else figure.value.middle
        assert told is not None, "a ratio needs a reference"
        return told >= self.bound if self.side == "at least" else told <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. ``reference_is`` says in words what the value is held against."""

    suite: str
    what: str
    value: Spread
    reference: Spread | None = None
    reference_is: str = ""
    goal: Goal | None = None
    series: str = ""
    """The line of the suite's chart this is a point of; empty: none."""
    at: float = 0.0
    """Where on the chart's axis it lies."""

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its reference, of medians."""
        return None if self.reference is None else self.value.middle / self.reference.middle

    @property
    def met(self) -> bool | None:
        """None: there is no goal."""
        return None if self.goal is None else self.goal.holds(self)

    def cells(self) -> tuple[str, ...]:
        """The line as the table shows it."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        unit = "x" if self.goal and self.goal.of == "ratio" else f" {self.value.unit}"
        goal = "" if self.goal is None else f"{self.goal.side} {short(self.goal.bound)}{unit}"
        met = {None: "", True: "met", False: "NOT MET"}[self.met]
        reference = "" if self.reference is None else f"{self.reference} {self.reference_is}"
        return (self.suite, self.what, str(self.value), reference, ratio, goal, met)

    def plain(self) -> dict[str, Any]:
        """The line for programs."""
        return {
            "suite": self.suite,
            "what": self.what,
            "unit": self.value.unit,
            "values": list(self.value.values),
            "reference": None if self.reference is None else list(self.reference.values),
            "reference_unit": None if self.reference is None else self.reference.unit,
            "reference_is": self.reference_is or None,
            "ratio": self.ratio,
            "goal": None if self.goal is None else f"{self.goal.of} {self.goal.side} {self.goal.bound}",
            "met": self.met,
        }


HEAD = ("suite", "what", "value (lowest to highest)", "reference of the same run", "ratio", "goal", "")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def short(number: float) -> str:
    """Three significant digits, thousands apart."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"
