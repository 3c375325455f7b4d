"""Guards of files that are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_ft.errors import InputError
from detr_ft.utils.files import check_new_file, check_new_folder, unwritable, writing


def test_an_existing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    check_new_file(tmp_path / "new.txt")
    (tmp_path / "old.txt").touch()
    with pytest.raises(InputError, match=r"old\.txt exists .* Choose another name with -o\."):
        check_new_file(tmp_path / "old.txt", "Choose another name with -o.")


def test_a_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    check_new_folder(tmp_path)
    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path, " is not empty"), (tmp_path / "file", ": can't be written (it is a file)")):
        with pytest.raises(InputError) as caught:
            check_new_folder(folder, "Choose another.")
        assert str(caught.value).startswith(f"{folder}{reason}")
        assert str(caught.value).endswith(". Choose another.")
    check_new_folder(tmp_path, ignored=("file",))


def test_an_os_error_names_the_path_and_other_errors_pass(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"out: can't be written \(Not a directory\)"), writing(tmp_path / "out"):
        (tmp_path / "file" / "x").mkdir()
    with pytest.raises(KeyError), writing(tmp_path / "out"):
        raise KeyError("x")
    assert "(no room)" in str(unwritable(tmp_path, RuntimeError("no room")))
