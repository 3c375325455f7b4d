"""What `detr-ft doctor` does: one look at the files, then what it found, as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetDict

from detr_ft.data import load_data
from detr_ft.data.doctor import Diagnosis, diagnose, look, mend
from detr_ft.data.doctor.repair.change_log import as_lines, in_words
from detr_ft.data.doctor.repair.left_out import told_losses
from detr_ft.data.doctor.repair.repair import LOG, Mended, write_mended
from detr_ft.data.export import write_coco
from detr_ft.data.integrity.annotated_size import Frame
from detr_ft.data.sources.errors import Place, UnknownClassError
from detr_ft.errors import InputError
from detr_ft.hub.dataset import check_target, push_dataset
from detr_ft.recipe import load_recipe
from detr_ft.report.doctor.page import write_report
from detr_ft.utils.files import check_new_file, check_new_folder
from detr_ft.utils.progress import say
from detr_ft.workflows.augmentation_preview import preview_augmentation, refuse_other_format

_HUB = "hub:"


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    A page, a mended copy (a folder, or `hub:OWNER/NAME`), the data as it is as COCO files, and a picture of how the recipe
    `augment` augments it: to `augment_out`, else named after the recipe in the current folder. `drawn_on` says for which
    size boxes were drawn where a file has another than stated and they don't tell.
    """

    report: Path | None = None
    fix: str | None = None
    coco: Path | None = None
    augment: Path | None = None
    drawn_on: Frame | None = None
    augment_out: Path | None = None

    @property
    def picture(self) -> Path | None:
        """Where the picture of augmented images goes, if one is asked for."""
        return self.augment and (self.augment_out or Path(f"{self.augment.stem}-augmented.png"))


class DoctorOutcome(NamedTuple):
    """What was found, and what a mended copy lacks where that is much: to be said last, that nobody misses it."""

    diagnosis: Diagnosis
    losses: list[str]


def run_doctor(
    source: str, outputs: Outputs, num_queries: int, longest_edge: int | None, box_format: str | None
) -> DoctorOutcome:
    """Examine a data set and write what is asked for; where that can't go is told before anything is read."""
    _check(outputs)
    data, faults = _load(source, box_format)
    looks = look(data)
    diagnosis = diagnose(data, looks, num_queries, longest_edge, faults)
    if outputs.report is not None:
        write_report(diagnosis, data, outputs.report)
        say(f"the report: {outputs.report}")
    if outputs.coco is not None:
        write_coco(data, outputs.coco)
        say(f"written as COCO files to {outputs.coco}")
    if outputs.fix is None and outputs.picture is None:
        return DoctorOutcome(diagnosis, [])
    mended, losses = mend(data, looks, outputs.drawn_on), list[str]()
    if outputs.fix is not None:
        say(in_words(mended.changes))
        say(f"a mended copy, with every change in {LOG}: {_write(mended, outputs.fix)}")
        losses += told_losses(data, mended)
    if outputs.augment is not None and outputs.picture is not None:
        preview_augmentation(mended.data, outputs.augment, outputs.picture)
        say(f"a picture of images as they are, and as {outputs.augment} augments them: {outputs.picture.resolve()}")
    return DoctorOutcome(diagnosis, losses)


def _load(source: str, box_format: str | None) -> tuple[DatasetDict, Mapping[Place, str]]:
    """The data set, and what its source says of objects whose class is unknown: training refuses them, we report them."""
    try:
        return load_data(source, box_format=box_format), {}
    except UnknownClassError as error:
        return error.data, error.faults


def _check(outputs: Outputs) -> None:
    if outputs.report is not None:
        check_new_file(outputs.report)
    if outputs.coco is not None:
        check_new_folder(outputs.coco)
    if outputs.fix is not None and outputs.fix.startswith(_HUB):
        check_target(outputs.fix.removeprefix(_HUB))
    elif outputs.fix is not None:
        check_new_folder(Path(outputs.fix))
    if outputs.augment is not None:
        load_recipe(outputs.augment)
    elif outputs.augment_out is not None:
        raise InputError("--augment-out goes with --augment RECIPE: it says where its picture goes")
    if outputs.picture is not None:
        check_new_file(outputs.picture)
        refuse_other_format(outputs.picture)
    if outputs.drawn_on is not None and outputs.fix is None:
        raise InputError("--drawn-on goes with --fix: it says how images of unclear size are mended")


def _write(mended: Mended, out: str) -> str:
    if out.startswith(_HUB):
        return push_dataset(mended.data, out.removeprefix(_HUB), {LOG: as_lines(mended.changes)})
    write_mended(mended, Path(out))
    return out
