"""Compute the results of a source tree through its command line, and compare them with those of another tree.

    python tests/parity/same_results.py --tree ../before --write before.json
    python tests/parity/same_results.py --tree . --against before.json

Six recipes of ten optimizer steps each, two runs that are stopped and resumed, an evaluation and a prediction, all on a CPU
with one thread: about two minutes. Every number of their logs, figures and configs is recorded as it is written, and weights,
optimizer states and predictions by their SHA-256, so equal values mean equal bits. Only the names of the command, of recipe
keys and of result files are relied on, and the terms written here import nothing of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

Values = dict[str, str]

STEPS = 10
# What differs from one run to the next: times, memory, versions, and prose about the figures.
VOLATILE = {
    "images_per_second", "seconds_per_step", "seconds", "peak_memory_mib", "watt_hours", "speed", "environment", "command",
    "transformers_version", "remarks",
}  # fmt: skip
ENDS = ("weights", "log", "figures", "predictions.json", f"step-{STEPS}")  # alike in a run that was stopped and resumed
NEVER_STOPPED = "as if never stopped"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "pillow")
SCENES = "generated:workshop?train=20&validation=6&edge=96"
SCHEDULE = "num_train_epochs: 2, per_device_train_batch_size: 4, logging_steps: 1, save_steps: 5, seed: 3"

RECIPES = {
    "plain": f"""
model: {{checkpoint: "embedded:small"}}
data: {{source: "{SCENES}", augment: none}}
criterion:
  matcher: {{use: HungarianMatcher, costs: [{{use: ClassCost, weight: 1}}, {{use: BoxL1Cost}}, {{use: GIoUCost}}]}}
  losses: [{{use: CrossEntropyLoss, eos_coef: 0.1}}, {{use: BoxL1Loss}}, {{use: GIoULoss}}, {{use: CardinalityError}}]
train: {{output_dir: plain, {SCHEDULE}, learning_rate: 7.0e-4, warmup_steps: 3, max_grad_norm: 1.0}}
""",
    "strong": """
model: {checkpoint: "embedded:small", freeze: [backbone.stem], synonyms: {block: square}}
data: {source: "coco:drawn", augment: strong, mixing_epochs: 1}
criterion:
  matcher:
    use: MatcherSchedule
    starts: [0, 1]
    matchers:
      - use: LayerMatcher
        last: {use: HungarianMatcher, costs: &costs [{use: ClassCost}, {use: BoxL1Cost}, {use: DIoUCost}]}
        auxiliary: {use: OneToManyMatcher, k: 3, costs: *costs}
      - {use: HungarianMatcher, costs: *costs}
  losses: [{use: QualityFocalLoss, weight: 2}, {use: SmoothL1Loss}, {use: DIoULoss}, {use: CardinalityError}]
train:
  output_dir: strong
  num_train_epochs: 2
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  lr_scheduler_type: constant_with_warmup
  warmup_steps: 2
  learning_rate: 4.0e-4
  logging_steps: 1
  save_steps: 5
  load_best_model_at_end: true
""",
    "average": f"""
model: {{checkpoint: "embedded:small"}}
data: {{source: "{SCENES.replace("=20", "=16")}&seed=5", augment: light, repeat_threshold: 0.5}}
criterion:
  matcher: {{use: GreedyMatcher, costs: [{{use: FocalCost}}, {{use: BoxL1Cost}}, {{use: CIoUCost}}]}}
  losses:
    - {{use: FocalLoss, weight: 2, gamma: 1, eos_coef: 0.1, class_weights: [1.3, 0.4, 1.3, 1, 0.8]}}
    - {{use: BoxL1Loss}}
    - {{use: CIoULoss}}
train:
  {{output_dir: average, {SCHEDULE}, learning_rate: 4.0e-4, lr_scheduler_type: cosine, ema_decay: 0.9,
   dataloader_num_workers: 1}}
""",
    "cut": f"""
