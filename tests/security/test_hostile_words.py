"""Whatever text the venue sends, a person sees all of it, and nothing of it acts: no print lets anything else through.

Each print is given rows whose every text is the venue's. What comes out is visible characters alone, in as many lines
as harmless text makes, with the text as it was wherever it shows itself.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from ledger import cli, log, output, screen
from ledger.doctor import Finding
from ledger.escapes import UNSEEN, escaped, escaped_json
from ledger.quarantine import Retried
from ledger.replay import Difference, Result, TableResult
from ledger.verify import Report, Row, Verdict

UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
"""Unicode's categories of what does not show itself; the space is one of them."""
AT = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
HOSTILE = (
    "[/nope]",
    "[red]x[/red]",
    "\x1b[2J\x1b]0;gone\x07",
    "\x9b2J",
    "\u202egnp.exe",
    "x\nmain 1  settled",
    "a\r\tb\x0b\x0c\x85c\u2028d\u2029e",
    "\ud800",
    "{task.description}",
    ":skull:",
    "\\x1b[2J",
)
WORDS = st.one_of(
    st.text(min_size=1),
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("[]/\\\x1b\x9b\n\r\t\u202e\u2066\ufeffab :"), min_size=1),
)


def status(word: str) -> None:
    numbers = dict.fromkeys(
        ("open_gaps", "gaps", "coverage_holes", "missing_executions", "provisional_fills", "order_checks", "head_seq",
         "unknown_statuses", "open_discrepancies", "frames_seen", "unreadable_frames", "weight_used"), 3
    )  # fmt: skip
    texts = dict.fromkeys(("account", "rest_origin", "leader", "paused_error", "mode", "last_problem", "last_error",
                           "outage_cause", "stream_error"), word)  # fmt: skip
    times = dict.fromkeys(("led_since", "paused_since", "last_error_at", "outage_since", "asked_at", "beat_at",
                           "last_frame_at", "live_since"), AT)  # fmt: skip
    spans = dict.fromkeys(("complete_through_ms", "complete_from_ms", "oldest_hole_ms", "blocked_until_ms",
                           "markets_walked", "markets_known", "last_frame_ms"), 1_700_000_000_000)  # fmt: skip
    cli.print_status([numbers | texts | times | spans | {"led": True, "live": False}])


def discrepancies(word: str) -> None:
    texts = dict.fromkeys(("account", "kind", "subject", "expected", "actual", "resolution", "symbol", "asset"), word)
    ids = {"discrepancy_id": 1, "evidence_seq": 1, "order_id": 1, "trade_id": 1, "seq": 1, "uncovered_from_ms": 1}
    one = texts | ids | {"opened_at": AT, "residual": Decimal("-0.1")}
    cli.print_discrepancies([one | {"resolved_at": None}, one | {"resolved_at": AT}])


def quarantined(word: str) -> None:
    texts = dict.fromkeys(("account", "source", "kind", "symbol", "problem", "sqlstate"), word)
    cli.print_quarantined([texts | {"seq": 1, "received_at": AT, "last_try_at": AT, "tries": 2}])


def retried(word: str) -> None:
    cli.print_retried([Retried(word, 1, None, problem=word)])


def verdicts(word: str) -> None:
    one = Verdict(word, word, 30, (Row(word, word, 1),), word)
    cli.print_verdicts(Report(word, 7, (one,)), whole=True)


def replayed(word: str) -> None:
    first = (Difference("orders", word, word, word, word),)
    cli.print_replayed(Result(word, 7, (TableResult("orders", 1, 1, 0, 0, 1, "aa", "bb", first),)))


def findings(word: str) -> None:
    cli.print_findings([Finding(word, "failed", word, word, 4)])


def line(word: str) -> None:
    output.line(f"{word}: {word}")


def demo_screen(word: str) -> None:
    fill = {"executed_at": AT, "executed_ms": 5, "qty": Decimal(1), "price": Decimal(1), "fee": None}
    words = dict.fromkeys(("symbol", "side", "fee_asset", "source"), word)
    output.show(screen.fills([fill | words]).table(100_000))


