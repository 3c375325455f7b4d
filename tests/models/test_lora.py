"""Adapters: no change before training, the only trained weights of the transformer, merged when saved."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from models.families.test_family import PIXELS, table_transformer
from safetensors.torch import load_file
from transformers import DetrForObjectDetection, PreTrainedModel
from typer.testing import CliRunner
from workflows.test_replay import LOSS
from workflows.test_replay import RECIPE as FAILING

from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.models.freeze import trainable_counts
from detr_ft.models.lora import add_adapters, merged_weights, weights_with_zero_adapters
from detr_ft.models.save import save_as_stock

RECIPE = """\
model: {{checkpoint: {checkpoint}, lora: {{rank: 4}}}}
data: {{source: "generated:workshop?train=8&validation=4&edge=64"}}
train: {{output_dir: run, num_train_epochs: 2, per_device_train_batch_size: 4, learning_rate: 1.0e-3, {more}}}
"""


def taught(model: PreTrainedModel) -> PreTrainedModel:
    """The model with adapters that add something."""
    add_adapters(model, rank=4, alpha=8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["detr", "table-transformer"])
def test_they_add_nothing_at_first_and_are_merged_when_saved(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = (
        table_transformer() if kind == "table-transformer" else DetrForObjectDetection(tiny_config())
    )
    names, before = set(model.state_dict()), model.eval()(PIXELS).logits
    add_adapters(model, rank=4, alpha=8)
    assert torch.equal(model(PIXELS).logits, before)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.1)
    after = model(PIXELS).logits
    assert (after - before).abs().max() > 0.01
    assert set(merged_weights(model)) == names
    save_as_stock(model, tmp_path)
    stock = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(stock(PIXELS).logits, after, rtol=1e-4, atol=1e-5)


def test_only_they_the_heads_and_the_queries_learn(tiny_model: DetrForObjectDetection) -> None:
    counts = trainable_counts(tiny_model)
    add_adapters(tiny_model, rank=2, alpha=2, freeze=["queries", "encoder"])
    after = trainable_counts(tiny_model)
    for part, (training, total) in after.items():
        if part in ("class_head", "box_head"):
            assert training == total == counts[part][1]
        elif part == "decoder":
            assert 0 < training < total
            # Ranks times the sides of each matrix: six layers' worth of attention and feed-forward, in three layers.
            assert training == total - counts[part][1]
        else:
            assert training == 0, part
    learn = [name for name, parameter in tiny_model.named_parameters() if parameter.requires_grad and "decoder" in name]
    assert all(".lora_A." in name or ".lora_B." in name for name in learn)


@torch.no_grad()
def test_saved_weights_come_back_into_a_model_with_adapters(tiny_model: DetrForObjectDetection) -> None:
    model = taught(tiny_model)
    expected = model(PIXELS).logits
    weights = merged_weights(model)
    model.load_state_dict(weights_with_zero_adapters(model, weights))
    torch.testing.assert_close(model(PIXELS).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_run_with_adapters_ends_in_a_stock_checkpoint(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = "load_best_model_at_end: true, ema_decay: 0.9, save_steps: 2"
    (tmp_path / "mine.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint, more=more))
    done = CliRunner().invoke(app, ["train", "mine.yaml"])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["detr_ft"]["lora"] == {"rank": 4, "alpha": 16, "dropout": 0.0}
    before, after = load_file(tiny_checkpoint / "model.safetensors"), load_file(tmp_path / "run/model.safetensors")
    assert before.keys() == after.keys()
    changed = {
        name
        for name in before
        if before[name].shape == after[name].shape and not torch.equal(before[name], after[name])
    }
    assert {re.sub(r"\d", "0", name) for name in changed if "layers" in name and "bbox" not in name} == {
        f"model.{side}.layers.0.{part}.weight"
        for side in ("encoder", "decoder")
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc0")
    } | {f"model.decoder.layers.0.encoder_attn.{part}_proj.weight" for part in ("q", "k", "v", "out")}
    (newest,) = sorted((tmp_path / "run/checkpoints").glob("step-4"))
    assert any("lora_A" in name for name in load_file(newest / "model.safetensors"))
    again = CliRunner().invoke(app, ["train", "mine.yaml", "train.num_train_epochs=3", "--resume"])
    assert again.exit_code == 0, again.output
    assert [row["step"] for row in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())][-1] == 6


def test_a_failed_step_with_adapters_is_replayed(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(LOSS.format(value="apart.sqrt()"))
    recipe = FAILING.format(checkpoint=tiny_checkpoint).replace("model: {", "model: {lora: {rank: 4}, ")
    (tmp_path / "mine.yaml").write_text(recipe)
    assert CliRunner().invoke(app, ["train", "mine.yaml"]).exit_code == 1
    replayed = CliRunner().invoke(app, ["replay", "run/failures/step-1"])
    assert replayed.exit_code == 0, replayed.output
    assert "the loss Root" in replayed.output


def test_missing_peft_is_reported_with_a_remedy(
    tiny_model: DetrForObjectDetection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'detr-ft\[lora\]'"):
        add_adapters(tiny_model, rank=2, alpha=2)