model: {{checkpoint: "embedded:small", num_queries: 15, decoder_layers: 3}}
data: {{source: "{SCENES}&seed=7", augment: detr, validation_fraction: 0.2, fold: 1/5, longest_edge: 96}}
criterion:
  matcher: {{use: HungarianMatcher, costs: [{{use: LogClassCost}}, {{use: BoxL1Cost}}, {{use: GIoUCost}}]}}
  losses: [{{use: VarifocalLoss}}, {{use: MatchabilityLoss}}, {{use: BoxL1Loss}}, {{use: GIoULoss}}]
train:
  {{output_dir: cut, num_train_epochs: 5, per_device_train_batch_size: 8, logging_steps: 1, save_steps: 5, eval_epochs: 2,
   learning_rate: 4.0e-4, lr_scheduler_type: step, lr_drop_epochs: [3], gradient_checkpointing: true}}
optim: {{backbone_learning_rate: 4.0e-5, heads_learning_rate: 1.0e-3, layer_decay: 0.8}}
""",
    "own": f"""
model: {{checkpoint: "embedded:small", lora: {{rank: 4}}}}
data: {{source: "{SCENES}&seed=9", augment: {{use: "own.py:Mirrored"}}}}
criterion:
  matcher: {{use: HungarianMatcher, costs: [{{use: ClassCost}}, {{use: BoxL1Cost}}, {{use: "own.py:NearCost", scale: 0.1}}]}}
  losses:
    - {{use: CrossEntropyLoss, label_smoothing: 0.05}}
    - {{use: BoxL1Loss}}
    - {{use: "own.py:NearLoss", scale: 0.1}}
train:
  {{output_dir: own, {SCHEDULE}, logging_steps: 3, learning_rate: 1.0e-3, lr_scheduler_type: polynomial, lr_power: 2}}
""".replace("logging_steps: 1, ", ""),
    "random": """
model:
  architecture:
    backbone_config:
      {model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1], out_features: [stage2]}
    d_model: 32
    encoder_layers: 1
    decoder_layers: 3
    encoder_ffn_dim: 32
    decoder_ffn_dim: 32
    encoder_attention_heads: 4
    decoder_attention_heads: 4
    num_queries: 12
    dropout: 0.1
  live_norms: true
data: {source: "coco:drawn", longest_edge: 96, augment: light}
train: {output_dir: random, num_train_epochs: 2, per_device_train_batch_size: 4, logging_steps: 1, learning_rate: 1.0e-3}
""",
}

OWN = '''"""A cost, a loss and an augmentation beside a recipe; the loss asks the run to stop where the environment says so."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


def nearness(a: Any, b: Any, scale: float) -> Any:
    return (-(((a - b) ** 2).sum(-1) + 1e-12).sqrt() / scale).exp()


def stop_if_asked() -> None:
    log, rows = os.environ.get("STOP_BY_LOG"), int(os.environ.get("STOP_AT_ROWS", "0"))
    if log and Path(log).is_file() and len(Path(log).read_text().splitlines()) == rows:
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class NearCost:
    weight: float = 2.0
    scale: float = 0.05

    def __call__(self, predictions: Any, targets: Any) -> Any:
        return -nearness(predictions.boxes[:, targets.image], targets.boxes[:, None], self.scale)


@dataclass(frozen=True)
class NearLoss:
    weight: float = 2.0
    scale: float = 0.05
    name: ClassVar[str] = "loss_near"

    def __call__(self, predictions: Any, targets: Any, matches: Any) -> Any:
        stop_if_asked()
        predicted, true = matches.predicted(predictions.boxes), matches.target_values(targets.boxes)
        return matches.per_layer(1 - nearness(predicted, true, self.scale)) / matches.num_boxes


@dataclass(frozen=True)
class Mirrored:
    share: float = 0.5

    def __call__(self, sample: Any, random: Any, another: Any) -> Any:
        return sample.flip() if random.random() < self.share else sample
