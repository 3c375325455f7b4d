"""Images from paths, URLs, PIL images, numpy arrays and tensors, as upright RGB images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detr_ft.data.images import open_image, upright_rgb
from detr_ft.errors import InputError
from detr_ft.utils.daemon_threads import DaemonThreads, TimeLimitError, result_within

# A mapping is an image of a data set, `{"bytes": ..., "path": ...}`, or a row with such an `image`.
ImageInput: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor | Mapping[str, Any]

_EXPECTED = (
    "Pass a path, an http(s) URL, a PIL image, a numpy array (uint8, RGB, [H, W, 3]), a tensor ([3, H, W], uint8 or floats "
    "in 0 to 1), a row of load_data, or a list of them."
)
_MAX_DOWNLOAD_BYTES = 64 * 2**20
_DOWNLOAD_SECONDS = 30.0  # for a whole image
_CHUNK_BYTES = 2**16


def is_image(images: object) -> TypeGuard[ImageInput]:
    """Return True for a single image rather than a list of them."""
    return isinstance(images, (str, Path, Image.Image, np.ndarray, Tensor, Mapping))


def check_list(images: object) -> None:
    """Raise InputError unless the input can be a list of images."""
    if isinstance(images, bytes) or not isinstance(images, Iterable):
        raise InputError(f"image: got {type(images).__name__}. {_EXPECTED}")


def read_images(images: Iterable[ImageInput]) -> Iterator[Image.Image]:
    """Yield images as `read_image` returns them.

    Raises InputError with all images that can't be read, each with its position, after the last image.
    """
    problems: list[str] = []
    for position, image in enumerate(images):
        try:
            opened = read_image(image)
        except InputError as error:
            problems += [f"images[{position}]: {problem.removeprefix('image: ')}" for problem in error.problems]
            continue
        if not problems:
            yield opened
    if problems:
        raise InputError(problems)


def read_image(image: ImageInput) -> Image.Image:
    """Return an image as upright 8-bit RGB.

    Raises InputError for a wrong type, dtype, shape or range of values, and for an unreadable file or URL.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(_checked_array(image)))
    if isinstance(image, Tensor):
        return Image.fromarray(_bytes_of(image).permute(1, 2, 0).contiguous().numpy())
    if isinstance(image, str) and "://" in image:
        return open_image({"bytes": download(image), "path": image})
    if isinstance(image, (str, Path)):
        return open_image(image)
    if isinstance(image, Mapping):
        return _read_mapping(image)
    raise InputError(f"image: got {type(image).__name__}. {_EXPECTED}")


def _read_mapping(image: Mapping[str, Any]) -> Image.Image:
    """Return the image of a row of a data set, or of its column `image`, decoded or not."""
    if "image" in image:
        return read_image(image["image"])
    if image.get("bytes") is None and not isinstance(image.get("path"), (str, Path)):
        raise InputError(f"image: got a dictionary of {', '.join(map(str, image)) or 'nothing'}. {_EXPECTED}")
    return open_image(image)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise InputError(f"image: a numpy array must be uint8, got {array.dtype}. {_EXPECTED}")
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"image: a numpy array must be [H, W, 3], got {list(array.shape)}. {_EXPECTED}")
    return array


def _bytes_of(tensor: Tensor) -> Tensor:
    """Return `[3, H, W]` as uint8 on the CPU."""
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise InputError(f"image: a tensor must be [3, H, W], got {list(tensor.shape)}. {_EXPECTED}")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise InputError(f"image: a tensor must be uint8 or floating point, got {tensor.dtype}. {_EXPECTED}")
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):  # also false for NaN
        low, high = tensor.min().item(), tensor.max().item()
        raise InputError(f"image: a float tensor must be in 0 to 1, got {low:.3g} to {high:.3g}. {_EXPECTED}")
    return (tensor.float() * 255).round().to(torch.uint8)


def download(url: str) -> bytes:
    """Return the bytes of a URL.

    Raises InputError for other protocols, network errors, other content than an image, too much of it, and after 30
    seconds, however slowly names are resolved or bytes arrive.
    """
    thread = DaemonThreads(1)
    try:
        return result_within(thread.submit(partial(_download, url)), _DOWNLOAD_SECONDS)
    except TimeLimitError as error:
        raise _too_slow(url) from error
    finally:
        thread.close()


def _download(url: str) -> bytes:
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url}: only http and https are supported. {_EXPECTED}")
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    try:
        # Some servers refuse requests without a user agent.
        with _opener().open(Request(url, headers={"User-Agent": "detr-ft"}), timeout=_DOWNLOAD_SECONDS) as response:
            content = response.headers.get_content_type()
            if content.partition("/")[0] != "image" and content not in (
                "application/octet-stream",
                "binary/octet-stream",
            ):
                raise InputError(f"{url}: must be an image, got {content}. Give the URL of the image file itself.")
            return _read(response, url, deadline)
    except HTTPError as error:
        error.close()  # it is also the open response
        raise InputError(f"{url}: cannot be downloaded: {error}. Check the URL.") from error
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError; a malformed URL is a ValueError
        reason = error.reason if isinstance(error, URLError) else error
        raise InputError(f"{url}: cannot be downloaded: {reason}. Check the URL and the network.") from error


def _opener() -> OpenerDirector:
    """Return an opener for http and https alone: the default one would follow a redirect to ftp."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(), HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(), HTTPRedirectHandler(), HTTPErrorProcessor()
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _read(response: HTTPResponse, url: str, deadline: float) -> bytes:
    data = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):  # `read` would wait for the whole chunk, however slowly it arrives
        data += chunk
        if len(data) > _MAX_DOWNLOAD_BYTES:
            raise InputError(f"{url}: more than {_MAX_DOWNLOAD_BYTES // 2**20} MiB. Use a smaller image.")
        if time.monotonic() > deadline:
            raise _too_slow(url)
    return bytes(data)


def _too_slow(url: str) -> InputError:
    return InputError(f"{url}: not complete after {_DOWNLOAD_SECONDS:.0f} s. Download the image first.")
