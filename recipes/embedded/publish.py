"""Put a pretraining run in the place of the embedded checkpoint, with its card.

python recipes/embedded/publish.py PRETRAINING_RUN BACKBONE_LOG
python recipes/embedded/publish.py --compare QUICKSTART_RUN FROM_RANDOM_RUN     (adds what the checkpoint is worth)
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from detr_ft.hub.card import write_card

HERE = Path(__file__).parent / "small"
KEPT = ("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "metrics.json", "log.jsonl")
MADE = """
## How it was made

Pretrained on generated scenes of eight silhouettes (circle, square, triangle, star, cross, crescent, arrow, heart), none of
which the quickstart's data holds. `log.jsonl` is the log of the run, `backbone.log` that of the step before it, `recipe.yaml`
the recipe with every value, seed included.

```console
python recipes/embedded/backbone.py runs/embedded-backbone
detr-ft train recipes/embedded/small.yaml
python recipes/embedded/publish.py runs/embedded-small runs/embedded-backbone.log
```

It took {minutes:.0f} minutes on {hardware} (torch {torch}, transformers {transformers}, {date}), with other work beside it.
"""
WORTH = """
## What it is worth

The quickstart, and the same data, steps and criterion from random weights (`recipes/quickstart/from-random.yaml`), on the
same held-out scenes:

| start | mAP | mAP50 | minutes of training |
|---|---|---|---|
| this checkpoint | {a[map]:.3f} | {a[map_50]:.3f} | {a_minutes:.1f} |
| random weights | {b[map]:.3f} | {b[map_50]:.3f} | {b_minutes:.1f} |
"""


def publish(run: Path, backbone_log: Path) -> None:
    """Copy what a checkpoint needs, and write its card."""
    HERE.mkdir(exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, HERE / name)
    shutil.copy(backbone_log, HERE / "backbone.log")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (HERE / "README.md").unlink(missing_ok=True)
    card = write_card(HERE, "embedded:small")
    made = MADE.format(minutes=metrics["seconds"] / 60, **metrics["environment"])
    card.write_text(card.read_text(encoding="utf-8").rstrip() + "\n" + made, encoding="utf-8")


def compare(quickstart: Path, random: Path) -> None:
    """Add the two figures to the card."""
    a, b = (json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (quickstart, random))
    worth = WORTH.format(a=a, b=b, a_minutes=a["seconds"] / 60, b_minutes=b["seconds"] / 60)
    card = HERE / "README.md"
    kept = card.read_text(encoding="utf-8").partition("\n## What it is worth")[0].rstrip()
    card.write_text(kept + "\n" + worth, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        compare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
