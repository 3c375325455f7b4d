"""Objects of a class that the data set doesn't have: training refuses them, the doctor reports them beside all else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from detr_ft.data.doctor import Diagnosis
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.workflows.doctor import doctor


def coco(folder: Path) -> tuple[str, str, str]:
    """A COCO file with such an object, a box that leaves its image, and an image that is gone."""
    file = folder / "labels.json"
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    Image.new("RGB", (40, 30), "red").save(folder / "c.png")
    boxes = [(1, 7, [1, 2, 9, 9]), (12, 99, [3, 4, 9, 9]), (3, 7, [30, 2, 20, 9])]
    content = {
        "images": [
            {"id": 4 + i, "file_name": f"{name}.png", "width": 40, "height": 30} for i, name in enumerate("abc")
        ],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [
            *({"id": i, "image_id": 4, "category_id": of, "bbox": box} for i, of, box in boxes),
            {"id": 20, "image_id": 6, "category_id": 7, "bbox": [1, 2, 9, 9]},
        ],
    }
    file.write_text(json.dumps(content))
    return f"coco:{file}", f"{file}: annotation 12: category 99 is not among the file's categories", "annotation 12"


def yolo(folder: Path) -> tuple[str, str, str]:
    """The same in YOLO."""
    (folder / "images").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "images/a.png")
    Image.new("RGB", (40, 30), "red").save(folder / "images/c.png")
    (folder / "images/c.txt").write_text("0 .5 .5 .1 .2\n")
    (folder / "images/b.png").write_bytes(b"")
    (folder / "images/a.txt").write_text("0 .25 .25 .1 .2\n\n7 .5 .5 .1 .2\n0 .9 .5 .5 .2\n")
    (folder / "data.yaml").write_text("train: images\nnames: [dog]\n")
    where = f"{folder / 'images/a.txt'}, line 3"
    return f"yolo:{folder}", f"{where}: class 7 is not among the names (0 to 0)", "annotation 1"


def doctored(spec: str, **outputs: Path | str) -> Diagnosis:
    return doctor(spec, **outputs).diagnosis  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [coco, yolo])
def test_unknown_classes_are_reported_and_left_out_of_the_copy(
    tmp_path: Path, write: Callable[[Path], tuple[str, str, str]]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    spec, reported, annotation = write(data)
    with pytest.raises(InputError) as caught:
        load_data(spec)
    assert caught.value.problems[:-1] == [reported]
    diagnosis = doctored(spec, fix=str(tmp_path / "repaired"), report=tmp_path / "page.html")
    assert {one.kind for one in diagnosis.findings} > {"outside", "unknown class"}
    (found,) = (one for one in diagnosis.findings if one.kind == "unknown class")
    assert (found.message, found.level) == (reported, "error")
    assert found.where.endswith(annotation)
    assert diagnosis.splits["train"].boxes_per_class == {"dog": 3}
    # Without the object its image would be learned as if nothing were there.
    repaired = load_data(str(tmp_path / "repaired"))["train"]
    assert [Path(row["image"]["path"]).stem for row in repaired] == ["c"]
    # The copy is valid, but never clean without a word on what it lacks.
    assert [one.kind for one in doctored(f"coco:{tmp_path / 'repaired'}").findings] == ["repaired copy"]


def test_unknown_classes_are_reported_with_other_problems(tmp_path: Path) -> None:
    spec, reported, _ = yolo(tmp_path)
    file = tmp_path / "images/a.txt"
    file.write_text(file.read_text() + "0 .5 .5\n")
    found = [one for one in doctored(spec).findings if one.level == "error" and one.kind != "truncated"]
    lines = {one.kind: one.message.partition(", line ")[2][:2] for one in found if ", line " in one.message}
    assert lines == {"unreadable annotation": "5:", "unknown class": "3:"}
    assert reported in [one.message for one in found]


def test_the_names_stay_if_no_object_has_a_known_class(tmp_path: Path) -> None:
    spec, _, _ = coco(tmp_path)
    file = tmp_path / "labels.json"
    file.write_text(file.read_text().replace('"category_id": 7', '"category_id": 8'))
    assert doctored(spec).splits["train"].boxes_per_class == {"dog": 0}


def test_unknown_classes_of_unreadable_images_are_reported(tmp_path: Path) -> None:
    spec, _, _ = yolo(tmp_path)
    (tmp_path / "images/b.txt").write_text("8 .5 .5 .1 .2\n")
    found = [one for one in doctored(spec).findings if one.kind == "unknown class"]
    assert [Path(str(one.image)).name for one in found] == ["a.png (image 0)", "b.png (image 1)"]
