from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_ft.report.page import RunSummary, render_page

EVIL = "<script>alert(1)</script>"
KEYS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")


class Page(HTMLParser):
    """Tags, attributes and text; complains of tags that don't close."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def metrics(value: float, name: str = "cup") -> dict[str, Any]:
    per_class = {name: {"map": value, "map_50": None, "mar_100": 0.8, "count": 17}}
    return dict.fromkeys(KEYS, value) | {"map_small": None, "per_class": per_class}


def summary(**changes: Any) -> RunSummary:
    log: list[dict[str, Any]] = [
        {"step": step, "epoch": step / 10, "learning_rate": 1e-4, "loss": 3.0, "loss_ce": 1.5, "loss_ce_0": 9.0}
        | {"loss_my_term2": 0.25, "cardinality_error": 4.0}
        for step in range(1, 30)
    ]
    log.append({"step": 29, "epoch": 2.9, "map": 0.5, "map_50": None})
    picture = Image.new("RGB", (64, 48), "teal")
    values: dict[str, Any] = {
        "title": "a run",
        "verdict": "It learned.",
        "before": metrics(0.0625),
        "after": metrics(0.6125),
        "log": log,
        "gallery": [("image 7", picture, picture)],
        "criterion": "SetCriterion(\n  ...)",
        "recipe": "model: {}",
        "environment": {"torch": "2.0"},
        "command": "detr-ft train <recipe>",
    }
    return RunSummary(**(values | changes))


def test_the_page_is_whole_and_holds_the_figures() -> None:
    page = Page(render_page(summary()))
    assert page.open == []
    for text in ("It learned.", "0.062", "0.613", "+0.550", "cup", "17", "SetCriterion(\n  ...)", "torch"):
        assert text in page.text
    assert "detr-ft train <recipe>" in page.text


def test_one_chart_for_each_of_map_loss_its_terms_and_the_rate() -> None:
    page = Page(render_page(summary()))
    assert page.tags.count("svg") == 5
    for name, value in (("mAP", "0.5 → 0.5"), ("loss_ce", "1.5 → 1.5"), ("loss_my_term2", "0.25 → 0.25")):
        assert f"{name}{value}" in page.text
    assert not any(name in page.text for name in ("loss_ce_0", "cardinality_error", "mAP50–"))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched() -> None:
    html = render_page(summary())
    for name, value in Page(html).attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action"):
            assert value.startswith(("data:", "#"))
    assert "@import" not in html
    assert "url(http" not in html


@pytest.mark.parametrize("place", ["title", "verdict", "criterion", "recipe", "command"])
def test_text_is_escaped(place: str) -> None:
    page = Page(render_page(summary(**{place: EVIL})))
    assert EVIL in page.text
    assert "script" not in page.tags


def test_names_captions_and_terms_are_escaped() -> None:
    picture = Image.new("RGB", (8, 8))
    evil = summary(
        after=metrics(0.5, EVIL), gallery=[('"><script>', picture, picture)], environment={EVIL: EVIL}, title=EVIL
    )
    page = Page(render_page(evil))
    assert page.text.count(EVIL) == 5  # head and heading, class, name and value
    assert "script" not in page.tags


def test_at_most_twelve_images_and_under_five_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    gallery = [("noise", Image.fromarray(noise), Image.fromarray(noise))] * 13
    html = render_page(summary(gallery=gallery))
    assert Page(html).tags.count("img") == 24
    assert len(html.encode()) < 5_000_000


def test_a_run_without_evaluation_log_or_pictures() -> None:
    page = Page(render_page(RunSummary(title="a run", verdict="Nothing was measured.", after={})))
    assert "Nothing was measured." in page.text
    assert page.tags.count("table") == page.tags.count("svg") == page.tags.count("img") == 0


def test_values_that_are_no_numbers_are_left_out_of_the_curves() -> None:
    log = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": None}]
    page = Page(render_page(summary(log=log)))
    assert "loss2 → 2" in page.text


def test_the_same_run_gives_the_same_page() -> None:
    assert render_page(summary()) == render_page(summary())
