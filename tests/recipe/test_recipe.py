from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detr_ft.criterion import detr_criterion
from detr_ft.criterion.serialization import describe
from detr_ft.errors import InputError
from detr_ft.recipe import Recipe
from detr_ft.recipe.load import build_file, load_recipe, read_recipe

ROOT = Path(__file__).parents[2]
# A folder with a model holds what a run resolved, not what a person wrote.
OTHER_FILES = ("launch", "small")  # of accelerate's configs, and of a checkpoint
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name not in OTHER_FILES)
GOOD = """\
model:
  checkpoint: embedded:small
data:
  source: generated:workshop
train:
  output_dir: runs/x
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


BOMB = "a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


def test_missing_sections_are_those_of_detr(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    assert build_file(recipe).criterion == detr_criterion()
    assert loaded.train.learning_rate == 1e-4
    assert loaded.hub.private


def test_paths_of_python_are_text(tmp_path: Path) -> None:
    recipe = Recipe(
        model={"checkpoint": tmp_path, "synonyms": Path("names.yaml")},  # type: ignore[arg-type]
        data={"source": tmp_path / "data"},  # type: ignore[arg-type]
        train={"output_dir": "run"},  # type: ignore[arg-type]
    )
    assert (recipe.model.checkpoint, recipe.model.synonyms) == (str(tmp_path), "names.yaml")
    assert recipe.data.source == str(tmp_path / "data")


def test_overrides_win(recipe: Path) -> None:
    loaded = load_recipe(
        recipe, ["train.learning_rate=5e-5", "optim.backbone_learning_rate=0.001", "model.freeze=[backbone]"]
    )
    assert loaded.train.learning_rate == 5e-5
    assert loaded.optim.backbone_learning_rate == 0.001
    assert loaded.model.freeze == ["backbone"]


def test_as_resolved_it_reads_back_the_same(recipe: Path, tmp_path: Path) -> None:
    loaded = build_file(recipe, ["train.seed=4"])
    text = loaded.recipe.to_yaml(describe(loaded.criterion))
    (tmp_path / "resolved.yaml").write_text(text)
    again = build_file(tmp_path / "resolved.yaml")
    assert (again.criterion, again.augmentation) == (loaded.criterion, loaded.augmentation)
    assert again.recipe.to_yaml() == text


def test_all_mistakes_are_reported_together_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """\
model:
  checkpoint: embedded:small
  architecture: {d_model: 32}
data:
  sorce: here
  longest_edge: 10
  box_format: corners
  augment: {use: Light, jiter: 1}
  fold: 6/5
criterion:
  matcher: {use: HungarianMatcher, costs: [{use: ClasCost}]}
  losses:
    - {use: BoxL1Loss, wieght: 2}
train:
  output_dir: runs/x
  learning_rate: fast
  num_epochs: 3