PRINTS: tuple[Callable[[str], None], ...] = (
    status,
    discrepancies,
    quarantined,
    retried,
    verdicts,
    replayed,
    findings,
    line,
    demo_screen,
)


def printed(show: Callable[[str], None], word: str) -> str:
    stream = io.StringIO()
    with redirect_stdout(stream):
        show(word)
    return stream.getvalue()


def acts(text: str) -> list[str]:
    """The characters of a text that do something, or do not show."""
    return [one for one in text if one not in " \n" and unicodedata.category(one) in UNSHOWN]


@pytest.mark.parametrize("show", PRINTS, ids=lambda show: show.__name__)
@given(word=WORDS)
@example(word="[/nope]")
@example(word="\x1b[2J\x9b2J\u202e\nmain 1  settled")
def test_no_word_of_the_venue_does_anything_but_show(show: Callable[[str], None], word: str) -> None:
    text = printed(show, word)

    assert acts(text) == []
    assert text.count("\n") == printed(show, "harmless").count("\n"), "it began a line of its own"
    assert escaped(word) in text, "it is not all there"


@given(word=WORDS)
@example(word="\x1b]0;x\x07")
def test_on_a_terminal_there_are_our_colours_and_nothing_of_the_venue(word: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with redirect_stdout(stream), pytest.MonkeyPatch.context() as terminal:
        terminal.setenv("TERM", "xterm-256color")
        terminal.delenv("NO_COLOR", raising=False)
        verdicts(word)

    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(stream.getvalue())
    assert acts(colour.sub("", stream.getvalue())) == []


@given(told=st.recursive(WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)))
def test_json_shows_itself_and_reads_back_as_what_was_said(told: Any) -> None:
    text = printed(lambda _: output.print_json("sdx-ledger/test/1", told=told), "")
    surrogates = json.dumps(told)  # a pair of halves is read back as what they are together

    assert acts(text) == []
    assert text.count("\n") == 1
    assert json.loads(text) == {"schema": "sdx-ledger/test/1", "told": json.loads(surrogates)}


@pytest.fixture
def own_logging() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    before, level = list(root.handlers), root.level
    yield
    log.flush()
    root.handlers[:], root.level = before, level
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()


def logged(word: str, form: str) -> str:
    stream = io.StringIO()
    # Nobody else keeps the lines: a test report cannot hold halves of pairs.
    logging.getLogger().handlers.clear()
    with redirect_stderr(stream):
        log.setup("info", form)
        structlog.get_logger("ledger.x").info(word, subject=word, several=[word], known={word: word})
        try:
            raise ValueError(word)
        except ValueError:
            structlog.get_logger("ledger.x").exception("it failed")
            logging.getLogger("websockets.client").warning("library: %s", word, exc_info=True)
        log.flush()
    return stream.getvalue()


@pytest.mark.usefixtures("own_logging")
def test_logs_let_nothing_through_in_either_form() -> None:
    @given(word=WORDS, form=st.sampled_from(["json", "console"]))
    def holds(word: str, form: str) -> None:
        text = logged(word, form)

        assert acts(text) == []
        began = [one for one in text.splitlines() if not one.startswith("  ")]
        assert len(began) == 3, f"it began a line of its own: {text}"

    holds()


@pytest.mark.parametrize("word", HOSTILE)
def test_an_error_of_the_program_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.line(f"sdx-ledger: the venue says '{word}'", err=True)

    shown = capsys.readouterr().err
    assert acts(shown) == []
    assert shown.count("\n") == 1


def test_every_character_that_does_not_show_is_on_the_list() -> None:
    listed = {number for first, last in UNSEEN for number in range(first, last + 1)}
    unseen = {number for number in range(0x110000) if number != 0x20 and unicodedata.category(chr(number)) in UNSHOWN}

    assert unseen - listed == set()
    assert escaped("币安人生USDT Ünï 😀 a\\b") == "币安人生USDT Ünï 😀 a\\b"
    assert escaped("a\x1b\x9b\u202e\n\U000e0041") == r"a\x1b\x9b\u202e\x0a\U000e0041"
    assert json.loads(escaped_json('"\U000e0041\x7f"')) == "\U000e0041\x7f"