'''


@dataclass(frozen=True)
class Tree:
    """A source tree whose command is run in a folder, on one thread of the CPU, without a network."""

    source: Path
    folder: Path

    def run(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Run the command and return its stdout; exit with its output if the exit status differs."""
        done = subprocess.run(
            [sys.executable, *(("-m", "detr_ft", *arguments) if arguments else ("-c", "import detr_ft as d; print(d.__file__)"))],
            cwd=self.folder,
            env={**os.environ, **self._settings, **environment},
            capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode != status:
            raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}, wanted {status}\n{done.stderr}")
        return done.stdout

    @property
    def _settings(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(self.source),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "cache"),
        }


def main() -> None:
    """Write the values of a tree, or compare them with those in a file and end with status 1 where any differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, required=True, help="the folder that holds detr_ft/ and recipes/")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE.json", help="write the values to this file")
    what.add_argument("--against", type=Path, metavar="FILE.json", help="compare the values with those in this file")
    parser.add_argument("--only", nargs="+", choices=RECIPES, help="only these recipes, without their resumed runs")
    requested = parser.parse_args()
    before = json.loads(requested.against.read_text(encoding="utf-8")) if requested.against else None
    with tempfile.TemporaryDirectory() as name:
        tree = Tree(requested.tree.resolve(), Path(name))
        loaded = Path(tree.run().strip())
        if not loaded.is_relative_to(tree.source):
            raise SystemExit(f"{loaded} would be measured, which is not in {tree.source}")
        values = measure(tree, requested.only)
    for key, one in values.items():
        if key.endswith(NEVER_STOPPED) and one != "yes":
            print(f"{key}: {one}")
    if before is None:
        content = {"machine": machine(), "values": values}
        requested.write.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{len(values)} values")
        return
    for key, there in before["machine"].items():
        if there != machine()[key]:
            print(f"note: {key} was {there}, is {machine()[key]}")
    wanted = {
        key: one for key, one in before["values"].items() if not requested.only or key.split("/")[0] in requested.only
    }
    raise SystemExit(1 if compare(wanted, values) else 0)


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> int:
    """Print each difference and a summary; answer how many there are."""
    keys = list({**before, **now})
    different = [key for key in keys if before.get(key) != now.get(key)]
    for key in different:
        print(f"{key}: was {before.get(key, 'missing')}, is {now.get(key, 'missing')}")
    print(f"{len(keys)} values, {len(different)} differ")
    return len(different)


def machine() -> dict[str, str]:
    """The versions and the processor that the last digits depend on."""
    return {"python": platform.python_version(), "processor": platform.machine()} | {
        one: version(one) for one in PACKAGES
    }


def measure(tree: Tree, only: list[str] | None = None) -> Values:
    """The values of a tree, by names such as `plain/log/3/loss_ce`."""
    draw_data(tree.folder / "drawn")
    (tree.folder / "own.py").write_text(OWN, encoding="utf-8")
    values: Values = {}
    for name in only or RECIPES:
        (tree.folder / f"{name}.yaml").write_text(RECIPES[name], encoding="utf-8")
        tree.run("train", f"{name}.yaml")
        values |= values_of_run(tree.folder / name, name)
        if f"{name}/log/{STEPS} evaluated/map" not in values or f"{name}/log/{STEPS + 1}/loss" in values:
            raise SystemExit(f"{name} is to have {STEPS} steps")
        progress(f"trained by {name}")
    if only is None:
        values |= cut_off_and_resumed(tree, "average")
        values |= stopped_and_resumed(tree, "own")
        values |= evaluated(tree)
        values |= predicted(tree)
    return values


def cut_off_and_resumed(tree: Tree, name: str) -> Values:
    """A run whose machine was lost after half of its steps, so that only that checkpoint and the log are left."""
    copy = f"{name}-cut-off"
    (tree.folder / copy).mkdir()
    shutil.copy(tree.folder / name / "log.jsonl", tree.folder / copy)
    shutil.copytree(tree.folder / f"{name}/checkpoints", tree.folder / f"{copy}/checkpoints")
    shutil.rmtree(tree.folder / f"{copy}/checkpoints/step-{STEPS}")
    left = steps_left(tree.folder / copy)
    return {f"{copy}/left": left} | resumed(tree, name, copy)


def stopped_and_resumed(tree: Tree, name: str) -> Values:
    """A run that had SIGTERM in its seventh step: the log has three rows, those of steps 1, 3 and 6."""
    copy = f"{name}-stopped"
    tree.run(
        "train", f"{name}.yaml", f"train.output_dir={copy}",
        status=128 + signal.SIGTERM, STOP_BY_LOG=f"{copy}/log.jsonl", STOP_AT_ROWS="3",
    )  # fmt: skip
    left = steps_left(tree.folder / copy)
    return {f"{copy}/left": left} | resumed(tree, name, copy)


def steps_left(run: Path) -> str:
    """The names of the checkpoints of a run that is to go on."""
    return ",".join(sorted(one.name for one in (run / "checkpoints").glob("step-*")))


def resumed(tree: Tree, name: str, copy: str) -> Values:
    """Resume a copy of a run to its end, and compare it with the run that was never stopped."""
    tree.run("train", f"{name}.yaml", "--resume", f"train.output_dir={copy}")
    values, whole = values_of_run(tree.folder / copy, copy), values_of_run(tree.folder / name, name)
    same = {key.removeprefix(f"{copy}/"): value for key, value in values.items()}
    ends = {place: one for key, one in whole.items() if (place := key.removeprefix(f"{name}/")).startswith(ENDS)}
    others = [place for place, one in ends.items() if "/step-5" not in place and same.get(place) != one]
    progress(f"resumed {copy}")
    return values | {
        f"{copy}/{NEVER_STOPPED}": "yes" if not others else f"no: {len(others)} values differ, {others[0]} first"
    }


def evaluated(tree: Tree) -> Values:
    """The figures and detections of the embedded checkpoint on scenes of its own kind."""
    scenes = "generated:shapes?train=0&validation=16&edge=112&seed=11"
    output = tree.run(
        "evaluate", "embedded:small", "--data", scenes, "--json", "--out", "report", "--save-predictions", "found.json"
    )
    values = dict(leaves("evaluate/json", json.loads(output)))
    values |= leaves("evaluate/figures", json.loads((tree.folder / "report/metrics.json").read_text(encoding="utf-8")))
    values["evaluate/predictions"] = digest((tree.folder / "found.json").read_bytes())
    again = tree.run("evaluate", "--from-predictions", "found.json", "--data", scenes, "--json")
    values |= leaves("evaluate/from predictions", json.loads(again))
    progress("evaluated")
    return values


def predicted(tree: Tree) -> Values:
    """Return the detections of the embedded checkpoint in two images, and the annotated pictures."""
    images = sorted((tree.folder / "drawn/valid").glob("*.png"))[:2]
    names = [str(one.relative_to(tree.folder)) for one in images]
    tree.run("predict", "embedded:small", *names, "--threshold", "0.2", "--out", "pictures")
    rows = (tree.folder / "pictures/predictions.json").read_bytes()
    values = {"predict/boxes": str(len(json.loads(rows))), "predict/json": digest(rows)}
    for picture in sorted((tree.folder / "pictures").rglob("*.png")):
        values[f"predict/{picture.name}"] = digest(np.asarray(Image.open(picture).convert("RGB")).tobytes())
    progress("predicted")
    return values


def values_of_run(run: Path, name: str) -> Values:
    """Return the content of a run directory: log, metrics, config, weights, detections, and the state of each checkpoint."""
    values: Values = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kind = "" if "loss" in row else " evaluated"
        values |= leaves(f"{name}/log/{row['step']}{kind}", row)
    for part, file in (
        ("figures", "metrics.json"),
        ("config", "config.json"),
        ("processor", "preprocessor_config.json"),
    ):
        values |= leaves(f"{name}/{part}", json.loads((run / file).read_text(encoding="utf-8")))
    for file in ("held-out.json", "predictions.json"):
        values[f"{name}/{file}"] = digest((run / file).read_bytes())
    values |= leaves(f"{name}/recipe", yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    for weights in sorted(run.rglob("model.safetensors")):
        values[f"{name}/weights/{weights.parent.relative_to(run)}"] = digest(weights.read_bytes())
    for state in sorted(run.glob("checkpoints/step-*/training.pt")):
        values |= leaves(f"{name}/{state.parent.name}", summed_up(torch.load(state, weights_only=True)))
    return values


def summed_up(state: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a checkpoint: each kind of the optimizer's by a digest, the values since the last row of the log as they are."""
    optimizer = state["optimizer"]
    kinds = sorted({kind for one in optimizer.values() for kind in one})
    moments = {kind: digest_of(one[kind] for one in optimizer.values()) for kind in kinds}
    since = {term: float(value) for term, value in state["since"]["terms"].items()}
    return {
        "optimizer": moments,
        "since": since,
        "ema": digest_of(state["ema"].values()),
        "partners": digest_of([state["partners"]]),
    }


def leaves(name: str, value: object) -> Values:
    """The plain values in a structure, by their places and as exact text; what differs from run to run is left out."""
    if isinstance(value, dict):
        return {
            k: v for key, one in value.items() if key not in VOLATILE for k, v in leaves(f"{name}/{key}", one).items()
        }
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        return {k: v for place, one in enumerate(value) for k, v in leaves(f"{name}/{place}", one).items()}
    return {name: repr(value)}


def digest(content: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_of(tensors: Any) -> str:
    """The SHA-256 of all values of some tensors, in their order."""
    sums = hashlib.sha256()
    for one in tensors:
        sums.update(f"{one.dtype} {list(one.shape)}".encode())
        sums.update(one.contiguous().numpy().tobytes())
    return sums.hexdigest()


def draw_data(folder: Path) -> None:
    """Write 20 and 4 drawn images of mixed sizes as COCO files: circles and blocks on noise, one of them a crowd."""
    random = np.random.default_rng(17)
    for split, count in (("train", 20), ("valid", 4)):
        (folder / split).mkdir(parents=True)
        images: list[dict[str, object]] = []
        objects: list[dict[str, object]] = []
        for number in range(1, count + 1):
            pixels, boxes = scene(random, crowd=number == 5)
            name = f"{number:02d}.png"
            Image.fromarray(pixels).save(folder / split / name)
            images.append({"id": number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
            objects += [
                {"id": len(objects) + place, "image_id": number, **box} for place, box in enumerate(boxes, start=1)
            ]
        names = [{"id": 1, "name": "circle"}, {"id": 2, "name": "block"}]
        content = {"categories": names, "images": images, "annotations": objects}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content), encoding="utf-8")


def scene(
    random: np.random.Generator, crowd: bool
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[dict[str, object]]]:
    """Return an image of two to four shapes, and the COCO annotation of each."""
    height, width = (int(side) for side in random.integers(64, 112, 2))
    pixels = random.integers(90, 130, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    boxes: list[dict[str, object]] = []
    for place in range(int(random.integers(2, 5))):
        w, h = (int(side) for side in random.integers(12, 32, 2))
        x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
        kind = int(random.integers(1, 3))
        if kind == 1:
            inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
        else:
            inside = (columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h)
        pixels[inside] = random.integers(0, 256, 3)
        is_crowd = int(crowd and place == 0)
        boxes.append({"category_id": kind, "bbox": [x, y, w, h], "area": int(inside.sum()), "iscrowd": is_crowd})
    return pixels, boxes


def progress(words: str) -> None:
    """Print the progress on stderr."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
