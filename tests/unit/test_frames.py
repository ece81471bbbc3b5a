"""Frames: whatever comes over the socket is read, or has a problem; it never stops the stream."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from ledger.errors import UnreadableFrame
from ledger.venue.frames import AccountPosition, BalanceUpdate, ExecutionReport, Frame, Unread, read
from ledger.venue.reading import storable
from ledger.venue.stream_events import facts
from tests.samples import STREAM, TEN_FIELDS, name, ten_fields

NOT_UNDERSTOOD = {"externalLockUpdate", "outboundAccountInfo"}


def frame_of(payload: object) -> Frame:
    return read(json.dumps(payload).encode())


@pytest.mark.parametrize("sample", STREAM, ids=name)
def test_every_sample_is_read(sample: dict[str, Any]) -> None:
    frame = frame_of(sample["payload"])
    assert frame.kind == sample["kind"]
    assert (frame.problem is None) == (sample["kind"] not in NOT_UNDERSTOOD)
    if sample["kind"] in NOT_UNDERSTOOD:
        assert frame.problem == f"unknown event {sample['kind']}"


@pytest.mark.parametrize(
    "envelope",
    [
        lambda event: event,
        lambda event: {"stream": "a listen key", "data": event},
        lambda event: {"subscriptionId": 0, "event": event},
        lambda event: {"event": event},
    ],
    ids=["bare", "stream-data", "subscriptionId-event", "event"],
)
def test_every_envelope_is_opened(envelope: Any) -> None:
    assert frame_of(envelope(TEN_FIELDS)) == frame_of(TEN_FIELDS)
    assert isinstance(frame_of(envelope(TEN_FIELDS)).event, ExecutionReport)


def test_an_event_with_a_field_named_like_an_envelope_is_still_the_event() -> None:
    assert frame_of(ten_fields(data={"e": "listStatus"})) == frame_of(TEN_FIELDS)


@pytest.mark.parametrize(
    ("payload", "venue_ms"),
    [
        ({"e": "executionReport", "T": 5, "E": 6}, 5),
        ({"e": "executionReport", "E": 6}, 6),
        ({"e": "outboundAccountPosition", "u": 5, "E": 6, "B": []}, 5),
        ({"e": "outboundAccountPosition", "E": 6, "B": []}, 6),
        ({"e": "outboundAccountPosition", "B": []}, None),
        ({"e": "balanceUpdate", "T": 5, "E": 6, "a": "BTC", "d": "1"}, 5),
        ({"e": "listenKeyExpired", "E": 6}, 6),
        ({"e": "listStatus", "T": 5, "E": 6}, 6),
        ({"e": "tomorrow", "E": 6}, 6),
        ({"e": "tomorrow", "E": "6"}, None),
        ({"e": "tomorrow", "E": True}, None),
        ({"e": "tomorrow", "E": -1}, None),
        ({"e": "tomorrow", "E": 1719467634105000}, None),
        ({"E": 6}, 6),
    ],
)
def test_the_clock_of_each_kind(payload: dict[str, Any], venue_ms: int | None) -> None:
    assert frame_of(payload).venue_ms == venue_ms


def test_fields_that_differ_by_case_only_are_kept_apart() -> None:
    event = frame_of(ten_fields(z="0.02", Z="1280.00", t=7, T=9, c="mine", C="")).event
    assert isinstance(event, ExecutionReport)
    assert (event.l, event.L, event.n, event.N) == ("0.01000000", "64000.00", "0.64", "USDT")
    assert (event.z, event.Z, event.t, event.T, event.c, event.C) == ("0.02", "1280.00", 7, 9, "mine", "")


def test_unknown_fields_are_ignored() -> None:
    assert frame_of(ten_fields(uS=True, pl={"a": [1.5, None]}, eR=1)) == frame_of(TEN_FIELDS)


def test_other_events_have_their_shape() -> None:
    assert isinstance(frame_of({"e": "outboundAccountPosition", "B": []}).event, AccountPosition)
    assert isinstance(frame_of({"e": "balanceUpdate", "a": "BTC", "d": "-1", "T": 5}).event, BalanceUpdate)


@pytest.mark.parametrize("kind", ["listStatus", "listenKeyExpired", "serverShutdown", "eventStreamTerminated"])
def test_kinds_without_facts_are_no_problem(kind: str) -> None:
    assert frame_of({"e": kind, "E": 6}) == Frame(kind, 6, None, None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"17",
        b"[]",
        b'"executionReport"',
        b"{}",
        b'{"result":null,"id":1}',
        b'{"e":null}',
        b'{"e":""}',
        b'{"e":7}',
        b'{"e":["executionReport"]}',
        b'{"e":"' + b"x" * 65 + b'"}',
        b'{"e":"a\\u0000b"}',
        b'{"e":"a\\nb"}',
        b'{"e":"a\\ud800b"}',
        b'{"stream":"x","data":[]}',
        b'{"e":"executionReport"',
        b'{"e":"executionReport"}{',
        b"\xef\xbb\xbf" + b'{"e":"executionReport"}',
        '{"e":"executionReport"}'.encode("utf-16"),
        b'{"e":"executionReport","s":"\xff"}',
        b'{"e":"executionReport","s":"\xed\xa0\x80"}',
        b'{"e":"executionReport","s":"a\x00b"}',
        b'{"e":"executionReport","l":01}',
        b'{"e":"executionReport","i":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"e":"executionReport","x":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"e":"\\ud800","x":' + b"[" * 900 + b"]" * 900 + b"}",
        b"<html>502 Bad Gateway</html>",
    ],
    ids=range(31),
)
def test_what_names_no_event_is_unreadable(raw: bytes) -> None:
    frame = read(raw)
    assert (frame.kind, frame.event) == ("unreadable", None)
    assert_storable(frame)
    assert frame.problem


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"l": 0.01}, "field l: expected str | null, got the number 0.01"),
        ({"l": float("nan")}, "field l: expected str | null, got the number NaN"),
        ({"l": 1}, "field l: expected str | null, got 1"),
        ({"l": True}, "field l: expected str | null, got true"),
        ({"n": ["0.64"]}, "field n: expected str | null, got a list"),
        ({"i": "288274"}, "field i: expected int, got '288274'"),
        ({"i": 288274.0}, "field i: expected int, got the number 288274.0"),
        ({"i": True}, "field i: expected int, got true"),
        ({"i": -1}, "field i: expected int >= 0, got -1"),
        ({"i": 2**63}, "field i: expected int <= 9223372036854775807, got 9223372036854775808"),
        ({"t": 2**64}, "field t: expected int | null <= 9223372036854775807, got a huge number"),
        ({"s": None}, "field s: expected str, got null"),
        ({"s": ""}, "field s: expected str of length >= 1, got ''"),
        ({"s": "A" * 65}, f"field s: expected str of length <= 64, got '{'A' * 40}' and 25 more characters"),
        ({"X": ""}, "field X: expected str of length >= 1, got ''"),
        ({"X": "A" * 65}, f"field X: expected str of length <= 64, got '{'A' * 40}' and 25 more characters"),
        ({"N": "A" * 65}, "field N: expected "),
        ({"T": 1717430400500000}, "field T: expected int | null <= 253402300799999, got 1717430400500000"),
        ({"T": 0}, "field T: expected int | null >= 1, got 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_field_of_the_wrong_type_is_a_problem_that_names_it(changed: dict[str, Any], problem: str) -> None:
    frame = frame_of(ten_fields(**changed))
    assert (frame.kind, frame.event) == ("executionReport", None)
    assert frame.problem is not None
    assert frame.problem.startswith("executionReport ")
    assert problem.replace(" | null <=", " <=").replace(" | null >=", " >=") in frame.problem.replace(
        " | null <=", " <="
    )
    assert_storable(frame)


def test_a_problem_names_symbol_and_order() -> None:
    problem = frame_of(ten_fields(l=1)).problem
    assert problem == "executionReport BTCUSDT/288274: field l: expected str | null, got 1"
    assert frame_of({"e": "executionReport"}).problem == "executionReport: field s: expected one, got none"


def test_a_row_of_a_position_is_named_by_its_place() -> None:
    rows = [{"a": "BTC", "f": "1", "l": "0"}, {"a": "ETH", "f": 1.5, "l": "0"}]
    problem = frame_of({"e": "outboundAccountPosition", "B": rows}).problem
    assert problem == "outboundAccountPosition: field B[1].f: expected str, got the number 1.5"
    without = frame_of({"e": "outboundAccountPosition", "B": [{"a": "BTC", "f": "1"}]}).problem
    assert without == "outboundAccountPosition: field B[0].l: expected one, got none"


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud800", r"\udfff", r"\ud800A"])
@pytest.mark.parametrize("field", ["s", "X", "N"])
def test_text_that_no_database_stores_is_a_problem(field: str, escape: str) -> None:
    raw = json.dumps(ten_fields(**{field: "@"})).replace('"@"', f'"a{escape}b"').encode()
    frame = read(raw)
    assert (frame.kind, frame.venue_ms, frame.event) == ("executionReport", 1717430400500, None)
    assert_storable(frame)
    assert "NUL or half a character" in (frame.problem or "")


def test_other_escapes_are_just_text() -> None:
    raw = json.dumps(ten_fields(s="币安人生USDT", c="\u202eabc, def\U0001f600")).encode()
    assert b"\\u" in raw
    event = read(raw).event
    assert isinstance(event, ExecutionReport)
    assert (event.s, event.c) == ("币安人生USDT", "\u202eabc, def\U0001f600")


@pytest.mark.parametrize(
    "tail",
    [
        b'"l":"5"}',
        b'"l" : "5"}',
        b'"c":"a,b","l":"5"}',
        b'"\\u006c":"5"}',
    ],
)
def test_a_key_named_twice_is_a_problem(tail: bytes) -> None:
    raw = json.dumps(TEN_FIELDS).encode()[:-1] + b"," + tail
    frame = read(raw)
    assert (frame.kind, frame.event) == ("executionReport", None)
    assert "expected every key once" in (frame.problem or "")


def test_a_key_named_twice_within_what_nobody_reads_is_no_problem() -> None:
    frame = read(json.dumps(TEN_FIELDS).encode()[:-1] + b',"uS":{"a":1,"b":2,"a":1}}')
    assert (frame.event, frame.problem, frame.remark) == (frame_of(TEN_FIELDS).event, None, None)


@pytest.mark.parametrize(
    ("changed", "kept", "remark"),
    [
        ({"f": ""}, {"f": None}, "field f: expected str of length >= 1, got ''"),
        (
            {"o": "A" * 65},
            {"o": None},
            f"field o: expected str of length <= 64, got '{'A' * 40}' and 25 more characters",
        ),
        ({"c": "A" * 129}, {"c": None}, "field c: expected str of length <= 128, got "),
        ({"C": 7}, {"C": None}, "field C: expected str | null, got 7"),
        ({"c": "a\0b"}, {"c": None}, "field c: expected text, got NUL or half a character in 'a\\x00b'"),
        ({"c": "a\ud800b"}, {"c": None}, "field c: expected text, got NUL or half a character in 'a\\ud800b'"),
        ({"m": 1}, {"m": None}, "field m: expected bool | null, got 1"),
        ({"O": 1717430400500000}, {"O": None}, "field O: expected int <= 253402300799999, got 1717430400500000"),
        ({"n": "0", "N": ""}, {"N": None, "n": "0"}, "field N: expected str of length >= 1, got ''"),
        ({"n": None, "N": 0.5}, {"N": None, "n": None}, "field N: expected str | null, got the number 0.5"),
        (
            {"f": "", "m": "no"},
            {"f": None, "m": None},
            "field f: expected str of length >= 1, got ''; field m: expected ",
        ),
        (
            {"o": "MARKET", "q": "10.0", "z": "1250"},
            {"q": None},
            "field q: expected at least the executed '1250', got '10.0'",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_field_that_only_describes_never_costs_the_report(
    changed: dict[str, Any], kept: dict[str, Any], remark: str
) -> None:
    frame = frame_of(ten_fields(**changed))
    plain = frame_of(ten_fields(**{name: value for name, value in changed.items() if name not in kept}, **kept))
    assert (frame.event, frame.problem, frame.venue_ms) == (plain.event, None, plain.venue_ms)
    assert frame.event is not None
    assert (frame.remark or "").startswith(f"remark: {remark}")
    assert_storable(frame)


def test_the_asset_of_a_fee_that_was_paid_is_no_description() -> None:
    assert "field N: expected " in (frame_of(ten_fields(n="0.1", N="")).problem or "")


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"l": 1}, Unread("BTCUSDT", 288274, 1717430400500)),
        ({"i": "x"}, Unread("BTCUSDT", None, 1717430400500)),
        ({"T": 1717430400500123, "E": 1717430400500123}, Unread("BTCUSDT", 288274, 1717430400500)),
        ({"T": "soon"}, Unread("BTCUSDT", 288274, None)),
        ({"s": ""}, None),
        ({"s": "a\0b"}, None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_report_that_cannot_be_read_says_what_it_is_about(changed: dict[str, Any], about: Unread | None) -> None:
    frame = frame_of(ten_fields(**changed))
    assert (frame.event, frame.about) == (None, about)
    assert frame.problem


def test_a_key_named_twice_in_an_envelope_is_a_problem() -> None:
    event = json.dumps(TEN_FIELDS).encode()
    assert "expected every key once" in (read(b'{"data":' + event + b',"data":' + event + b"}").problem or "")


def test_a_frame_of_many_keys_is_only_a_frame() -> None:
    raw = json.dumps(TEN_FIELDS | {f"k{n}": n for n in range(100_000)}).encode()
    assert read(raw) == frame_of(TEN_FIELDS)


def assert_storable(frame: Frame) -> None:
    """Kind and problem go into text columns and logs as they are."""
    for text in (frame.kind, frame.problem or ""):
        assert text.isprintable()
        assert len(text.encode()) < 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from([*"esiSXlLnNTExofcCqpzZYtmOuBad", "data", "event"])
kinds = st.sampled_from(["executionReport", "outboundAccountPosition", "balanceUpdate", "listenKeyExpired", "x"])


def facts_or_problem(raw: bytes) -> None:
    """Reading never raises, making facts raises UnreadableFrame only, no fact has text that cannot be
    stored."""
    frame = read(raw)
    assert_storable(frame)
    assert frame.event is None or frame.problem is None
    with suppress(UnreadableFrame):
        for fact in facts(frame):
            assert all(storable(value) for value in astuple(fact) if isinstance(value, str))


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_stream(raw: bytes) -> None:
    facts_or_problem(raw)


@given(json_values)
def test_no_json_stops_the_stream(tree: object) -> None:
    facts_or_problem(json.dumps(tree).encode())


@given(kinds, st.dictionaries(fields, json_values, max_size=8))
def test_no_event_stops_the_stream(kind: str, changed: dict[str, Any]) -> None:
    facts_or_problem(json.dumps(TEN_FIELDS | changed | {"e": kind}).encode())


@given(st.data())
def test_no_damage_on_the_way_stops_the_stream(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(data.draw(st.sampled_from(STREAM))["payload"]).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    facts_or_problem(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@given(
    st.lists(
        st.tuples(st.text(max_size=2), st.sampled_from(["1", '"a,b"', "[1,2]", "{}", '{"k":1,"k":2}'])),
        max_size=6,
    )
)
def test_a_repeated_key_is_always_found(members: list[tuple[str, str]]) -> None:
    """The quick count of commas must never pass what a look at every key would refuse."""
    text = ",".join(f"{json.dumps(key)}:{value}" for key, value in [("e", '"listStatus"'), *members])
    repeated = len({"e", *(key for key, _ in members)}) <= len(members) or any('"k":2' in value for _, value in members)
    frame = read(f"{{{text}}}".encode())
    assert ("expected every key once" in (frame.problem or "")) == repeated or frame.kind == "unreadable"
