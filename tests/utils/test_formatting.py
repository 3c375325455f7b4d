from __future__ import annotations

import pytest

from detr_ft.utils.formatting import change, duration, metric, minutes, percent, quantity


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
