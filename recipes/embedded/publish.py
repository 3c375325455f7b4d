"""Replace the embedded checkpoint by a pretraining run, and write its card.

python recipes/embedded/publish.py PRETRAINING_RUN ENCODER_LOG python recipes/embedded/publish.py --compare
QUICKSTART_RUN FROM_RANDOM_RUN     (after it: adds what the checkpoint is worth)
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from detr_ft.hub.card import write_card

HERE = Path(__file__).parent / "small"
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "metrics.json", "log.jsonl")
MADE = """
## How it was made

Pretrained on generated scenes of eight silhouettes (circle, square, triangle, star, cross, crescent, arrow, heart), none of
which the quickstart's data holds, in two stages: backbone and encoder first, each token of the encoder a query of its own
(`encoder.py`), then the whole model. `encoder.log` and `log.jsonl` are their logs, `recipe.yaml` is the second stage with
every value, seed included.

```console
export OMP_NUM_THREADS=1
torchrun --nproc_per_node 2 recipes/embedded/encoder.py runs/embedded-encoder | tee runs/embedded-encoder.log
torchrun --nproc_per_node 2 -m detr_ft train recipes/embedded/small.yaml
python recipes/embedded/publish.py runs/embedded-small runs/embedded-encoder.log
```

The first stage took {encoder_minutes:.0f} minutes, the second {minutes:.0f}, in two processes ({hardware} each, torch {torch},
transformers {transformers}, {date}), with other work beside them.
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


def publish(run: Path, encoder_log: Path) -> None:
    """Copy the files of a checkpoint, and write its card."""
    HERE.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(run / name, HERE / name)
    steps = [line for line in encoder_log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    (HERE / "encoder.log").write_text("\n".join(steps) + "\n", encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (HERE / "README.md").unlink(missing_ok=True)
    card = write_card(HERE, "embedded:small")
    minutes = {"encoder_minutes": json.loads(steps[-1])["minutes"], "minutes": metrics["seconds"] / 60}
    made = MADE.format(**minutes, **metrics["environment"])
    card.write_text(card.read_text(encoding="utf-8").rstrip() + "\n" + made, encoding="utf-8")


def compare(quickstart: Path, random: Path) -> None:
    """Add the metrics of both runs to the card."""
    a, b = (json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (quickstart, random))
    worth = WORTH.format(a=a, b=b, a_minutes=a["seconds"] / 60, b_minutes=b["seconds"] / 60)
    card = HERE / "README.md"
    text = card.read_text(encoding="utf-8").partition("\n## What it is worth")[0].rstrip()
    card.write_text(text + "\n" + worth, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        compare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
