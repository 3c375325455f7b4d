"""Forty clients at once: each gets the detections of its own image, and the memory of the demo is bounded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.inference import Detector

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[2] / "demo" / "app.py"
USERS = 40


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    return serve(["-m", "detr_ft", "demo", "embedded:small"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A different image for each client."""
    folder = tmp_path_factory.mktemp("users")
    files = []
    for number, row in enumerate(generate(f"shapes?train=0&validation=0&test={USERS}&seed=5")["test"]):
        files.append(folder / f"{number}.png")
        open_image(row["image"]).save(files[-1])
    return files


def predict_by_api(url: str, picture: Path) -> list[dict[str, Any]]:
    """Return the detections of an image from the endpoint `predict`."""
    with httpx.Client(base_url=f"{url.rstrip('/')}/gradio_api/", timeout=180) as client:
        with picture.open("rb") as file:
            (path,) = client.post("upload", files={"files": (picture.name, file, "image/png")}).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        event = client.post("call/predict", json={"data": data}).json()["event_id"]
        events = client.get(f"call/predict/{event}").text
    assert events.startswith("event: complete"), events
    detections: list[dict[str, Any]] = json.loads(events.split("data: ", 1)[1].strip())[0]
    return detections


def resident_mib(pid: int) -> float:
    """The memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("the memory of a process can't be read on this system")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
def test_clients_at_once_get_their_own_detections_in_bounded_memory(server: Any, pictures: list[Path]) -> None:
    sys.path.insert(0, str(APP.parent))
    from api import predict

    detector = Detector.load("embedded:small")
    expected = [predict(detector, str(picture)) for picture in pictures]
    assert len({json.dumps(detections) for detections in expected}) > 0.9 * USERS  # some images have no detection
    with ThreadPoolExecutor(USERS) as clients:
        for _ in range(6):  # the allocators reserve memory for each thread first
            assert list(clients.map(lambda picture: predict_by_api(server.url, picture), pictures)) == expected
        before = resident_mib(server.process.pid)
        for _ in range(3):
            assert list(clients.map(lambda picture: predict_by_api(server.url, picture), pictures)) == expected
    grown = resident_mib(server.process.pid) - before
    print(f"after 240 responses {before:.0f} MiB, after 120 more {grown:+.0f}")
    assert grown < 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_image_is_processed_upright(
    server: Any, pictures: list[Path], tmp_path: Path, orientation: int
) -> None:
    """The detections do not depend on the EXIF orientation."""
    upright = np.asarray(Image.open(pictures[0]))[:, :100]
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / "upright.png")
    detections, expected = (predict_by_api(server.url, tmp_path / name) for name in ("turned.png", "upright.png"))
    assert len(expected) > 0
    assert detections == expected
