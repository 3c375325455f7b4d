"""Uploaded images: limits by format before decoding, large ones resized, boxes in pixels of the original."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import uploads
from api import match, predict
from detect import DetectedImage, detect_file
from matching_tab import MatchingHandlers
from PIL import Image
from uploads import prune, read_upload, working_size

from detr_ft.criterion import detr_criterion
from detr_ft.data.images import ImageError, open_image
from detr_ft.inference import Detector

MEGAPIXELS = 1_000_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A picture of 2400 x 1800 pixels, more than 4 megapixels, whose gray levels differ everywhere."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((2400, 1800), Image.Resampling.BICUBIC)


def test_a_small_image_is_read_as_everywhere(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    upload = read_upload(str(tmp_path / "a.png"))
    assert upload.image.tobytes() == open_image(tmp_path / "a.png").tobytes()
    assert (upload.size, upload.scale) == ((90, 60), (1.0, 1.0))


FORMATS = {
    "RGB.png": {"compress_level": 1}, "RGBA.png": {"compress_level": 1}, "P.png": {}, "1.png": {}, "I;16.png": {},
    "RGB.jpg": {}, "CMYK.jpg": {"progressive": True}, "RGB.webp": {"method": 0}, "P.gif": {}, "F.tif": {}, "RGB.bmp": {},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_large_images_of_every_mode_are_resized(scene: Image.Image, tmp_path: Path, name: str) -> None:
    mode, file = name.split(".")[0], tmp_path / f"a.{name.split('.')[1]}"
    gray = np.asarray(scene.convert("L"))
    stored = {
        "I;16": lambda: Image.fromarray(gray.astype(np.uint16) * 257),
        "F": lambda: Image.fromarray(gray.astype(np.float32)),
    }.get(mode, lambda: scene.convert(mode))()
    stored.save(file, **FORMATS[name])
    upload = read_upload(str(file))
    assert upload.size == (2400, 1800)
    assert upload.image.mode == "RGB"
    assert 3.9 * MEGAPIXELS < upload.image.width * upload.image.height <= 4 * MEGAPIXELS
    small = upload.image.resize((60, 40), Image.Resampling.BOX)
    expected = open_image(file).resize((60, 40), Image.Resampling.BOX)
    # A color of a palette stands for its neighbors; black and white are averaged.
    assert np.abs(np.asarray(small, dtype=int) - np.asarray(expected, dtype=int)).mean() < 2


def test_gray_levels_of_16_bits_keep_their_range(tmp_path: Path) -> None:
    """A dark image stays dark, resized or not."""
    for size in ((30, 20), (3000, 2000)):
        Image.fromarray(np.full(size[::-1], 200, dtype=np.uint16)).save(tmp_path / "a.png")
        assert read_upload(str(tmp_path / "a.png")).image.getextrema() == ((1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sizes_are_those_of_the_upright_original(scene: Image.Image, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene.save(tmp_path / "a.jpg", exif=exif)
    upload = read_upload(str(tmp_path / "a.jpg"))
    assert upload.size == ((1800, 2400) if orientation == 6 else (2400, 1800))
    assert (upload.image.width > upload.image.height) == (upload.size[0] > upload.size[1])


def test_boxes_are_in_pixels_of_the_original(detector: Detector, tmp_path: Path) -> None:
    """The same image, small and enlarged beyond the limit of resizing."""
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(100, 120, (200, 300, 3), dtype=np.uint8))
    image.paste((220, 40, 40), (60, 50, 160, 150))
    image.save(tmp_path / "small.png")
    image.resize((3000, 2000), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    small, large = (detect_file(detector, str(tmp_path / f"{name}.png")) for name in ("small", "large"))
    assert isinstance(small, DetectedImage)
    assert isinstance(large, DetectedImage)
    assert large.size == (3000, 2000)
    np.testing.assert_allclose(large.detections.boxes[0] / 10, small.detections.boxes[0], atol=3)
    listed = predict(detector, str(tmp_path / "large.png"))
    assert listed
    assert listed[0]["box"] == pytest.approx(large.detections.boxes[0].tolist(), abs=3)
    truth = [{"class": listed[0]["class"], "box": [600, 500, 1600, 1500]}]
    by_size = [
        match(detector, str(tmp_path / f"{name}.png"), [truth[0] | {"box": [side / part for side in truth[0]["box"]]}], None)
        for name, part in (("small", 10), ("large", 1))
    ]  # fmt: skip
    assert by_size[0]["pairs"][0]["query"] == by_size[1]["pairs"][0]["query"]
    assert by_size[0]["pairs"][0]["cost"] == pytest.approx(by_size[1]["pairs"][0]["cost"], abs=0.2)
    opened, *_ = MatchingHandlers(detector, {}, detr_criterion()).open_upload(str(tmp_path / "large.png"))
    assert opened is not None
    assert opened.size == (3000, 2000)


def png_header(path: Path, width: int, height: int) -> None:
    """A PNG that ends after its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, end)
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def with_size(file: Path, width: int, height: int) -> None:
    """Write another size into the header of a JPEG."""
    content = bytearray(file.read_bytes())
    frame = next(position for marker in (b"\xff\xc0", b"\xff\xc2") if (position := content.find(marker)) >= 0)
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    file.write_bytes(content)


