"""The demo answers to its own hosts and to its own page, and limits the bytes of requests and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests_guard
from requests_guard import HostGuard, SizeGuard, check_patterns, host_name, served_hosts
from starlette.responses import PlainTextResponse

from detr_ft.errors import InputError


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read the body of a request and answer with its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await PlainTextResponse(str(size))(scope, receive, send)


def answer(
    app: Any, headers: list[tuple[str, str]], method: str = "GET", path: str = "/", body: Sequence[bytes] = ()
) -> tuple[int, str]:
    """Return status and text of a request."""
    sent: list[dict[str, Any]] = []
    chunks_left = iter(body)

    async def receive() -> dict[str, Any]:
        chunk = next(chunks_left, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    anyio.run(app, scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


LOCAL = [
    "localhost",
    "localhost:7860",
    "LOCALHOST:7860",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]",
    "[::1]:7860",
]
FOREIGN = [
    "evil.com", "evil.com:7860", "localhost.evil.com", "127.0.0.1.nip.io", "evil.com.", "localhost..",
    "127.1", "2130706433", "0x7f000001", "0.0.0.0", "10.0.0.1", "[::]", "[::ffff:8.8.8.8]", "", "local host",
    "localhost:7860@evil.com", "evil.com#localhost", "localhost\\.evil.com", "localhost:port", "::1", "xn--lcalhost-x1a",
]  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
def test_the_hosts_of_this_machine_are_served(host: str) -> None:
    assert answer(HostGuard(application, []), [("host", host)])[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_other_hosts_are_refused(host: str) -> None:
    status, text = answer(HostGuard(application, ["*.hub.example.org"]), [("host", host)])
    assert status == 421
    assert "--allow-host" in text


@pytest.mark.parametrize("headers", [[], [("host", "localhost"), ("host", "evil.com")], [("Host", "evil.com")]])
def test_a_missing_or_repeated_host_is_refused(headers: list[tuple[str, str]]) -> None:
    assert answer(HostGuard(application, []), headers)[0] == 421


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("hub.example.org", False),
        ("a.HUB.example.org:443", True),
        ("a.hub.example.org.evil.com", False),
        ("x.net", True),
    ],
)
def test_given_hosts_are_served(host: str, served: bool) -> None:
    hosts = served_hosts("127.0.0.1", ["*.Hub.example.org", "x.net"], {})
    assert hosts is not None
    assert (answer(HostGuard(application, hosts), [("host", host)])[0] == 200) is served


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:7860", "http://localhost:7860", 200),
        ("LOCALHOST:7860", "http://localhost:7860", 200),
        ("[::1]:7860", "http://[::1]:7860", 200),
        ("localhost:7860", "http://localhost:3000", 403),
        ("localhost:7860", "http://evil.com", 403),
        ("localhost:7860", "null", 403),
        ("localhost:7860", "", 403),
        ("localhost:7860", "https://a.hub.example.org", 200),
        ("a.hub.example.org", "https://a.hub.example.org", 200),
        ("a.hub.example.org", "https://evil.com", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_are_refused(host: str, origin: str, status: int, method: str) -> None:
    guard = HostGuard(application, ["*.hub.example.org"])
    assert answer(guard, [("host", host), ("origin", origin)], method)[0] == status


def test_websockets_are_refused_too() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    for host, kind in ((b"evil.com", "websocket.close"), (b"localhost", "websocket.accept")):
        anyio.run(HostGuard(app, []), {"type": "websocket", "headers": [(b"host", host)]}, None, send)
        assert sent[-1]["type"] == kind


@pytest.mark.parametrize(
    ("host", "given", "environment", "expected"),
    [
        ("127.0.0.1", [], {}, []),
        ("::1", [], {}, []),
        ("localhost", ["Hub.org"], {}, ["hub.org"]),
        ("0.0.0.0", [], {}, None),
        ("0.0.0.0", ["hub.org"], {}, ["hub.org"]),
        ("0.0.0.0", [], {"SPACE_ID": "me/x"}, None),
        ("127.0.0.1", [], {"SPACE_ID": "me/x"}, None),
        ("127.0.0.1", [], {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, ["*.jupyter-proxy.kaggle.net"]),
        ("127.0.0.1", [], {"SAGEMAKER_APP_TYPE": "JupyterLab"}, ["*.sagemaker.aws"]),
        ("127.0.0.1", [], {"CODESPACE_NAME": "Fuzzy-x1"}, ["fuzzy-x1-*.app.github.dev"]),
        ("127.0.0.1", [], {"JUPYTERHUB_PUBLIC_URL": "https://Hub.uni.edu/user/me/"}, ["hub.uni.edu"]),
    ],
)
def test_the_hosts_of_a_server(
    host: str, given: list[str], environment: dict[str, str], expected: list[str] | None
) -> None:
    assert served_hosts(host, given, environment) == expected


def test_the_proxy_of_colab_is_served() -> None:
    hosts = served_hosts("127.0.0.1", [], {"COLAB_RELEASE_TAG": "release"})
    assert hosts is not None
    guard = HostGuard(application, hosts)
    assert answer(guard, [("host", "a1-7860-colab.googleusercontent.com")])[0] == 200
    assert answer(guard, [("host", "colab.googleusercontent.com.evil.com")])[0] == 421


def test_an_invalid_name_of_a_host_is_reported() -> None:
    check_patterns(["hub.example.org", "*.example.org", "127.0.0.1"])
    with pytest.raises(InputError) as caught:
        check_patterns(["https://hub.example.org", "hub.example.org:80", "hub.org/a", "", "good.org"])
    assert len(caught.value.problems) == 4


def test_host_names() -> None:
    assert [host_name(host) for host in ("A.b:1", "[::1]:2", "a:b", "a b")] == ["a.b", "::1", None, None]


def chunks(count: int, size: int) -> list[bytes]:
    return [bytes(size)] * count


HOST = [("host", "localhost")]


def test_bodies_are_limited_with_and_without_their_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_guard, "_MAX_JSON_BYTES", 1000)
    monkeypatch.setattr(requests_guard, "_MAX_UPLOAD_BYTES", 5000)
    guard = SizeGuard(application, tmp_path)
    for path, limit in (("/gradio_api/queue/join", 1000), ("/gradio_api/upload", 5000), ("/gradio_api/upload/", 5000)):
        assert answer(guard, HOST, "POST", path, chunks(limit // 100, 100)) == (200, str(limit))
        assert answer(guard, [*HOST, ("content-length", str(limit + 1))], "POST", path)[0] == 413
        with pytest.raises(Exception, match="maximum allowed size"):
            answer(guard, HOST, "POST", path, chunks(limit // 100 + 1, 100))
        assert guard.receiving == 0
    assert answer(guard, HOST, "POST", "/gradio_api/process_recording")[0] == 404


def test_files_are_pruned_after_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_guard, "_MAX_FOLDER_FILES", 3)
    for number in range(9):
        (tmp_path / str(number)).touch()
    guard = SizeGuard(application, tmp_path, frozenset({tmp_path / "0"}))
    answer(guard, HOST, "GET", "/gradio_api/upload")
    assert len(list(tmp_path.iterdir())) == 9
    answer(guard, HOST, "POST", "/gradio_api/upload")
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "0").exists()


def test_all_uploads_together_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_guard, "_MAX_UPLOADS_BYTES", 1500)
    guard = SizeGuard(application, tmp_path)
    guard.receiving = 1000  # of another request
    assert answer(guard, HOST, "POST", "/gradio_api/upload", chunks(5, 100))[0] == 200
    with pytest.raises(Exception, match="maximum allowed size"):
        answer(guard, HOST, "POST", "/gradio_api/upload", chunks(6, 100))
    assert guard.receiving == 1000
