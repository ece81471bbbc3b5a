"""A suite's chart: one PNG file, the reference of the same run as a dashed line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.bench.figures import Figure

AXIS = {"latency": "offered events a second", "scale": "stored fills"}


def draw(figures: Sequence[Figure], where: str, file: Path) -> None:
    """Draw the figures of one suite that are points of a line; there must be some."""
    suite, unit = figures[0].suite, figures[0].value.unit
    fig, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    for series in dict.fromkeys(figure.series for figure in figures if figure.series):
        points = [figure for figure in figures if figure.series == series]
        (line,) = axes.plot([point.at for point in points], [point.value.middle for point in points], marker="o")
        line.set_label(series)
        held = [(point.at, point.reference.middle) for point in points if point.reference is not None]
        if held:
            said = f"{series}, the reference of the same run"
            axes.plot(*zip(*held, strict=True), linestyle="--", color=line.get_color(), alpha=0.6, label=said)
    axes.set(xscale="log", xlabel=AXIS[suite], ylabel=unit)
    if suite == "latency":
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(f"{suite}: {where}", fontsize=8)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(file, metadata={"Software": ""})
    plt.close(fig)
