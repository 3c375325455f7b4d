"""Find tokens, keys and passwords in files and data before they are uploaded."""

from __future__ import annotations

import base64
import binascii
import io
import netrc
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from huggingface_hub import get_token

from detr_ft.errors import InputError

_KINDS = {
    "a token of the Hugging Face Hub": rb"hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}",
    "a token of GitHub": rb"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}",
    "a key of an API": rb"sk-(?:(?:proj|svcacct|admin|ant|or)-[\w-]{20,}|[A-Za-z0-9]{32,})",
    "a key of AWS": rb"A(?:KI|SI)A[0-9A-Z]{16}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
# Alternatives that begin with a letter, without groups: then the search skips other bytes, and is thirty times as fast.
_SECRET = re.compile(b"|".join(_KINDS.values()))
_TEXT = {".css", ".html", ".json", ".jsonl", ".js", ".jinja", ".md", ".py", ".pyi", ".txt", ".yaml"}
_EMBEDDED = re.compile(rb";base64,([A-Za-z0-9+/=]{40,})")
_TENSORS = {".safetensors", ".onnx", ".pt2"}
_CHUNK_BYTES, _OVERLAP_BYTES = 2**22, 2**14  # no secret is longer than the overlap
# Values of such variables are secrets: HF_TOKEN, WANDB_API_KEY, MLFLOW_TRACKING_PASSWORD, AWS_SECRET_ACCESS_KEY ...
_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|KEY|PASSWORD|PASSWD|SECRET|PAT)$")
_MIN_SECRET_LENGTH = 8
Content = Path | bytes


def check_secrets(contents: Iterable[tuple[str, Content]]) -> None:
    """Raise InputError that names every file or content with a secret, and what kind of secret it is.

    Secrets are tokens and private keys by their form, and the passwords of this user's environment and `.netrc`.
    """
    known = known_secrets()
    problems = []
    for name, content in contents:
        kind = find_secret(content, Path(name).suffix.lower(), known)
        if kind is not None:
            problems.append(f"{name}: contains {kind}, so nothing was written or uploaded. Remove it, and revoke it.")
    if problems:
        raise InputError(problems)


def find_secret(content: Content, suffix: str = "", known: Mapping[bytes, str] | None = None) -> str | None:
    """Return the kind of the first secret in a file or in bytes, None if there is none.

    Files are read in chunks. Compressed members of archives, pictures embedded in pages, and the UTF-16 texts of pictures
    are searched, too.
    """
    known = known_secrets() if known is None else known
    is_text = suffix in _TEXT
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
        for chunk in _chunks(stream):
            kind = _kind_in(chunk, known, is_text)
            if kind is None and suffix not in _TENSORS and b"\0" in chunk:  # UTF-16
                kind = _kind_in(chunk.replace(b"\0", b""), known)
            if kind is not None:
                return kind
        if suffix == ".html":
            stream.seek(0)
            for picture in _EMBEDDED.finditer(stream.read()):
                kind = _kind_in(_decoded(picture[1]), known)
                if kind is not None:
                    return kind
        if suffix == ".pt2" and zipfile.is_zipfile(stream):
            return _kind_in_archive(stream, known)
    return None


def known_secrets() -> dict[bytes, str]:
    """Return the token of the Hub and the passwords of the environment and of `.netrc`, with what each is."""
    secrets = {value: f"the value of {name}" for name, value in os.environ.items() if _VARIABLE.search(name.upper())}
    try:
        path = os.environ.get("NETRC")
        hosts = netrc.netrc(path).hosts
        secrets |= {password: f"the password of {host} in .netrc" for host, (_, _, password) in hosts.items()}
    except (OSError, netrc.NetrcParseError):
        pass
    secrets[get_token() or ""] = "the token of the Hugging Face Hub"
    # Shorter values and plain words would be found in texts by chance.
    return {
        value.encode(errors="surrogateescape"): what
        for value, what in secrets.items()
        if value and len(value) >= _MIN_SECRET_LENGTH and not value.isalpha() and "/" not in value[:1]
    }


def _kind_in(content: bytes, known: Mapping[bytes, str], is_text: bool = False) -> str | None:
    for secret, what in known.items():
        if secret in content:
            return what
    for match in _SECRET.finditer(content):
        # In text, a longer word may end like the beginning of a token; in binary files, a letter may precede it by chance.
        if not (is_text and content[match.start() - 1 : match.start()].isalnum()):
            return next(kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, match[0]))
    return None


def _kind_in_archive(stream: IO[bytes], known: Mapping[bytes, str]) -> str | None:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.compress_type == zipfile.ZIP_STORED:
                continue
            with archive.open(member) as content:
                for chunk in _chunks(content):
                    kind = _kind_in(chunk, known)
                    if kind is not None:
                        return kind
    return None


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the content in chunks that begin with the end of the chunk before."""
    end = b""
    while chunk := stream.read(_CHUNK_BYTES):
        yield end + chunk
        end = chunk[-_OVERLAP_BYTES:]


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
