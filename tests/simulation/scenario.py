"""What a seed chooses: market, dialect, settings, and which harm comes when.

Pure: the same seed is the same scenario. Harm that would make the truth unknowable is not combined: where a dialect
tells no trades, nobody can tell a doubled frame from a lost fill of that size, so there a seed either doubles fills or
loses frames; a frame that a healthy socket never delivers can be found again only by a walk somebody asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from ledger.sandbox.books import PAIRS
from ledger.sandbox.dialects import DIALECTS, Dialect
from tests.simulation.mirror import Settings

CRASH_SEED = 5
REFUSED_MARKETS = tuple(symbol for symbol in sorted(PAIRS)[1:] if symbol != "BTCUSDT")
"""Markets the venue may refuse: named in the settings, since one that is only guessed is dropped for the day; and none
that the program probes the venue with."""

# Harm by kind: how likely, and whether frames are lost for good by it.
_HARM: dict[str, tuple[int, bool]] = {
    "cut": (10, True),
    "cut_one": (4, True),
    "hang_up": (4, True),
    "shutdown": (3, True),
    "silence": (5, True),
    "refuse_sockets": (3, True),
    "expire_key_told": (3, True),
    "expire_key": (3, True),
    "double": (8, False),
    "disorder": (6, False),
    "late": (6, True),
    "garbage": (3, False),
    "oversize": (3, True),
    "rest_status": (6, False),
    "rest_html": (3, False),
    "rest_cut": (3, False),
    "rest_slow": (3, False),
    "rest_lost": (3, False),
    "rest_banned": (5, False),
    "rest_down": (3, False),
    "rest_lag": (8, False),
    "not_found": (3, False),
    "db_lost_before": (5, False),
    "db_answer_lost": (7, False),
    "db_backend_terminated": (3, False),
    "db_lock_timeout": (3, False),
    "db_away": (4, False),
    "db_slow": (6, False),
    "kill": (10, True),
    "stop": (3, True),
    "pause": (4, True),
    "second": (4, True),
    "jump": (3, False),
    "wrong_date": (5, False),
    "went_back": (5, True),
    "page_cap": (8, False),
    "limit_refused": (4, False),
    "history_cut": (8, False),
    "list_late": (8, False),
    "begin_anew": (12, True),
    "went_back_away": (6, True),
    "refuse_market": (6, False),
    "odd_rows": (8, False),
    "deny_trades": (4, False),
    "rest_odd": (4, False),
    "odd_endings": (4, False),
    "db_grants": (4, False),
    "db_function": (4, False),
    "db_content": (8, False),
    "unreadable": (8, True),
    "empty_fields": (5, False),
    "amend": (8, True),
    "no_key": (4, True),
    # Stories that chance hardly ever tells: they come only where a run asks for them.
    "coin_unheard": (0, True),
    "twin_in_lag": (0, False),
    "lost_then_canceled": (0, True),
    "trade_before_frame": (0, False),
}
_SILENT_LOSS = {"lose_frames": 12, "deafen": 10}
"""Harm that only a walk somebody asks for can find: only in seeds that have one."""
KINDS = frozenset(_HARM.keys() | _SILENT_LOSS.keys())
"""Every kind of harm there is."""


@dataclass(frozen=True, slots=True)
class Harm:
    """Something bad at ``at_s`` seconds; what the numbers mean depends on the kind."""

    at_s: float
    kind: str
    count: int
    seconds: float
    chance: int
    """Seed of what else must be chosen."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One seed's world. Times in s; ``actions`` are the moments of the market's actions."""

    seed: int
    dialect: Dialect
    settings: Settings
    history: int
    history_days: int
    page_rows: int
    venue_weight: int
    duration_s: float
    actions: tuple[float, ...]
    coin_s: tuple[float, float] | None
    """When an asset nobody traded comes, and when all of it goes; None: neither."""
    batch_max: int
    """Frames the consumer writes in one call."""
    harm: tuple[Harm, ...]
    doubles_fills: bool
    loses_silently: bool
    wall_off_ms: int
    lingers: bool
    """Whether the world is watched for another while after it was found healthy."""
    hides_rejected: bool
    """Whether REST has none of the orders that were rejected."""
    archived_after_s: float | None
    """Whether REST has none of the orders that ended without an execution so long ago."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of harm that come."""
        return frozenset(harm.kind for harm in self.harm)

    @property
    def overlap_s(self) -> float:
        """How far a walk reaches back before its gap: as many times the lag as the program's own minute is of 10 s."""
        return 6 * self.settings.rest_lag_s


