"""Packages that do not fit together are named with their versions and a command."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path

import pytest
from support.broken_packages import install

from detr_ft.errors import InputError
from detr_ft.utils import environment
from detr_ft.utils.environment import warn_of_unused_gpu
from detr_ft.utils.environment_faults import environment_fault

TORCH = version("torch")
NO_OPERATOR = "raise RuntimeError('operator odd::nms does not exist')"


def error_of_import(
    package: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *requirements: str
) -> Exception:
    monkeypatch.syspath_prepend(str(install(folder, package, code, *requirements)))
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of any kind
        importlib.import_module(package)
    return raised.value


def test_the_releases_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of_import(
        "oddvision", NO_OPERATOR, tmp_path, monkeypatch, "torch==2.5.1", "extra-one; extra == 'all'"
    )
    fault = environment_fault(error)
    assert fault is not None
    assert f"oddvision 0.20.1 needs torch==2.5.1, and torch {TORCH} is installed" in fault
    assert f"pip install --upgrade 'torch=={TORCH.partition('+')[0]}' oddvision" in fault


def test_builds_of_fitting_releases_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of_import("oddbuild", NO_OPERATOR, tmp_path, monkeypatch, "torch>=2.0")
    fault = environment_fault(error)
    assert fault is not None
    assert f"oddbuild 0.20.1 can't be used with torch {TORCH}" in fault
    assert "pip install --force-reinstall --no-deps oddbuild" in fault


def test_numpy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "raise ImportError('numpy.core.multiarray failed to import')"
    fault = environment_fault(error_of_import("oddarrays", code, tmp_path, monkeypatch))
    assert fault is not None
    assert f"oddarrays 0.20.1 can't be used with numpy {version('numpy')}" in fault
    fault = environment_fault(RuntimeError("Numpy is not available"))  # by torch's from_numpy
    assert fault is not None
    assert f"torch {TORCH} can't be used with numpy {version('numpy')}" in fault


def test_a_missing_requirement_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of_import("oddneeds", "import absent_one", tmp_path, monkeypatch, "absent-one>=3")
    fault = environment_fault(error)
    assert fault is not None
    assert "absent-one is not installed" in fault
    assert "pip install 'absent-one>=3'" in fault


def test_the_cause_of_an_error_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of_import("oddcause", NO_OPERATOR, tmp_path, monkeypatch, "torch==2.5.1")
    outer = InputError("it can't be loaded")
    outer.__cause__ = error
    assert "torch==2.5.1" in str(environment_fault(outer))


def test_an_error_of_the_gpu_build_is_named() -> None:
    fault = environment_fault(
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
    )
    assert fault is not None
    assert fault.startswith(f"torch {TORCH} (built for CUDA")
    assert "more" not in fault


def test_other_errors_are_none(tmp_path: Path) -> None:
    file = tmp_path / "term.py"
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile(file.read_text(), str(file), "exec"))  # noqa: S102 - a user's module
    assert environment_fault(raised.value) is None
    assert environment_fault(ValueError("torch and numpy")) is None


@pytest.mark.parametrize(
    ("driver", "hidden", "usable", "warned"),
    [(True, False, False, True), (True, True, False, False), (True, False, True, False), (False, False, False, False)],
)
def test_a_gpu_that_torch_cannot_use_is_reported(
    driver: bool, hidden: bool, usable: bool, warned: bool,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = tmp_path / "version"
    if driver:
        file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104\nmore\n")
    monkeypatch.setattr(environment, "_NVIDIA_DRIVER", file)
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(environment.torch.cuda, "is_available", lambda: usable)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    warn_of_unused_gpu.__wrapped__()
    assert ("535.104" in caplog.text) is warned
