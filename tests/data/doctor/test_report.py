"""The doctor's page: defect, effect and repair of each kind, with pictures; it loads nothing, is small and escaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from datasets import DatasetDict
from PIL import Image

from detr_ft.data.doctor import examine
from detr_ft.errors import InputError
from detr_ft.report.doctor import render_report, write_report

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, attributes and text; complains of tags that don't close."""

    VOID = frozenset({"meta", "link", "img", "br"})

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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(data: DatasetDict) -> Page:
    html = render_report(examine(data), data)
    assert len(html) < 5_000_000
    return Page(html)


def test_a_kind_has_effect_remedy_location_and_picture(make_rows) -> None:
    data = DatasetDict({"train": make_rows([[10, 10, 50, 40], [150, 10, 90, 40]])})
    doctor_page = page(data)
    assert "0 errors, 1 warning and 0 notes: the data can be trained on." in doctor_page.text
    for words in ("A box extends beyond its image.", "Training clips it", "then clip them", "annotation 1001", "dog"):
        assert words in doctor_page.text
    assert doctor_page.tags.count("img") == 2  # of the finding, and an ordinary image
    for name, value in doctor_page.attributes:
        if name in ("src", "href", "srcset"):
            assert value.startswith(("data:", "#"))


def test_the_box_is_drawn_in_its_place(make_rows) -> None:
    import base64
    from io import BytesIO

    data = DatasetDict({"train": make_rows([[40, 60, 100, 0], [20, 60, 100, 60]], size=(400, 300))})
    Image.new("RGB", (400, 300), "white").save(data["train"][0]["image"]["path"])
    *_, source = (value for name, value in page(data).attributes if name == "src")  # the finding's, after samples
    picture = Image.open(BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB")
    coloured = [
        (x, y) for x in range(picture.width) for y in range(picture.height) if min(picture.getpixel((x, y))) < 200
    ]
    scale = picture.width / 400
    assert min(x for x, _ in coloured) == pytest.approx(40 * scale, abs=4)
    assert max(y for _, y in coloured) <= 66 * scale


def test_clean_data_has_a_page_as_well(make_rows) -> None:
    doctor_page = page(DatasetDict({"train": make_rows([[10, 10, 50, 40]])}))
    assert "no findings: the data can be trained on." in doctor_page.text
    assert doctor_page.tags.count("img") == 1  # an ordinary image with its boxes


def test_names_are_escaped(make_rows) -> None:
    doctor_page = page(DatasetDict({"train": make_rows([[10, 10, 50, 0]], names=[EVIL], folder="<b>x")}))
    assert EVIL in doctor_page.text
    assert "script" not in doctor_page.tags
    assert "b" not in doctor_page.tags


def test_many_findings_and_large_images_stay_small(make_rows) -> None:
    boxes = [[*[[5 + place, 5, 0, 9] for place in range(40)], [-50, 5, 90, 9], [5, 9, -3, 3]] for _ in range(30)]
    data = DatasetDict({"train": make_rows(*boxes, size=(420, 300), folder="a" * 200)})
    doctor_page = page(data)
    assert "1,200 findings" in doctor_page.text
    assert "--json lists all" in doctor_page.text
    assert doctor_page.tags.count("img") == 36 + 3 + 6  # of defects, of patterns (30 equal images), and ordinary images
    assert doctor_page.text.count("annotation 10") <= 250


def test_files_that_do_not_open_have_no_picture(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([[10, 10, 50, 40]], [])})
    (tmp_path / "train/0.png").write_bytes(b"no image")
    (tmp_path / "train/1.png").unlink()
    doctor_page = page(data)
    assert "img" not in doctor_page.tags
    assert "training would refuse this data or learn it wrongly; repair the errors first." in doctor_page.text


def test_nothing_is_written_over(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([[10, 10, 50, 40]])})
    diagnosis = examine(data)
    write_report(diagnosis, data, tmp_path / "new/report.html")
    assert (tmp_path / "new/report.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InputError, match="not overwritten"):
        write_report(diagnosis, data, tmp_path / "new/report.html")
    with pytest.raises(InputError, match="can't be written"):
        write_report(diagnosis, data, tmp_path / "new/report.html/x.html")
