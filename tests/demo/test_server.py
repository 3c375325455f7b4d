"""The demo as a server: memory of large uploads, refused hosts, and endpoints that can't be called past the queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from support.demo_server import Server, demo_servers

MIB = 2**20


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Server]]:
    with demo_servers() as start:
        yield start


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    return start(["-m", "detr_ft", "demo", "embedded:small", "--allow-host", "*.hub.example.org"])


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save(path, exif=exif)


# The largest images that the demo accepts, of the modes and formats that take most memory.
IMAGES: dict[str, Callable[[Path], None]] = {
    "camera.jpg": turned,
    "cmyk.jpg": lambda path: Image.new("CMYK", (6000, 4000)).save(path, progressive=True, subsampling=0),
    "alpha.png": lambda path: Image.new("RGBA", (6000, 4000), (9, 9, 9, 100)).save(path, compress_level=1),
    "palette.gif": lambda path: Image.new("P", (6000, 4000)).save(path, transparency=0),
    "palette.png": lambda path: Image.new("P", (6000, 4000)).save(path, transparency=0),
    "gray.png": lambda path: Image.fromarray(np.zeros((4000, 6000), np.uint16)).save(path),
    "progressive.jpg": lambda path: Image.new("RGB", (6000, 4000)).save(path, progressive=True, subsampling=0),
    "alpha.webp": lambda path: Image.new("RGBA", (4800, 3120), (9, 9, 9, 100)).save(path, method=0),
    "alpha.jp2": lambda path: Image.new("RGBA", (3900, 2900), (9, 9, 9, 100)).save(path),
    "large.jpg": lambda path: Image.new("RGB", (9390, 9390)).save(path),
}
FAST = list(IMAGES)[:4]


def write(folder: Path, names: list[str]) -> list[Path]:
    for name in names:
        IMAGES[name](folder / name)
    return [folder / name for name in names]


def call(url: str, image: Path, endpoint: str = "predict", more: tuple[object, ...] = ()) -> Any:
    """Return the answer of an endpoint."""
    with httpx.Client(base_url=f"{url.rstrip('/')}/gradio_api/", timeout=300) as client:
        with image.open("rb") as file:
            (path,) = client.post("upload", files={"files": (image.name, file)}).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, *more]
        event = client.post(f"call/{endpoint}", json={"data": data}).json()["event_id"]
        events = client.get(f"call/{endpoint}/{event}").text
    assert "event: complete" in events, (image, events)
    return json.loads(events.rpartition("data: ")[2].strip())[0]


def peak_mib(server: Server) -> float:
    """The largest resident memory so far."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        return float(psutil.Process(server.process.pid).memory_info().rss) / MIB
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize("names", [FAST, pytest.param(list(IMAGES), marks=pytest.mark.slow)], ids=["fast", "all"])
def test_any_single_upload_takes_less_than_a_gibibyte(server: Server, tmp_path: Path, names: list[str]) -> None:
    for image in write(tmp_path, names):
        call(server.url, image)
        assert peak_mib(server) < 1024, image


@pytest.mark.slow
def test_many_users_with_the_largest_images_take_less_than_two_gibibytes(server: Server, tmp_path: Path) -> None:
    images = write(tmp_path, list(IMAGES))
    calls = [(images[turn // 2 % 10], *(("match", ([], None)) if turn % 2 else ())) for turn in range(100)]
    with ThreadPoolExecutor(30) as users:
        answers = list(users.map(lambda arguments: call(server.url, *arguments), calls))
    assert len(answers) == 100
    print(f"peak {peak_mib(server):.0f} MiB")
    assert peak_mib(server) < 2048
    assert call(server.url, images[0]) == answers[0]


def test_other_hosts_and_pages_are_refused_on_every_path(server: Server) -> None:
    paths = [
        ("GET", "/"), ("GET", "/config"), ("GET", "/gradio_api/info"), ("GET", "/gradio_api/queue/data?session_hash=a"),
        ("GET", "/gradio_api/call/predict/a"), ("GET", "/gradio_api/heartbeat/a"), ("GET", "/theme.css"),
        ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/call/predict"), ("POST", "/gradio_api/queue/join"),
    ]  # fmt: skip
    with httpx.Client(base_url=server.url) as client:
        for method, path in paths:
            for host in ("evil.com", "localhost.evil.com", "127.0.0.1.nip.io"):
                assert client.request(method, path, headers={"host": host}).status_code == 421, (path, host)
            if method == "POST":
                assert client.request(method, path, headers={"origin": "http://evil.com"}).status_code == 403, path
        for host in ("LOCALHOST", "a.hub.example.org"):
            assert client.get("/config", headers={"host": host}).status_code == 200
        own = server.url.rstrip("/")
        assert client.post("/gradio_api/queue/join", headers={"origin": own}, json={}).status_code == 422


def test_no_endpoint_can_be_called_past_the_queue(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        for path in ("run/predict", "api/predict", "run/match"):
            assert client.post(f"/gradio_api/{path}", json={"data": [None]}).status_code == 404
        too_large = json.dumps({"data": ["a" * 5 * MIB]}).encode()
        headers = {"content-type": "application/json"}
        assert client.post("/gradio_api/call/predict", content=too_large, headers=headers).status_code == 413
        answer = client.post("/gradio_api/call/predict", content=iter([too_large]), headers=headers)
        assert answer.status_code in (400, 413)
        assert client.get("/").status_code == 200


@pytest.mark.slow
def test_unused_files_are_removed(start: Callable[..., Server], tmp_path: Path) -> None:
    code = (
        "import sys; from detr_ft.utils.assets import demo_folder; sys.path.insert(0, str(demo_folder())); "
        "import requests_guard; requests_guard._MAX_FOLDER_BYTES = 3 * 2**20; from detr_ft.cli import main; main()"
    )
    server = start(["-c", code, "demo", "embedded:small"], {"TMPDIR": str(tmp_path)})
    (folder,) = tmp_path.glob("detr-ft-demo-*")
    before = {file for file in folder.rglob("*") if file.is_file()}
    with httpx.Client(base_url=server.url) as client:
        for number in range(8):
            files = {"files": (f"{number}.png", bytes([number]) * MIB)}
            assert client.post("/gradio_api/upload", files=files).status_code == 200
    after = {file for file in folder.rglob("*") if file.is_file()}
    assert before <= after
    assert sorted(file.name for file in after - before) == ["5.png", "6.png", "7.png"]
