"""Images in every form that a detector is called with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.inference import Detector, images
from detr_ft.inference.images import read_image
from detr_ft.structures import Detections


def pattern(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


PAGES: dict[str, tuple[str, bytes]] = {
    "/image.png": ("image/png", png(pattern())),
    "/untyped": ("application/octet-stream", png(pattern())),
    "/page": ("text/html", b"<html></html>"),
    "/broken.png": ("image/png", b"no image"),
    "/large.png": ("image/png", bytes(4000)),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path in ("/slow.png", "/slow-head.png"):
            if self.path == "/slow.png":
                self._head(200, "image/png")
            else:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            with suppress(BrokenPipeError, ConnectionResetError):  # of a client that does not wait
                for _ in range(20):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        elif self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/image.png")
            self.end_headers()
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/image.png")
            self.end_headers()
        elif self.path in PAGES:
            kind, data = PAGES[self.path]
            self._head(200, kind)
            self.wfile.write(data)
        else:
            self._head(404, "text/plain")

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_all_forms_give_the_same_pixels(tmp_path: Path, server: str) -> None:
    image = pattern()
    image.save(tmp_path / "image.png")
    array = np.asarray(image)
    channels_first = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms: list[Any] = [
        image, str(tmp_path / "image.png"), tmp_path / "image.png", array, array[:, :, ::-1][:, :, ::-1],
        channels_first, channels_first.float() / 255, channels_first.double() / 255,
        f"{server}/image.png", f"{server}/untyped", f"{server}/redirect",
    ]  # fmt: skip
    for form in forms:
        assert np.array_equal(np.asarray(read_image(form)), array)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((4, 5, 3), dtype=np.float32), "must be uint8, got float32"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"must be \[H, W, 3\], got \[3, 4, 5\]"),
        (np.zeros((4, 5), dtype=np.uint8), r"got \[4, 5\]"),
        (np.zeros((4, 5, 4), dtype=np.uint8), r"got \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), dtype=np.uint8), r"got \[0, 5, 3\]"),
        (torch.zeros(4, 5, 3), r"must be \[3, H, W\], got \[4, 5, 3\]"),
        (torch.zeros(1, 3, 4, 5), r"got \[1, 3, 4, 5\]"),
        (torch.zeros(3, 4, 5, dtype=torch.long), "got torch.int64"),
        (torch.full((3, 4, 5), 255.0), "0 to 1, got 255 to 255"),
        (torch.full((3, 4, 5), -0.5), "0 to 1, got -0.5"),
        (torch.full((3, 4, 5), float("nan")), "0 to 1, got nan"),
        (7, "got int"),
        (None, "got NoneType"),
        (b"bytes", "got bytes"),
        ({"url": "photo.jpg"}, "got a dictionary of url"),
        ({"path": None, "bytes": None}, "got a dictionary of path, bytes"),
        ({"image": 3}, "got int"),
    ],
)
def test_other_values_are_refused_with_what_to_pass(value: Any, words: str) -> None:
    detector = Detector.load("embedded:small")
    for argument, place in ((value, "image"), ([value], r"images\[0\]")):
        with pytest.raises(InputError, match=rf"^{place}: .*{words}.*Pass a path"):
            detector(argument)


def test_rows_of_a_data_set_are_images() -> None:
    detector = Detector.load(Path("embedded:small"))
    split = generate("shapes?train=0&validation=0&test=2&seed=2")["test"]
    rows = list(split)
    expected = detector.detect([open_image(row["image"]) for row in rows])
    for forms in (rows, [row["image"] for row in rows], split, [{"image": open_image(row["image"])} for row in rows]):
        for ours, theirs in zip(detector.detect(forms), expected, strict=True):
            assert torch.equal(ours.boxes, theirs.boxes)
    assert isinstance(detector(rows[0]), Detections)


def test_all_bad_images_of_a_list_are_reported_by_position(tmp_path: Path) -> None:
    detector = Detector.load("embedded:small")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InputError) as caught:
        detector([pattern(), 7, tmp_path / "gone.png", pattern(), tmp_path / "text.png"])
    problems = caught.value.problems
    assert [problem.partition(":")[0] for problem in problems] == ["images[1]", "images[2]", "images[4]"]
    assert "gone.png" in problems[1]


@pytest.mark.parametrize("threshold", [2, -0.1, 50, "0.5", True, float("nan"), [0.5]])
def test_thresholds_are_from_0_to_1(threshold: Any) -> None:
    detector = Detector.load("embedded:small")
    for given in (pattern(), [pattern()], []):
        with pytest.raises(InputError, match=r"threshold: .* from 0 to 1"):
            detector(given, threshold=threshold)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, None, True])
def test_batches_have_at_least_one_image(batch_size: Any) -> None:
    detector = Detector.load("embedded:small")
    for call in (detector, detector.detect):
        with pytest.raises(InputError, match=r"batch_size: .* 1 or above"):
            call([pattern()], batch_size=batch_size)


def test_files_and_urls_that_are_no_images(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_MAX_DOWNLOAD_BYTES", 3000 + len(PAGES["/image.png"][1]))
    (tmp_path / "file.png").write_bytes(png(pattern()))
    for source, words in [
        (f"{server}/page", "got text/html"),
        (f"{server}/broken.png", "no known format"),
        (f"{server}/gone.png", "404"),
        (f"{server}/to-file", "302"),
        ((tmp_path / "file.png").as_uri(), "only http and https"),
        ("ftp://127.0.0.1/image.png", "only http and https"),
        ("http://127.0.0.1:1/image.png", "cannot be downloaded"),
        ("http://[::1/image.png", "cannot be downloaded"),
        ("nowhere.png", "doesn't exist"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            read_image(source)
        assert str(caught.value).startswith(source)
    monkeypatch.setattr(images, "_MAX_DOWNLOAD_BYTES", 3000)
    with pytest.raises(InputError, match=r"large\.png: more than"):
        read_image(f"{server}/large.png")


@pytest.mark.parametrize("name", ["slow.png", "slow-head.png"])
def test_a_slow_download_ends(server: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(images, "_DOWNLOAD_SECONDS", 0.2)
    with pytest.raises(InputError, match=rf"{name}: not complete"):
        read_image(f"{server}/{name}")


def test_a_call_gives_detections_above_the_class_thresholds() -> None:
    detector = Detector.load("embedded:small")
    rows = generate("shapes?train=0&validation=0&test=3&seed=2")["test"].with_format(None)
    photos = [open_image(row["image"]) for row in rows]
    expected = [detector.filter(one) for one in detector.detect(photos)]
    assert any(len(one) for one in expected)
    one = detector(photos[0])
    assert isinstance(one, Detections)
    torch.testing.assert_close(one.boxes, expected[0].boxes, rtol=1e-4, atol=1e-3)
    for detections, same in zip(detector(iter(photos), batch_size=2), expected, strict=True):
        torch.testing.assert_close(detections.scores, same.scores, rtol=1e-4, atol=1e-5)
    assert [name for _, _, name in one] == [detector.names[label] for label in one.labels.tolist()]
    assert len(detector(photos[0], threshold=0.0)) > len(one)
    assert detector([]) == []
