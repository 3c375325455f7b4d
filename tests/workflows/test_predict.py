"""`predict` on folders, URLs and images that can't be used, and what it writes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.cli.text import describe_predictions
from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.structures import Detections
from detr_ft.workflows.evaluate import evaluate
from detr_ft.workflows.predict import PredictOutcome, predict

Write = Callable[..., Path]
FORMATS = ("coco", "yolo", "labelme", "labelstudio", "cvat", "csv")


def noise(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in subfolders, two of one name, and files that are no images of the user."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    for seed, name in enumerate(("Cam1/0.jpg", "Cam1/1.png", "Cam2/100/0.jpg", "2.bmp")):
        save(noise(seed), folder / name)
    save(noise(9), folder / ".thumbnails/0.jpg")
    save(noise(9), folder / "Cam1/@eaDir/0.jpg")
    (folder / "notes.txt").write_text("x")
    return folder


def written(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_subfolders_are_searched_and_separate(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    outcome = predict(tiny_checkpoint, photos, output_dir=tmp_path / "out", threshold=0)
    names = ["2.bmp", "Cam1/0.jpg", "Cam1/1.png", "Cam2/100/0.jpg"]
    assert outcome.files == tuple(photos / name for name in names)
    assert outcome.failures == ()
    assert written(tmp_path / "out") == {
        "predictions.json",
        "annotations.json",
        "pictures/2-boxes.png",
        "pictures/Cam1/0-boxes.jpg",
        "pictures/Cam1/1-boxes.png",
        "pictures/Cam2/100/0-boxes.jpg",
    }
    assert outcome.predictions == tmp_path / "out/predictions.json"
    for name, format in (("2-boxes.png", "PNG"), ("Cam1/0-boxes.jpg", "JPEG")):
        with Image.open(tmp_path / "out/pictures" / name) as picture:
            assert picture.format == format


def test_detections_are_those_of_the_detector(tiny_checkpoint: Path, photos: Path) -> None:
    outcome = predict(tiny_checkpoint, [photos / "Cam1/0.jpg", photos / "2.bmp"], threshold=0.2)
    detector = Detector.load(str(tiny_checkpoint))
    for file, detected in zip(outcome.files, outcome.detections, strict=True):
        expected = detector(open_image(file), 0.2)
        assert detected.scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-5)
        assert detected.labels.tolist() == expected.labels.tolist()
    assert outcome.thresholds == dict.fromkeys(("cat", "dog", "owl"), 0.2)


def test_results_name_their_images_as_given(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    for number, given in enumerate(("photos", str(photos), Path("photos"))):
        predict(tiny_checkpoint, given, output_dir=tmp_path / f"out{number}", threshold=0)
        rows = json.loads((tmp_path / f"out{number}/predictions.json").read_text())
        assert {(row["image_id"], row["file_name"]) for row in rows} == {
            (0, "photos/2.bmp"),
            (1, "photos/Cam1/0.jpg"),
            (2, "photos/Cam1/1.png"),
            (3, "photos/Cam2/100/0.jpg"),
        }


def test_paths_outside_of_the_current_folder_stay_absolute(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    predict(tiny_checkpoint, photos / "2.bmp", output_dir="out", threshold=0)
    rows = json.loads(Path("out/predictions.json").read_text())
    assert {row["file_name"] for row in rows} == {(photos / "2.bmp").as_posix()}


def test_files_are_detected_once(tiny_checkpoint: Path, photos: Path) -> None:
    outcome = predict(tiny_checkpoint, [photos / "Cam1", "photos/Cam1/0.jpg", photos / "Cam1/0.jpg"])
    assert outcome.files == (photos / "Cam1/0.jpg", photos / "Cam1/1.png")


def damaged(photos: Path) -> dict[Path, str]:
    """Damaged images in the folder, and words of their reasons."""
    content = (photos / "Cam1/0.jpg").read_bytes()
    (photos / "Cam1/half.jpg").write_bytes(content[: len(content) // 2])
    (photos / "Cam1/text.jpg").write_text("no image")
    save(noise(5, (2000, 4)), photos / "thin.png")
    os.symlink(photos / "gone.jpg", photos / "link.jpg")
    return {
        photos / "Cam1/half.jpg": "truncated or damaged",
        photos / "Cam1/text.jpg": "not an image",
        photos / "link.jpg": "does not exist",
        photos / "thin.png": "2000x4 pixels are too thin",
    }


def test_images_that_cannot_be_used_are_left_out(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    bad = damaged(photos)
    outcome = predict(tiny_checkpoint, photos, output_dir=tmp_path / "out", threshold=0, batch_size=2)
    assert {failure.file for failure in outcome.failures} == set(bad)
    for failure in outcome.failures:
        assert bad[Path(failure.file)] in failure.reason
        assert str(failure).startswith(f"{failure.file}: ")
        assert not any(word in str(failure) for word in ("PIL", "height and width", "Error", "max_height", "bytes"))
    assert [Path(file).name for file in outcome.files] == ["2.bmp", "0.jpg", "1.png", "0.jpg"]
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    # The ids are the positions among all files, as sources of data count them.
    assert {(row["image_id"], row["file_name"]) for row in rows} == {
        (0, "photos/2.bmp"),
        (1, "photos/Cam1/0.jpg"),
        (2, "photos/Cam1/1.png"),
        (5, "photos/Cam2/100/0.jpg"),
    }
    assert len(list((tmp_path / "out/pictures").rglob("*-boxes.*"))) == 4


def test_only_images_that_cannot_be_used(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    bad = damaged(photos)
    outcome = predict(tiny_checkpoint, list(bad), output_dir=tmp_path / "out", format=FORMATS)
    assert outcome.files == outcome.detections == ()
    assert len(outcome.failures) == 4
    assert not (tmp_path / "out").exists()
    assert (outcome.predictions, outcome.labels) == (None, {})


def test_the_command_ends_with_2_after_everything_is_written(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    bad = damaged(photos)
    done = CliRunner(env={"COLUMNS": "500"}).invoke(
        app, ["predict", str(tiny_checkpoint), "photos", "--out", "out", "--threshold", "0.01", "--format", "yolo"]
    )
    assert done.exit_code == 2
    for file, words in bad.items():
        (line,) = (line for line in done.stderr.splitlines() if file.name in line)
        assert words in line
        assert line.startswith("error: photos/")
    assert "score threshold: 0.01" in done.stderr
    assert len(list((tmp_path / "out/yolo/labels").rglob("*.txt"))) == 4
    assert not (tmp_path / "out/predictions.json").exists()
    good = CliRunner().invoke(app, ["predict", str(tiny_checkpoint), "photos/Cam1/0.jpg", "--out", "good"])
    assert good.exit_code == 0, good.stderr
    assert (tmp_path / "good/predictions.json").is_file()


def test_mistakes_in_arguments_are_reported_together(tiny_checkpoint: Path, photos: Path) -> None:
    (photos / "empty").mkdir()
    done = CliRunner(env={"COLUMNS": "500"}).invoke(
        app, ["predict", "./gone", "lost.jpg", "photos/empty", "photos/2.bmp", "--format", "voc"]
    )
    assert done.exit_code == 2
    assert all(word in done.stderr for word in ("./gone", "lost.jpg", "photos/empty", "voc"))
    with pytest.raises(InputError) as caught:
        predict(tiny_checkpoint, ["lost.jpg", photos / "empty"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_back(tiny_checkpoint: Path, photos: Path, tmp_path: Path, format: str) -> None:
    save(noise(4), photos / "Cam1/0.png")  # the stem of another image
    outcome = predict(tiny_checkpoint, photos, output_dir=tmp_path / "out", threshold=0.02, format=format)
    assert set(outcome.labels) == {format}
    assert outcome.labels[format].exists()
    folder = tmp_path / "out" if format == "coco" else tmp_path / "out" / format
    split = load_data(f"{format}:{folder}", images=None if format in ("yolo", "labelme") else photos)["train"]
    names = class_names(split)
    detections = dict(zip(outcome.files, outcome.detections, strict=True))
    assert sum(map(len, outcome.detections)) > 0
    originals = {Path(file).read_bytes(): file for file in outcome.files}
    assert len(split) == 5
    for row in split:
        detected = detections[originals[Path(row["image"]["path"]).read_bytes()]]
        boxes = row["objects"]["bbox"]
        assert [names[label] for label in row["objects"]["category"]] == [name for _, _, name in detected]
        if format == "coco":
            assert boxes == [pytest.approx([x0, y0, x1 - x0, y1 - y0]) for (x0, y0, x1, y1), _, _ in detected]
        else:
            assert boxes == [pytest.approx(clipped(box, 60, 40), abs=1e-4) for box, _, _ in detected]


def clipped(box: tuple[float, ...], width: int, height: int) -> list[float]:
    x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def test_evaluate_reads_what_predict_writes(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best detections as truth: each matches itself, with other ids of images and from any folder."""
    predict(tiny_checkpoint, "photos", output_dir="out", threshold=0)
    content = json.loads(Path("out/annotations.json").read_text())
    # As truth, one object each image, with other ids than those of the predictions.
    objects = [next(row for row in content["annotations"] if row["image_id"] == i) for i in range(4)]
    for image in content["images"]:
        image["id"] = 100 - image["id"]
    content["annotations"] = [{**row, "id": i, "image_id": 100 - row["image_id"]} for i, row in enumerate(objects)]
    (photos / "truth.json").write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    results = tmp_path / "out/predictions.json"
    metrics = evaluate(data=f"coco:{photos}/truth.json", from_predictions=results).metrics
    assert metrics.coco()["mar_100"] == 1
    # The COCO file with scores is a file of predictions, too.
    scores = [row["score"] for row in json.loads(results.read_text())]
    as_coco = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [row["score"] for row in as_coco["annotations"]] == scores
    again = evaluate(data=f"coco:{photos}/truth.json", from_predictions=tmp_path / "out/annotations.json").metrics
    assert again.coco() == metrics.coco()