extra: 1
"""
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path, ["train.seed", "train.seed=-1"])
    output = "\n".join(caught.value.problems)
    for expected in [
        "bad.yaml:1: model: give either checkpoint",
        "bad.yaml:5: data.sorce: unknown key; did you mean source?",
        "bad.yaml:4: data.source: is missing",
        "bad.yaml:6: data.longest_edge: ",
        "bad.yaml:7: data.box_format: input should be 'xywh', 'xyxy'",
        "bad.yaml:8: data.augment.jiter: Light has no parameter 'jiter'; did you mean jitter?",
        "bad.yaml:11: criterion.matcher.costs.0.use: there is no 'ClasCost'; did you mean ClassCost?",
        "bad.yaml:13: criterion.losses.0.wieght: BoxL1Loss has no parameter 'wieght'; did you mean weight?",
        "bad.yaml:16: train.learning_rate: input should be a valid number",
        "bad.yaml:17: train.num_epochs: unknown key; did you mean num_train_epochs?",
        "bad.yaml:18: extra: unknown key",
        "override train.seed: must be written section.key=value",
        "override train.seed=-1: input should be greater than or equal to 0, got -1",
    ]:
        assert expected in output
    lines = [int(problem.split(":")[1]) for problem in caught.value.problems[:-2]]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs=3", "its section is missing; did you mean train.num_train_epochs=3?"),
        ("lr=1e-4", "did you mean train.learning_rate=1e-4?"),
        ("batch_size=4", "did you mean train.per_device_train_batch_size=4?"),
        ("num_train_epochs=3", "did you mean train.num_train_epochs=3?"),
        ("output_dir=x", "did you mean train.output_dir=x?"),
        ("lerning_rate=1", "did you mean train.learning_rate=1?"),
        ("source=photos", "did you mean data.source=photos?"),
        ("nonsense=1", "must be written section.key=value"),
        ("train.epcohs=3", "unknown key; did you mean num_train_epochs?"),
        ("data.img_size=3", "unknown key; did you mean longest_edge?"),
        ("trian.seed=3", "unknown key; did you mean train?"),
        ("train.seed.x=3", "train.seed has no keys"),
        ("train.seed=[", "'[' is not a YAML value"),
        ("criterion.losses.0.eos_coef=0.2", "items of a list cannot be overridden"),
        ("data.augment=gone.py:Mine", "Write {use: 'gone.py:Mine'}"),
        ("model.synonyms={cat: [1]}", "cat: input should be a valid string"),
    ],
)
def test_mistakes_in_overrides_are_reported_with_the_override(recipe: Path, override: str, words: str) -> None:
    recipe.write_text(
        GOOD + "  seed: 1\ncriterion:\n  matcher: {use: HungarianMatcher}\n  losses: [{use: BoxL1Loss}]\n"
    )
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, [override])
    reported = "\n".join(caught.value.problems)
    assert reported.startswith(f"override {override}: ")
    assert words in reported
    assert str(recipe) not in reported


def test_mistakes_in_arguments_are_reported_without_a_line(recipe: Path) -> None:
    recipe.write_text(GOOD + "  learning_rate: 1\n")
    with pytest.raises(InputError) as caught:
        build_file(recipe, [], {"train": {"learning_rate": -1}})
    assert caught.value.problems == ["train.learning_rate: input should be greater than 0, got -1"]


def test_invalid_weights_are_reported_with_other_mistakes(recipe: Path) -> None:
    recipe.write_text(
        GOOD + "criterion:\n  matcher: {use: HungarianMatcher}\n  losses:\n    - {use: BoxL1Loss, weight: heavy}\n"
        "    - {use: GIoULos}\n    - {use: CrossEntropyLoss, weight: -1}\nepochs: 3\n"
    )
    with pytest.raises(InputError) as caught:
        load_recipe(recipe)
    first, second, third, fourth = caught.value.problems
    assert first.startswith(f"{recipe}:10: criterion.losses.0: ")
    assert "weight must be a finite number" in first
    assert "did you mean GIoULoss?" in second
    assert "weight must be a finite number" in third
    assert fourth == f"{recipe}:13: epochs: unknown key; did you mean train.num_train_epochs?"


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"is a folder, .*: detr-ft new {tmp_path}$"):
        load_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text(GOOD)
    with pytest.raises(InputError, match=rf"is a folder\. Give the recipe in it, {tmp_path}/recipe\.yaml$"):
        load_recipe(tmp_path)


def test_conflicting_settings_are_reported_with_their_line(recipe: Path) -> None:
    recipe.write_text(GOOD + "  lr_scheduler_type: cosine\n  lr_drop_epochs: [10]\noptim:\n  layer_decay: 2\n")
    with pytest.raises(InputError) as caught:
        load_recipe(recipe)
    assert caught.value.problems == [
        f"{recipe}:5: train: lr_drop_epochs needs lr_scheduler_type step, got cosine",
        f"{recipe}:10: optim.layer_decay: input should be less than or equal to 1, got 2",
    ]


def test_an_edge_that_no_machine_can_pay_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {checkpoint: x}\ndata:\n  source: y\n  longest_edge: 8192\ntrain: {output_dir: z}\n")
    assert load_recipe(path).data.longest_edge == 8192
    with pytest.raises(InputError) as caught:
        load_recipe(path, ["data.longest_edge=100000"])
    (problem,) = caught.value.problems
    assert problem.startswith("override data.longest_edge=100000: must be at most 8192")
    assert problem.endswith("into tiles, got 100000")


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ("stong", "3: data.augment: there is no 'stong'; did you mean strong"),
        ("{use: Lite}", "3: data.augment.use: there is no 'Lite'; did you mean Light"),
        ("{use: 'gone.py:Mine'}", "3: data.augment.use: .*gone.py: there is no such file"),
        ("light\n  fold: 6/5", "fold 6/5: must be"),
        ("light\n  augment: none", "4: augment occurs twice"),
    ],
)
def test_an_invalid_augmentation_or_fold_is_reported(tmp_path: Path, augment: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"model: {{checkpoint: x}}\ndata:\n  augment: {augment}\n  source: x\ntrain: {{output_dir: y}}\n")
    with pytest.raises(InputError, match=words):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("- 1\n", "must be a mapping"),
        ("model: [1\n", "not valid YAML"),
        ("model: !!python/object:os.system {}\n", "not valid YAML"),
        ("model: 2001-99-99\n", "bad.yaml: not valid YAML: month must be in 1..12"),
        ('model: !!int "x"\n', "not valid YAML"),
        ("model: " + "[" * 5000, "not valid YAML: nested too deeply"),
        ("model: &a [*a]", "not valid YAML: an anchor refers"),
        (BOMB, "more than 1,000,000 values"),
    ],
)
def test_an_invalid_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_recipe(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_recipe(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="can't be read"):
        load_recipe(tmp_path / "binary.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_is_valid_and_names_itself(path: Path) -> None:
    from detr_ft.criterion import check_criterion

    assert check_criterion(build_file(path).criterion) == []
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "a recipe says first what it is and how it is run"
    assert yaml.safe_load(text)["train"]["output_dir"].startswith("runs/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("", "a mapping"),
        ("- 1", "a mapping"),
        ("model: 3", "model"),
        ("a: &a {b: *a}", "itself|unknown|required"),
    ],
)
def test_an_invalid_file_is_reported_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    for read in (read_recipe, load_recipe):
        with pytest.raises(InputError, match=words) as caught:
            read(tmp_path / "recipe.yaml")
        assert "recipe.yaml" in str(caught.value)


def test_a_recipe_is_read_without_its_criterion(tmp_path: Path) -> None:
    """A run can be evaluated after the file of its term was removed."""
    (tmp_path / "recipe.yaml").write_text(GOOD + "criterion: {matcher: {use: 'gone.py:Matcher'}, losses: []}\n")
    assert read_recipe(tmp_path / "recipe.yaml").data.source == "generated:workshop"


@pytest.mark.parametrize(
    ("section", "alias", "key"),
    [
        ("train", "epochs", "num_train_epochs"),
        ("train", "lr", "learning_rate"),
        ("train", "batch_size", "per_device_train_batch_size"),
        ("data", "imgsz", "longest_edge"),
        ("model", "weights", "checkpoint"),
    ],
)
def test_names_of_other_tools_suggest_the_key(tmp_path: Path, section: str, alias: str, key: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {checkpoint: embedded:small}\ndata: {source: photos}\ntrain: {output_dir: run}\n")
    with pytest.raises(InputError, match=rf"{section}\.{alias}=1: .*{key}\?"):
        load_recipe(recipe, [f"{section}.{alias}=1"])
