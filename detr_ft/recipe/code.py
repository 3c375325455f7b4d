"""The code of a recipe in its run: copies of its files, and the recipe that names them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from detr_ft.criterion.serialization import describe
from detr_ft.errors import InputError
from detr_ft.recipe.class_source import standalone_source
from detr_ft.recipe.load import BuiltRecipe
from detr_ft.recipe.recipe import Recipe
from detr_ft.recipe.trust import code_of, record_run
from detr_ft.run_directory import RunDirectory
from detr_ft.utils.components import SCRIPT, code_names, rename_code, script_classes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecipeCode:
    """The contents of the files that a recipe runs, by their names in the recipe.

    Classes of a script or notebook are a file too, whose name in the recipe is `__main__`.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, built: BuiltRecipe) -> RecipeCode:
        """Read the files of criterion and augmentation. Raises InputError for a file that can't be read.

        Classes of a script or notebook without available source are left out, with a warning.
        """
        contents = _from_script(script_classes(_description(built)))
        for name in code_names(_description(built)):
            file = built.recipe.folder / name
            if not file.is_file():  # of a term that was built elsewhere
                continue
            try:
                contents[name] = file.read_bytes()
            except OSError as error:
                raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
        return cls(contents)

    def names_in(self, run: Path) -> dict[str, str]:
        """Return the name of each file in a run.

        It is that in the recipe, without folders if these are outside the recipe's folder. A file of the run with other
        contents is not overwritten: the name gets a number.
        """
        names: dict[str, str] = {}
        used: dict[str, bytes] = {}
        for name, content in self.contents.items():
            path = PurePath("terms.py" if name == SCRIPT else name)
            own = PurePath(path.name) if path.is_absolute() or ".." in path.parts else path
            numbered = (own if number == 1 else own.with_stem(f"{own.stem}-{number}") for number in count(1))
            names[name] = next(
                candidate.as_posix()
                for candidate in numbered
                if used.get(candidate.as_posix(), content) == content and _is_free(run / candidate, content)
            )
            used[names[name]] = content
        return names

    def recorded(self, built: BuiltRecipe, run: Path) -> Recipe:
        """Return the recipe with the description of its criterion and the names of the copies."""
        criterion, augment = rename_code(_description(built), self.names_in(run))
        data = built.recipe.data.model_copy(update={"augment": augment})
        return built.recipe.model_copy(update={"criterion": criterion, "data": data})

    def write(self, built: BuiltRecipe, run: RunDirectory) -> None:
        """Copy the files into the run and record it as trained here.

        Raises InputError if one can't be written.
        """
        names = self.names_in(run.path)
        for name, target in names.items():
            if (run.path / target).is_file():
                run.record([target])
            else:
                run.write_bytes(target, self.contents[name])
        description = _description(built)
        copies = code_of(rename_code(description, names), run.path)
        record_run(run.path, code_of(description, built.recipe.folder) | copies)


def _description(built: BuiltRecipe) -> list[Any]:
    return [describe(built.criterion), built.recipe.data.augment]


def _from_script(classes: list[str]) -> dict[str, bytes]:
    if not classes:
        return {}
    try:
        return {SCRIPT: standalone_source(classes).encode()}
    except LookupError as error:
        logger.warning(
            "the recipe in the run can't be used again: %s. Move %s to a file, and import it from there",
            error, " and ".join(classes),
        )  # fmt: skip
        return {}


def _is_free(file: Path, content: bytes) -> bool:
    return not file.exists() or (file.is_file() and file.read_bytes() == content)
