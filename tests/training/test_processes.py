"""A run of two processes is one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import DetrForObjectDetection

RECIPE = """
model: {{checkpoint: {checkpoint}}}
data: {{source: "generated:workshop?train=10&validation=5&edge=64"}}
train: {{output_dir: {output}, num_train_epochs: 2, per_device_train_batch_size: 2, logging_steps: 1, learning_rate: 0.001}}
"""


@pytest.mark.slow
def test_two_processes_share_the_work_and_write_one_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(checkpoint=tiny_checkpoint, output=output))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "detr_ft", "train", str(recipe)],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    # 10 images in batches of 2 on 2 processes: 3 steps an epoch, the last one filled up, and an evaluation.
    assert [row["step"] for row in log] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert json.loads((output / "metrics.json").read_text())["map"] is not None
    assert DetrForObjectDetection.from_pretrained(output).config.num_labels == 5
