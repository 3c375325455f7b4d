"""Guards of the server: hosts, origins and sizes of requests, and the bytes of stored files."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import anyio
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uploads import prune

from detr_ft.errors import InputError

MAX_FILE_BYTES = 20 * 2**20
_MAX_UPLOAD_BYTES = 256 * 2**20  # of the images of one request
_MAX_UPLOADS_BYTES = 2**30  # of all requests that are being received
_MAX_JSON_BYTES = 4 * 2**20  # images are uploaded as files
_MAX_FOLDER_BYTES, _MAX_FOLDER_FILES = 2**30, 2000
_SECONDS_BETWEEN_PRUNINGS = 10.0  # without uploads: the page writes small files, too

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
_PATTERN = re.compile(r"[\w.*-]+", re.ASCII)


def host_name(value: str) -> str | None:
    """Return the host of a `Host` header or origin, in lower case without port; None if malformed."""
    matched = _HOST.fullmatch(value)
    return matched[1].strip("[]").lower().removesuffix(".") if matched else None


def is_loopback(name: str) -> bool:
    """Return whether a host is this machine by every name server."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_patterns(names: Sequence[str]) -> None:
    """Raise InputError for hosts that are no names, and no patterns of names."""
    faults = [
        f"--allow-host {name}: must be a host name without protocol, port and path, as in hub.example.org or *.example.org"
        for name in names
        if not _PATTERN.fullmatch(name)
    ]
    if faults:
        raise InputError(faults)


def served_hosts(host: str, given: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """Return the names of a server that listens on `host`, besides loopback's; None means any name.

    A page of another site can point its name at this machine, and would then read what the demo serves: so a server on
    loopback answers to its own names, to those `given`, and to the notebook's proxy. A server on another address is
    meant to be reached, by names that it can't know; a Space is behind the proxy of the Hub.
    """
    if "SPACE_ID" in environment or not (given or is_loopback(host.strip("[]"))):
        return None
    return [*(name.lower() for name in given), *proxy_hosts(environment)]


def proxy_hosts(environment: Mapping[str, str]) -> list[str]:
    """Return the names by which the proxy of a hosted notebook forwards requests; empty elsewhere."""
    hosts = []
    if "COLAB_RELEASE_TAG" in environment:
        hosts += ["*.colab.dev", "*.colab.googleusercontent.com", "*-colab.googleusercontent.com"]
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        hosts.append("*.jupyter-proxy.kaggle.net")
    if any(name.startswith("SAGEMAKER_") for name in environment):
        hosts.append("*.sagemaker.aws")
    if "CODESPACE_NAME" in environment:
        domain = environment.get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev")
        hosts.append(f"{environment['CODESPACE_NAME']}-*.{domain}".lower())
    public = re.match(r"https?://([\w.-]+)", environment.get("JUPYTERHUB_PUBLIC_URL", ""), re.ASCII)
    return hosts + ([public[1].lower()] if public else [])


class HostGuard:
    """Refuses requests for other hosts (status 421) and requests that pages of other sites send (403).

    `hosts` are names and patterns besides those of this machine. A page of this machine on another port is another site.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        refusal = self.refusal(scope["headers"])
        if refusal is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008, "reason": "host"})
        status, message = refusal
        return await PlainTextResponse(message, status)(scope, receive, send)

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Return status and message for a request that is refused; None for one that is served."""
        given = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
        name = host_name(given[0]) if len(given) == 1 else None
        if name is None or not (is_loopback(name) or self._is_allowed(name)):
            shown = name or "this host"
            return 421, (
                f"The demo answers to localhost and 127.0.0.1, not to {shown}. "
                f"If {shown} is your proxy, start the demo with --allow-host {name or 'NAME'}.\n"
            )
        for origin in (value.decode("latin-1") for key, value in headers if key.lower() == b"origin"):
            authority = origin.partition("://")[2]
            source = host_name(authority)
            if authority.lower() != given[0].lower() and not (source and self._is_allowed(source)):
                return 403, "The demo answers to its own page, not to pages of other sites.\n"
        return None

    def _is_allowed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.hosts)


class SizeGuard:
    """Limits the bytes of requests and of the files in the folder, whose oldest are removed.

    Files in `permanent` are not removed.
    """

    def __init__(self, app: ASGIApp, folder: Path, permanent: Collection[Path] = ()) -> None:
        self.app, self.folder, self.permanent = app, folder, permanent
        self.receiving = 0  # bytes of uploads in progress
        self.pruned_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        path = scope["path"].rstrip("/")
        if path.endswith("/process_recording"):  # decodes videos, which the demo doesn't have
            return await PlainTextResponse("Not found.\n", 404)(scope, receive, send)
        uploads = path.endswith("/upload")
        limit, received = _MAX_UPLOAD_BYTES if uploads else _MAX_JSON_BYTES, 0

        async def receive_within_limit() -> Any:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self.receiving += size
            if received > limit or self.receiving > _MAX_UPLOADS_BYTES:
                # The error that the parser of uploads answers with status 413, after it has removed its files.
                raise MultiPartException(f"The request exceeded the maximum allowed size of {limit} bytes.")
            return message

        try:
            if _content_length(scope) > limit:
                message = f"The request is larger than {limit // 2**20} MiB. Upload fewer or smaller images.\n"
                return await PlainTextResponse(message, 413)(scope, receive, send)
            await self.app(scope, receive_within_limit, send)
        finally:
            self.receiving -= received
            if uploads or time.monotonic() - self.pruned_at > _SECONDS_BETWEEN_PRUNINGS:
                self.pruned_at = time.monotonic()
                await anyio.to_thread.run_sync(prune, self.folder, _MAX_FOLDER_BYTES, _MAX_FOLDER_FILES, self.permanent)


def _content_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0
