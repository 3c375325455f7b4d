"""Forty people at once: each gets the answer to her own picture, and the demo's memory has an end."""

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
    """One for each, no two alike."""
    folder = tmp_path_factory.mktemp("users")
    files = []
    for number, row in enumerate(generate(f"shapes?train=0&validation=0&test={USERS}&seed=5")["test"]):
        files.append(folder / f"{number}.png")
        open_image(row["image"]).save(files[-1])
    return files


def asked(url: str, picture: Path) -> list[dict[str, Any]]:
    """What the demo answers to a program."""
    with httpx.Client(base_url=f"{url.rstrip('/')}/gradio_api/", timeout=180) as client:
        with picture.open("rb") as file:
            (path,) = client.post("upload", files={"files": (picture.name, file, "image/png")}).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        event = client.post("call/predict", json={"data": data}).json()["event_id"]
        told = client.get(f"call/predict/{event}").text
    assert told.startswith("event: complete"), told
    found: list[dict[str, Any]] = json.loads(told.split("data: ", 1)[1].strip())[0]
    return found


def resident_mib(pid: int) -> float:
    """The memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell the memory of a process")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


def test_forty_at_once_get_each_their_own_answer_in_memory_that_stays(server: Any, pictures: list[Path]) -> None:
    sys.path.insert(0, str(APP.parent))
    from api import predict

    detector = Detector.load("embedded:small")
    expected = [predict(detector, str(one)) for one in pictures]
    assert len({json.dumps(one) for one in expected}) > 0.9 * USERS  # in some nothing is found
    with ThreadPoolExecutor(USERS) as people:
        for _ in range(6):  # what allocators keep for so many threads is taken by then
            assert list(people.map(lambda one: asked(server.url, one), pictures)) == expected
        before = resident_mib(server.process.pid)
        for _ in range(3):
            assert list(people.map(lambda one: asked(server.url, one), pictures)) == expected
    grown = resident_mib(server.process.pid) - before
    print(f"after 240 answers {before:.0f} MiB, after 120 more {grown:+.0f}")
    assert grown < 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_answered_upright(
    server: Any, pictures: list[Path], tmp_path: Path, orientation: int
) -> None:
    """The same boxes as of the upright picture, whichever way the camera was held."""
    upright = np.asarray(Image.open(pictures[0]))[:, :100]
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    turned = Image.Exif()
    turned[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / "upright.png")
    found, expected = (asked(server.url, tmp_path / name) for name in ("turned.png", "upright.png"))
    assert len(expected) > 0
    assert found == expected
