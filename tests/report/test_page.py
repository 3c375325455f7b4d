from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.synthetic_detections import model, truth

from detr_ft.evaluation.assessment import Assessment, assess
from detr_ft.evaluation.detection_matching import match_detections
from detr_ft.evaluation.metrics import LayerMatching, MatchingMetrics, RunMetrics
from detr_ft.evaluation.query_statistics import QueryBoxes
from detr_ft.report.charts import precision_chart
from detr_ft.report.content import EvaluationReport, RunReport, Section
from detr_ft.report.page import SECTIONS, render_markdown, render_page
from detr_ft.report.pictures import AnnotatedPhoto, Outline
from detr_ft.utils.speed import Speed

EVIL = "<script>alert(1)</script>"
KEYS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")


class Page(HTMLParser):
    """Tags, attributes and text; complains of tags that don't close."""

    VOID = frozenset({"meta", "link", "img", "input"})

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


def assessment_of(names: list[str] | None = None, images: int = 30) -> Assessment:
    rng = np.random.default_rng(0)
    objects, hard = truth(rng, images)
    names = names or ["cup", "plate", "fork", "knife"]
    return assess(
        match_detections(names, images, objects, model(rng, objects, hard)), dict.fromkeys(names, 30), sets=50
    )


EXPECTED = assessment_of()
BEFORE = dict.fromkeys(KEYS, 0.0625) | {"map_small": None, "per_class": {}}
OUTLINE = Outline((4.0, 5.0, 20.0, 30.0), "cup", "#ff0000", 0.75)


def shot(picture: Image.Image | None = None, caption: str = "image 7", name: str = "cup") -> AnnotatedPhoto:
    picture = picture or Image.new("RGB", (64, 48), "teal")
    detected = Outline((4.0, 5.0, 20.0, 30.0), name, "#ff0000", 0.75)
    return AnnotatedPhoto("Worst", caption, picture, [Outline((1.0, 2.0, 9.0, 9.0), name, "#00ff00")], [detected])


def summary(**changes: Any) -> RunReport:
    log: list[dict[str, Any]] = [
        {"step": step, "epoch": step / 10, "learning_rate": 1e-4, "loss": 3.0, "loss_ce": 1.5, "loss_ce_0": 9.0}
        | {"loss_my_term2": 0.25, "cardinality_error": 4.0}
        for step in range(1, 30)
    ]
    log.append({"step": 29, "epoch": 2.9, "map": 0.5, "map_50": None})
    values: dict[str, Any] = {
        "title": "a run",
        "verdict": "It learned.",
        "before": BEFORE,
        "log": log,
        "data": {"trained on": "some images"},
        "criterion": "SetCriterion(\n  ...)",
        "recipe": "model: {}",
        "environment": {"torch": "2.0"},
        "command": "detr-ft train <recipe>",
    }
    evaluation: dict[str, Any] = {
        "assessment": EXPECTED,
        "photos": [shot()],
        "matching": MatchingMetrics(
            [LayerMatching(0.5, 0.9, 1.0, 1.25)], 80, unreached=3, beyond=2, queries=9, queries_used=7
        ),
        "queries": [QueryBoxes(4, 17, torch.rand(40, 4, generator=torch.Generator().manual_seed(0)))],
        "speed": Speed("an abacus", 1_234_567, (480, 640), 2_000_000_000, 12.5, (11.0, 14.0), 8, 90.0, None),
    }
    evaluation |= {name: changes.pop(name) for name in list(changes) if name in evaluation}
    return RunReport(evaluation=EvaluationReport(**evaluation), **(values | changes))


def test_the_page_is_whole_and_holds_the_figures() -> None:
    page = Page(render_page(summary()))
    assert page.open == []
    value, interval, errors = EXPECTED.coco["map"], EXPECTED.intervals["map"], EXPECTED.errors.counts
    assert interval is not None
    for text in (
        "It learned.", "0.062", f"{value:.3f}", f"{value - 0.0625:+.3f}", f"{interval.low:.3f} to {interval.high:.3f}",
        "cup", str(EXPECTED.coco["per_class"]["cup"]["count"]), "SetCriterion(\n  ...)", "torch", "some images",
        "an abacus", "1,234,567", "12.5 ms", "2.00 GFLOP", "7 of 9 queries", "3 objects have no query", "2 objects exceed", "1.25",
        f"localisationright class, box off (IoU 0.1 to 0.5){errors['localisation']}", "query 4: 17", "cup 0.75",
        "such images, mAP would average between", "Images by their number of objects",
    ):  # fmt: skip
        assert text in page.text, text
    assert "detr-ft train <recipe>" in page.text


def test_confusion_is_a_matrix_of_few_classes_and_a_list_of_many() -> None:
    page = render_page(summary())
    assert ("class", "matrix") in Page(page).attributes
    for count in EXPECTED.confusion.ravel().tolist():
        assert f">{count}</td>" in page
    rng = np.random.default_rng(0)
    objects, hard = truth(rng, 30)
    names = [f"class {number}" for number in range(30)]
    many = Page(
        render_page(
            summary(assessment=assess(match_detections(names, 30, objects, model(rng, objects, hard)), sets=20))
        )
    )
    assert ("class", "matrix") not in many.attributes
    assert "ObjectDetectedCount" in many.text.replace("\n", "")


