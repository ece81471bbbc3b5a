"""Decimals enter through one gate, digit for digit, or not at all."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.facts.decimals import canonical, exact, is_negative, is_zero, non_negative, shown


@pytest.mark.parametrize(
    "text",
    ["0", "0.10", "64000.00", "0.01000000", "-3.5", "-0", ".5", "-.5", "1.", "9" * 60, "0." + "1" * 60],
)
def test_digits_are_kept_as_given(text: str) -> None:
    assert exact(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1E-8", "0.00000001"),
        ("1e8", "100000000"),
        ("1.50e+2", "150"),
        ("-2.5E-1", "-0.25"),
        (".5E1", "5"),
        ("0E-3", "0.000"),
        ("123456789012345678901234567890.5E1", "1234567890123456789012345678905"),
        ("1E40", "1" + "0" * 40),
        ("1E-40", "0." + "0" * 39 + "1"),
    ],
)
def test_exponents_are_written_out(text: str, plain: str) -> None:
    assert exact(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        "-.",
        " 1 ",
        "1\n",
        "+1",
        "--1",
        "1_000",
        "1,0",
        "1.2.3",
        "0x10",
        "１２",
        "١٢",
        "1\x00",
        "NaN",
        "-NaN",
        "sNaN",
        "Infinity",
        "inf",
        "1E",
        "E5",
        "1E41",
        "1E-41",
        "1e999999999",
        "9" * 61,
        "0." + "1" * 61,
        "9" * 30 + "E40",
        "0." + "0" * 50 + "1E-20",
        "1" * 60 + "." + "1" * 40,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a decimal, got "):
        exact(text)


@pytest.mark.parametrize("value", [None, True, False, 0, 1, 1.5, Decimal("1"), b"1", ["1"], {"a": "1"}])
def test_what_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a decimal, got "):
        exact(value)


def test_the_refusal_shows_what_came_and_stays_short() -> None:
    with pytest.raises(ValueError, match=r"^expected a decimal, got '1,0'$"):
        exact("1,0")
    with pytest.raises(ValueError, match="and 999960 more characters") as refusal:
        exact("1" * 1_000_000)
    assert len(str(refusal.value)) < 120


def test_what_is_shown_is_one_line_of_ascii() -> None:
    assert shown("a\nb\x00\ud800币") == r"'a\nb\x00\ud800\u5e01'"
    values: list[object] = [None, True, 7, 10**5000, []]
    assert [shown(value) for value in values] == ["null", "true", "7", "a huge number", "a list"]


@pytest.mark.parametrize("text", ["-1", "-0.00000001", "-1E-8"])
def test_below_zero_is_refused_where_it_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="zero or more"):
        non_negative(text)


@pytest.mark.parametrize("text", ["0", "-0", "-0.00", "-.0", "0.", "1"])
def test_negative_zero_is_zero(text: str) -> None:
    assert non_negative(text) == text
    assert is_zero(exact(text)) is (text != "1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.10", "0.1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("-.50", "-0.5"),
        ("007", "7"),
        ("100", "100"),
        ("-0", "0"),
        ("-0.000", "0"),
        ("0000.0100", "0.01"),
    ],
)
def test_equal_values_have_one_spelling(text: str, value: str) -> None:
    assert canonical(exact(text)) == value


plain_decimals = st.from_regex(
    r"-?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})", fullmatch=True, alphabet="-.0123456789"
)


@given(plain_decimals)
def test_an_exact_decimal_is_the_text_that_came(text: str) -> None:
    assert exact(text) == text


@given(plain_decimals, plain_decimals)
def test_spelling_agrees_with_arithmetic(left: str, right: str) -> None:
    one, other = exact(left), exact(right)
    with localcontext(prec=200):
        assert (canonical(one) == canonical(other)) == (Decimal(left) == Decimal(right))
        assert Decimal(canonical(one)) == Decimal(left)
        assert is_negative(one) == (Decimal(left) < 0)
        assert is_zero(one) == (Decimal(left) == 0)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value="-1e40", max_value="1e40", places=None))
def test_a_number_in_scientific_form_keeps_its_value(number: Decimal) -> None:
    text = f"{number:E}"
    try:
        plain = exact(text)
    except ValueError:
        assert abs(number.adjusted()) > 40 or len(number.as_tuple().digits) + abs(number.adjusted()) > 60
        return
    assert "E" not in plain
    assert Decimal(plain) == number


@given(st.text(max_size=30))
def test_what_passes_is_ascii_digits(text: str) -> None:
    try:
        passed = exact(text)
    except ValueError:
        return
    assert set(passed) <= set("-.0123456789")
    assert any(char.isdigit() for char in passed)