def test_thresholds_are_printed_by_class_if_they_differ() -> None:
    def shown(**thresholds: float) -> str:
        outcome = PredictOutcome((), (), tuple(thresholds), thresholds=thresholds)
        return describe_predictions(outcome)

    assert "threshold: 0.25" in shown(cat=0.25, dog=0.25)
    assert "cat 0.25, dog 0.4" in shown(cat=0.25, dog=0.4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    stream = BytesIO()
    noise(7).save(stream, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith("/shop/image")
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(stream.getvalue() if known else b"")

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_urls_are_downloaded(tiny_checkpoint: Path, photos: Path, tmp_path: Path, server: str) -> None:
    urls = [f"{server}/shop/image.png?size=large", f"{server}/shop/image", f"{server}/gone.png"]
    outcome = predict(tiny_checkpoint, [*urls, "photos/2.bmp"], output_dir="out", threshold=0, format=["coco", "yolo"])
    assert outcome.files == (*urls[:2], Path("photos/2.bmp"))
    (failure,) = outcome.failures
    assert failure.file == urls[2]
    assert "404" in failure.reason
    assert not failure.reason.startswith("http")
    rows = json.loads(Path("out/predictions.json").read_text())
    assert {row["file_name"] for row in rows} == {*urls[:2], "photos/2.bmp"}
    downloads = tmp_path / "out/downloads/127.0.0.1/shop"
    assert {file.name for file in downloads.iterdir()} == {"image.png", "image"}
    assert {file.name for file in (tmp_path / "out/yolo/images/127.0.0.1/shop").iterdir()} == {
        "image.png",
        "image-2.png",
    }
    assert len(load_data("yolo:out/yolo")["train"]) == 3


def test_a_url_needs_no_output_folder(tiny_checkpoint: Path, photos: Path, server: str) -> None:
    before = written(photos.parent)
    outcome = predict(tiny_checkpoint, f"{server}/shop/image.png", threshold=0)
    assert isinstance(outcome.detections[0], Detections)
    assert len(outcome.detections[0]) > 0
    assert written(photos.parent) == before