def test_an_image_beyond_the_limit_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for name, size, accepted in (
        ("a.png", (6000, 4000), True),
        ("a.png", (7000, 4000), False),
        ("one scan.jpg", (6000, 4000), True),
        ("one scan.jpg", (8064, 6048), True),
        ("one scan.jpg", (10_000, 9000), False),
        ("progressive.jpg", (6000, 4000), True),
        ("progressive.jpg", (8064, 6048), False),
    ):
        file = tmp_path / name
        if file.suffix == ".png":
            png_header(file, *size)
        else:
            Image.new("RGB", (64, 64)).save(file, progressive=name == "progressive.jpg")
            with_size(file, *size)
        with pytest.raises(AssertionError if accepted else ImageError, match="decoded" if accepted else "limit of"):
            read_upload(str(file))


def test_a_tile_larger_than_the_image_counts(tmp_path: Path) -> None:
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 20_000, 323: 20_000, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.size == (64, 64)
    with pytest.raises(ImageError, match="limit of"):
        read_upload(str(tmp_path / "a.tif"))


def test_too_many_scans_are_refused(tmp_path: Path) -> None:
    """Each would be a pass over the whole image, whatever its bytes."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10" * 200 + content[-2:])
    with pytest.raises(ImageError, match="scans"):
        read_upload(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("size", [(100, 100), (4000, 3000), (30_000, 200), (1, 5_000_000), (5_000_000, 1)])
def test_working_sizes(size: tuple[int, int]) -> None:
    width, height = working_size(size)
    assert width * height <= 4 * MEGAPIXELS or min(width, height) == 1
    assert min(width, height) >= 1
    if size[0] * size[1] <= 4 * MEGAPIXELS:
        assert (width, height) == size


def test_one_image_at_a_time_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from time import sleep

    running: list[int] = [0, 0]  # now, and the most
    read = uploads._read

    def slow(path: str) -> uploads.UploadedImage:
        running[0] += 1
        running[1] = max(running)
        sleep(0.02)
        upload = read(path)
        running[0] -= 1
        return upload

    monkeypatch.setattr(uploads, "_read", slow)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with ThreadPoolExecutor(8) as users:
        assert len(list(users.map(read_upload, [str(tmp_path / "a.png")] * 16))) == 16
    assert running == [0, 1]


def test_the_oldest_files_are_removed(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle/a", "old/b/c", "permanent")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    permanent = frozenset({tmp_path / "permanent"})

    def names() -> set[str]:
        return {file.name for file in tmp_path.rglob("*") if file.is_file()}

    prune(tmp_path, 300, 3, permanent)
    assert names() == {"new", "a", "c", "permanent"}
    prune(tmp_path, 299, 3, permanent)
    assert names() == {"new", "a", "permanent"}
    prune(tmp_path, 299, 1, permanent)
    assert names() == {"new", "permanent"}
    prune(tmp_path, 0, 0, permanent)
    assert names() == {"permanent"}
