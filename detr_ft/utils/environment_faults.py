"""Installed packages that do not fit together: named as the cause of an error, with a command."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

# Packages that detr_ft uses if they are there, and does not need.
_OPTIONAL = {"torchvision", "torchaudio", "timm"}
_OF_NUMPY = re.compile(
    r"numpy is not available|numpy\.dtype size changed|numpy\.core\.multiarray|_ARRAY_API|compiled using NumPy", re.I
)
_OF_CUDA = re.compile(
    r"no kernel image is available|driver version is insufficient|driver on your system is too old|found no nvidia driver",
    re.I,
)


def environment_fault(error: BaseException) -> str | None:
    """Return the packages that caused an error and how to repair them; None for another cause.

    Such errors are raised while an installed package is imported, or are those of an unusable NumPy or CUDA.
    """
    for cause in _chain(error):
        if _OF_CUDA.search(str(cause)):
            return _cuda_fault(cause)
        package = _imported_package(cause)
        if package is None and _OF_NUMPY.search(str(cause)):
            package = "torch"
        if package is not None:
            return _package_fault(package, cause)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    known: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in known:
        known.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _imported_package(error: BaseException) -> str | None:
    """Return the installed package during whose import an error was raised."""
    modules = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    if not modules:
        return None
    parts = Path(modules[-1]).parts
    folder = next((name for name in ("site-packages", "dist-packages") if name in parts), None)
    if folder is None:
        return None
    module = parts[len(parts) - parts[::-1].index(folder)]
    name = packages_distributions().get(module.removesuffix(".py"), [None])[0]
    return None if name == "detr-ft" else name


def _package_fault(package: str, error: BaseException) -> str:
    own, other = f"{package} {_version(package)}", "numpy" if _OF_NUMPY.search(str(error)) else "torch"
    why = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else 'no message'}"
    for requirement in _requirements(package):
        installed = _version(requirement.name)
        if installed is None:
            return f"{own} can't be imported: {requirement.name} is not installed. Run: pip install '{requirement}'"
        if not requirement.specifier.contains(installed, prereleases=True):
            pin = f"'{requirement.name}=={installed.partition('+')[0]}'"
            return (
                f"{own} needs {requirement}, and {requirement.name} {installed} is installed ({why}). "
                f"Run: pip install --upgrade {pin} {package}{_or_without(package)}"
            )
    beside = "" if package == other else f" with {other} {_version(other)}"
    return (
        f"{own} can't be used{beside}: their builds do not fit together ({why}). "
        f"Run: pip install --force-reinstall --no-deps {package}{_or_without(package)}"
    )


def _or_without(package: str) -> str:
    return f", or, as detr_ft does not need it: pip uninstall {package}" if package in _OPTIONAL else ""


def _requirements(package: str) -> Iterator[Requirement]:
    """Yield what a package requires on this machine, without its extras."""
    for text in requires(package) or []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda_fault(error: BaseException) -> str:
    import torch  # it has raised the error

    return (
        f"torch {torch.__version__} (built for CUDA {torch.version.cuda}) can't use this machine's GPU: "
        f"{str(error).strip().splitlines()[0]}. Update the NVIDIA driver, or install a build of torch for it "
        "(https://pytorch.org/get-started/locally), or train on the CPU with CUDA_VISIBLE_DEVICES= before the command"
    )