def choose(seed: int, needs: str | None = None) -> Scenario:
    """The scenario of a seed. ``needs``: a kind of harm that comes in any case, and twice."""
    rng = Random(f"scenario {seed}")
    name = rng.choice(tuple(DIALECTS))
    clockless = name == "documented" and rng.random() < 0.3
    dialect = Dialect("documented", position_clock=False) if clockless else DIALECTS[name]
    doubles_only = not dialect.trades and rng.random() < 0.3
    loses_silently = not doubles_only and rng.random() < 0.2
    duration_s = rng.uniform(15, 50)
    rest_lag_s = rng.choice((1.0, 1.0, 2.0, 4.0))
    keepalive_s = rng.choice((6.0, 10.0, 30.0))
    tight = rng.random() < 0.08
    settings = Settings(
        sockets=rng.choice((1, 1, 1, 2)),
        rest_lag_s=rest_lag_s,
        silence_s=rng.choice((3.0, 4.0, 8.0)),
        every_s=rng.choice((8.0, 15.0, 25.0)),
        keepalive_s=keepalive_s,
        key_ttl_s=keepalive_s * rng.choice((2.0, 3.0)),
        max_age_s=rng.choice((9.0, 20.0, 1000.0, 1000.0)),
        weight_per_minute=600 if tight else 20_000,
    )
    harm = _harm(rng, duration_s, doubles_only, loses_silently, needs)
    kinds = {one.kind for one in harm}
    if "refuse_market" in kinds:
        settings = replace(settings, symbols=("BTCUSDT", *REFUSED_MARKETS))
    needs_past = kinds & {"history_cut", "begin_anew", "list_late"}
    return Scenario(
        seed=seed,
        dialect=dialect,
        settings=settings,
        history=rng.choice((40, 80) if needs_past else (0, 5, 40, 80)),
        history_days=rng.choice((20, 400) if needs_past else (1, 20, 400)),
        page_rows=rng.choice((4, 8, 25, 1000)),
        venue_weight=1_200 if tight else 1_000_000,
        duration_s=duration_s,
        actions=_moments(rng, duration_s, harm),
        coin_s=(rng.uniform(0, duration_s / 2), rng.uniform(duration_s / 2, duration_s))
        if rng.random() < 0.4
        else None,
        batch_max=rng.choice((1000, 1000, 4, 1)),
        harm=harm,
        doubles_fills=doubles_only or dialect.trades,
        loses_silently=loses_silently,
        wall_off_ms=rng.choice((0, 0, 0, 700, -1500, 90_000, -90_000)),
        lingers=rng.random() < 0.2,
        hides_rejected=rng.random() < 0.3,
        archived_after_s=rng.choice((None, None, None, 10.0)),
    )


def crash_story(dialect: str) -> Scenario:
    """The one story of the crash matrix: a first walk over pages, every kind of frame, and an outage to walk again.

    The market of this seed makes new orders, partial fills, fills, cancels and movements within its few actions.
    """
    settings = Settings(
        sockets=1,
        rest_lag_s=1.0,
        silence_s=4.0,
        every_s=1000.0,
        keepalive_s=3.0,
        key_ttl_s=9.0,
        max_age_s=1000.0,
        weight_per_minute=20_000,
    )
    return Scenario(
        seed=CRASH_SEED,
        dialect=DIALECTS[dialect],
        settings=settings,
        history=20,
        history_days=1,
        page_rows=4,
        venue_weight=1_000_000,
        duration_s=7.0,
        actions=tuple(2.2 + 0.12 * n for n in range(30)),
        coin_s=(2.5, 5.5),
        batch_max=1000,
        harm=(Harm(4.0, "cut", 1, 0.0, 0), Harm(4.0, "refuse_sockets", 1, 0.5, 0)),
        doubles_fills=False,
        loses_silently=False,
        wall_off_ms=0,
        lingers=False,
        hides_rejected=False,
        archived_after_s=None,
    )


def _moments(rng: Random, duration_s: float, harm: tuple[Harm, ...]) -> tuple[float, ...]:
    """When the market acts: alone, in bursts, and while something goes wrong."""
    moments: list[float] = []
    for _ in range(rng.randint(10, 45)):
        at_s = rng.uniform(0.0, duration_s)
        moments += [at_s + rng.uniform(0, 0.1) for _ in range(rng.choice((1, 1, 1, 2, 6)))]
    moments += [min(one.at_s + rng.uniform(0, 2.5), duration_s) for one in harm for _ in range(rng.choice((0, 1, 4)))]
    return tuple(sorted(moments))


def _harm(
    rng: Random, duration_s: float, doubles_only: bool, loses_silently: bool, needs: str | None
) -> tuple[Harm, ...]:
    allowed = {kind: weight for kind, (weight, loses) in _HARM.items() if not (doubles_only and loses)}
    if loses_silently:
        allowed |= _SILENT_LOSS
    if doubles_only:
        allowed["double"] = 20
    # Few kinds a seed, so that each gets its turn undisturbed by the others.
    kinds = rng.sample(sorted(kind for kind, weight in allowed.items() if weight), rng.choice((1, 2, 4, 8)))
    weights = [allowed[kind] for kind in kinds]
    harm = [
        Harm(
            # The first walk over all history is short, and deserves its share.
            at_s=rng.uniform(0.0, duration_s if rng.random() < 0.75 else 5.0),
            kind=kind,
            count=rng.choice((1, 1, 2, 3, 8)),
            seconds=rng.choice((0.5, 2.0, 5.0, 12.0)),
            chance=rng.getrandbits(32),
        )
        for kind in [*rng.choices(kinds, weights, k=rng.randint(0, 12)), *([needs] * 2 if needs in allowed else [])]
    ]
    if not doubles_only:
        # What is half done when a process dies is where mistakes hide.
        harm += [
            Harm(one.at_s + rng.uniform(0.05, 2.0), "kill", 1, 0.5, rng.getrandbits(32))
            for one in harm
            if rng.random() < 0.12
        ]
        if rng.random() < 0.1:
            harm.append(Harm(rng.uniform(0.5, 4.0), "kill", 1, 0.5, rng.getrandbits(32)))
    return tuple(sorted(harm, key=lambda one: one.at_s))