def test_one_chart_for_each_of_map_loss_its_terms_and_the_rate() -> None:
    page = Page(render_page(summary()))
    assert page.tags.count("svg") == 5 + 3 + 1 + 1  # of the scores, of a query, over a picture
    for name, value in (("mAP", "0.5 → 0.5"), ("loss_ce", "1.5 → 1.5"), ("loss_my_term2", "0.25 → 0.25")):
        assert f"{name}{value}" in page.text
    assert not any(name in page.text for name in ("loss_ce_0", "cardinality_error", "mAP50–"))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("classes", "lines"), [(1, 0), (3, 3), (20, 20), (21, 0)])
def test_every_class_has_a_named_line_unless_there_are_many(classes: int, lines: int) -> None:
    matched, names = EXPECTED.matches, [f"class <{label}>" for label in range(classes)]
    objects = replace(matched.objects, label=np.arange(len(matched.objects.label)) % classes)
    result = replace(matched.detections, label=np.arange(len(matched.detections.label)) % classes)
    chart = precision_chart(match_detections(names, matched.num_images, objects, result))
    assert (
        re.findall("<title>(.*?)</title>", chart)
        == [name.replace("<", "&lt;").replace(">", "&gt;") for name in names][:lines]
    )
    assert "class-0" not in chart


def test_the_page_loads_no_other_file() -> None:
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
    assert page.tags.count("script") == 1  # the page's own


def test_names_captions_and_terms_are_escaped() -> None:
    evil = summary(
        assessment=assessment_of([EVIL, "b", "c", "d"]),
        photos=[shot(caption='"><script>', name=EVIL)],
        environment={EVIL: EVIL},
        title=EVIL,
    )
    page = Page(render_page(evil))
    assert page.text.count(EVIL) >= 8  # head and heading, class in two tables, names of outlines, name and value
    assert page.tags.count("script") == 1


def test_at_most_thirty_images_and_under_five_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    html = render_page(summary(photos=[shot(Image.fromarray(noise))] * 31))
    assert Page(html).tags.count("img") == 30
    assert len(html.encode()) < 5_000_000


def test_outlines_lie_over_the_picture_in_its_own_pixels() -> None:
    page = Page(render_page(summary()))
    assert ("viewbox", "0 0 64 48") in page.attributes
    assert ("stroke", "#ff0000") in page.attributes
    assert [value for name, value in page.attributes if name == "width" and value == "16.0"] == ["16.0", "16.0"]


def test_a_run_without_evaluation_log_or_pictures() -> None:
    page = Page(render_page(RunReport(title="a run", verdict="Nothing was measured.")))
    assert "Nothing was measured." in page.text
    assert page.tags.count("table") == page.tags.count("svg") == page.tags.count("img") == 0


def test_values_that_are_no_numbers_are_left_out_of_the_curves() -> None:
    log = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": None}]
    page = Page(render_page(summary(log=log)))
    assert "loss2 → 2" in page.text


def test_the_same_run_gives_the_same_page() -> None:
    assert render_page(summary()) == render_page(summary())


def test_a_set_without_objects_has_a_page() -> None:
    rng = np.random.default_rng(0)
    objects, hard = truth(rng, 3)
    no_objects = type(objects)(*(getattr(objects, name)[:0] for name in ("image", "label", "box", "area", "crowd")))
    empty = assess(match_detections(["cup", "b", "c", "d"], 3, no_objects, model(rng, objects, hard)), sets=20)
    assert Page(render_page(summary(assessment=empty, before=None))).open == []
    assert "| mAP | – | – |" in render_markdown(empty.metrics())


def test_markdown_holds_the_same_figures() -> None:
    text = render_markdown(EXPECTED.metrics())
    interval, one = EXPECTED.intervals["map"], EXPECTED.coco["per_class"]["cup"]
    assert interval is not None
    assert f"| mAP | {EXPECTED.coco['map']:.3f} | {interval.low:.3f} to {interval.high:.3f} |" in text
    assert f"| cup | {one['count']} | {one['map']:.3f} |" in text
    assert f"| missed | {EXPECTED.errors.counts['missed']} | {EXPECTED.costs['missed']:.3f} |" in text
    assert "a\\|b" in render_markdown(assessment_of(["a|b", "b", "c", "d"]).metrics())


def test_a_section_without_content_is_left_out() -> None:
    whole, empty = render_page(summary()), render_page(RunReport(title="a run", verdict="Nothing was measured."))
    for section in SECTIONS:
        assert f"<h2>{section.title}</h2>" in whole
        assert f"<h2>{section.title}</h2>" not in empty


def test_metrics_that_are_missing_leave_out_their_sections() -> None:
    assert render_markdown(RunMetrics(map=0.5)).count("### ") == 1
    assert "| mAP | 0.500 | – |" in render_markdown(RunMetrics(map=0.5))


def test_a_section_is_added_by_its_entry_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    section = Section(
        "Images",
        "<p>{{ images | thousands }} &amp; {{ name }}</p>",
        lambda report: {"images": 1200, "name": "<b>"} if report.evaluation else None,
        lambda metrics: f"{metrics.images} images\n",
    )
    monkeypatch.setattr("detr_ft.report.page.SECTIONS", (*SECTIONS, section))
    assert "<h2>Images</h2>\n<p>1,200 &amp; &lt;b&gt;</p>" in render_page(summary())
    assert "<h2>Images</h2>" not in render_page(RunReport(title="a run", verdict="Nothing was measured."))
    assert render_markdown(EXPECTED.metrics()).endswith("### Images\n\n30 images\n")
