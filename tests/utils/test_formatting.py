from __future__ import annotations

import json

import pytest

from detr_ft.utils.formatting import change, duration, metric, minutes, percent, quantity, shorten, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (metric(0.12345), "0.123"),
        (metric(None), "none"),
        (metric(None, "–"), "–"),
        (change(0.5, 0.25), "−0.250"),
        (change(0.25, 0.5), "+0.250"),
        (change(None, 0.5), "–"),
        (percent(0.123), "12%"),
        (percent(0.0042), "0.4%"),
        (percent(0.0), "0%"),
        (percent(None), "–"),
        (quantity(1234.4), "1,234"),
        (quantity(3.0), "3"),
        (quantity(0.12345), "0.123"),
        (duration(80), "80 seconds"),
        (duration(89), "89 seconds"),
        (duration(90), "2 minutes"),
        (duration(600), "10 minutes"),
        (duration(5400), "1.5 hours"),
        (duration(9000), "2.5 hours"),
        (minutes(90), "1.5 minutes"),
    ],
)
def test_formatting(text: str, expected: str) -> None:
    assert text == expected


def test_control_characters_are_visible_and_other_text_stays() -> None:
    plain = "näme 名前\u3000\u200d👍 [bold]\\x\n\tend"
    assert visible(plain) == plain
    assert visible("\x1b[31m\x1b]8;;x\x07\x08\r") == r"\x1b[31m\x1b]8;;x\x07\x08\x0d"
    assert visible("\x9b\x7f\u202e\u2066\u2028\ud800\U000e0041") == r"\u009b\u007f\u202e\u2066\u2028\ud800\udb40\udc41"
    value = {"name\x7f\x9b\u202e\U000e0041": "\x1b"}
    assert json.loads(visible(json.dumps(value, ensure_ascii=False))) == value


def test_long_texts_are_shortened() -> None:
    assert shorten("a" * 40, 40) == "a" * 40
    short = shorten("a" * 30 + "b" * 100_000 + "c" * 10, 40)
    assert short == f"{'a' * 30} ... (100,000 characters left out) ... {'c' * 10}"
