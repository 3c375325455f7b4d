"""The images of Pascal VOC's files, by the stated name, folder and path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.voc_files import voc_xml

from detr_ft.data.sources.load import load_data, load_source_data


def write_cameras(folder: Path, write_image: Callable[..., Path], images: str = "images") -> None:
    """Write the images 0.jpg of two cameras, in a folder for each."""
    for seed, camera in enumerate(("cam1", "cam2")):
        write_image(folder / images / camera / "0.jpg", seed=seed)
    (folder / "Annotations").mkdir()


@pytest.mark.parametrize(
    "stated",
    [
        "<folder>{}</folder><filename>0.jpg</filename>",
        "<filename>{}/0.jpg</filename>",
        "<folder>all</folder><filename>0.jpg</filename><path>/home/me/{}/0.jpg</path>",
        "<filename>C:\\data\\{}\\0.jpg</filename>",
        "<filename>D:{}\\0.jpg</filename>",
        "<filename>\\\\nas\\share\\{}\\0.jpg</filename>",
    ],
)
@pytest.mark.parametrize("images", ["images", "JPEGImages", "raw/2024"])
def test_stated_folders_choose_among_images_of_one_name(
    tmp_path: Path, write_image: Callable[..., Path], stated: str, images: str
) -> None:
    write_cameras(tmp_path, write_image, images)
    for camera in ("cam1", "cam2"):
        text = voc_xml((camera, 1, 1, 9, 9)).replace("<filename></filename>", stated.format(camera))
        (tmp_path / "Annotations" / f"{camera}_0.xml").write_text(text)
    rows = load_data(f"voc:{tmp_path}")["train"]
    assert [row["image"]["path"] for row in rows] == [
        str(tmp_path / images / camera / "0.jpg") for camera in ("cam1", "cam2")
    ]


def test_an_image_name_without_its_folder_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    write_cameras(tmp_path, write_image, "raw")
    for camera in ("cam1", "cam2"):
        (tmp_path / "Annotations" / f"{camera}_0.xml").write_text(voc_xml(("dog", 1, 1, 9, 9), filename="0.jpg"))
    problems = [one for one in load_source_data(f"voc:{tmp_path}").problems if one.refused]
    assert [(one.kind, one.row) for one in problems] == [("unreadable annotation", 0)] * 2
    assert problems[0].message.startswith(f"{tmp_path / 'Annotations' / 'cam1_0.xml'}: the image 0.jpg is ambiguous")


def test_the_image_beside_the_xml_file_goes_before_a_stale_path(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for seed, split in enumerate(("train", "valid")):
        write_image(tmp_path / split / "0.jpg", seed=seed)
        text = voc_xml(("dog", 1, 1, 9, 9), filename="0.jpg").replace(
            "<size>", "<folder>train</folder><path>C:\\all\\train\\0.jpg</path><size>"
        )
        (tmp_path / split / "0.xml").write_text(text)
    data = load_data(f"voc:{tmp_path}")
    assert data["validation"][0]["image"]["path"] == str(tmp_path / "valid" / "0.jpg")
