"""Opening images: modes, orientation, limits and damage."""

from __future__ import annotations

import io
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from detr_ft.data.images import FileSize, ImageError, file_size, image_format, image_size, open_image, upright_rgb
from detr_ft.errors import InputError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = open_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


RAMP = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("CMYK", "JPEG")],
)
def test_a_mode_without_alpha_is_as_pillow_converts_it(mode: str, kind: str) -> None:
    data = encoded(RAMP.convert(mode), kind)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 51))
    found = pixels(encoded(image.convert(mode), "PNG"))
    assert found[0, 0].tolist() == [100] * 3
    assert found[0, 1].tolist() == [224] * 3  # 0.2 * 100 + 0.8 * 255


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=0))[0].tolist() == [[255] * 3, [9, 8, 7]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_16_bit_ramp_is_scaled_without_losing_levels(kind: str) -> None:
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16)[None]
    found = pixels(encoded(Image.fromarray(ramp), kind))[0, :, 0]
    assert len(np.unique(found)) >= 200
    assert np.abs(found - ramp[0] / 257.0).max() <= 0.5


@pytest.mark.parametrize(("top", "dtype"), [(1.0, np.float32), (255.0, np.float32), (65535, np.int32), (255, np.int32)])
def test_wide_gray_levels_are_read_in_the_smallest_common_range(top: float, dtype: type) -> None:
    values = np.linspace(0, top, 256).astype(dtype)[None]
    found = pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0]
    assert np.abs(found - np.arange(256.0)).max() <= 1.0


def test_gray_levels_of_no_common_range_are_stretched_and_nan_is_tolerated() -> None:
    values = np.array([[-4.0, 0.0, 4.0, np.nan]], dtype=np.float32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 128]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(kind: str, turned: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turned
    data = encoded(image, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(pixels(data), np.asarray(upright.convert("RGB")))
    assert image_size(data) == upright.size
    assert file_size(data) == FileSize(upright.size, turned)
    assert file_size(data).stored == (50, 30)


def test_an_upright_image_is_not_turned_again() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = open_image(encoded(RAMP.convert("RGB"), "JPEG", exif=exif))
    assert once.size == (4, 256)
    assert np.array_equal(upright_rgb(once), once)


def test_file_bytes_and_mapping_give_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    RAMP.save(path)
    sources = [path, str(path), path.read_bytes(), {"path": str(path), "bytes": None}, {"bytes": path.read_bytes()}]
    assert {open_image(source).tobytes() for source in sources} == {RAMP.convert("RGB").tobytes()}
    assert image_format(path) == "PNG"


def test_the_pixel_limit_comes_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (13000, 13000)).save(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"huge\.png: .*limit|huge\.png: .*too many") as caught:
        open_image(path)
    assert caught.value.kind == "too large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; decoded it would be 500 MB
    with pytest.raises(ImageError, match="more pixels than the limit of 99"):
        open_image(encoded(Image.new("L", (10, 10)), "PNG"), max_pixels=99)


def test_missing_unreadable_and_truncated_name_the_file(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    whole = encoded(noise, "JPEG")
    cases = {"text.jpg": b"hello", "empty.png": b"", "cut.jpg": whole[: len(whole) // 2]}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    expected = {"text.jpg": "unreadable", "empty.png": "unreadable", "cut.jpg": "truncated", "absent.jpg": "missing"}
    for name, trouble in expected.items():
        with pytest.raises(InputError, match=name) as caught:
            open_image(tmp_path / name)
        assert caught.value.kind == trouble
    with pytest.raises(ImageError, match="neither a path nor bytes"):
        open_image({"path": None, "bytes": None})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_damage_never_raises_anything_but_an_image_error(kind: str) -> None:
    random = np.random.default_rng(1)
    whole = encoded(Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)), kind)
    opened = refused = 0
    for _ in range(150):
        data = bytearray(whole[: random.integers(4, len(whole))] if random.random() < 0.5 else whole)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(0, 256)
        try:
            assert open_image(bytes(data)).mode == "RGB"
            opened += 1
        except ImageError:
            refused += 1
    assert refused > 0
    assert opened + refused == 150


def test_a_format_that_runs_an_interpreter_is_refused() -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        open_image(encoded(RAMP, "EPS"))


def test_a_missing_file_is_reported_with_a_name_that_differs_in_case_alone(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    hints = {"A.PNG": ". Did you mean a.png?", "b.png": "", "link.png": "", "gone/a.png": ""}
    for name, hint in hints.items():
        with pytest.raises(ImageError) as caught:
            image_size(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: the image file doesn't exist{hint}"
