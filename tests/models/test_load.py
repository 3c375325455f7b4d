from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, DetrForObjectDetection, ResNetBackbone, ResNetConfig

from detr_ft.errors import InputError
from detr_ft.models.build import build_model
from detr_ft.models.families.detr import DETR
from detr_ft.models.freeze import frozen_norms, live_norms, set_trainable, trainable_counts
from detr_ft.models.load import load_detector, load_model, num_queries_of

TINY_BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "out_features": ["stage2"],
}
ARCHITECTURE = {
    "backbone_config": TINY_BACKBONE,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 6,
}


@pytest.fixture
def broken(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a valid checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))


def test_a_folder_loads_whole(tiny_checkpoint: Path) -> None:
    model, processor = load_model(str(tiny_checkpoint))
    saved = load_file(tiny_checkpoint / "model.safetensors")
    assert len(saved) == len(model.state_dict())
    assert processor.size["max_height"] == 64


@pytest.mark.parametrize("load", [load_model, load_detector])
def test_a_path_is_a_checkpoint_and_a_model_is_not(load: Any, tiny_checkpoint: Path) -> None:
    model, _ = load(tiny_checkpoint)
    with pytest.raises(InputError, match=r"checkpoint: must be a run, .* got DetrForObjectDetection.*save_pretrained"):
        load(model)
    with pytest.raises(InputError, match=r"checkpoint: must be a run, .* got int"):
        load(3)


def test_queries_are_read_from_a_local_config_alone(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert num_queries_of(str(broken)) == json.loads((broken / "config.json").read_text())["num_queries"]
    BertConfig().save_pretrained(broken)
    assert [num_queries_of(name) for name in (str(broken), "nobody/nothing", str(broken / "gone"))] == [None] * 3


def test_a_missing_weight_is_an_error(broken: Path) -> None:
    state = load_file(broken / "model.safetensors")
    gone = next(key for key in state if "class_labels_classifier.weight" in key)
    del state[gone]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 weights are missing"):
        load_model(str(broken))


def test_another_architecture_is_an_error(broken: Path) -> None:
    BertConfig().save_pretrained(broken)
    with pytest.raises(InputError, match="'bert' model"):
        load_model(str(broken))


def test_a_shape_that_does_not_fit_is_an_error(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    config["num_queries"] = 5
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"query_position_embeddings.weight is \[8, 32\] in the checkpoint and \[5, 32\]"
    ):
        load_model(str(broken))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone/for/good", "no such folder"),
        ("./gone", "no such folder"),
        ("embedded:huge", "embedded:huge: .*Use one of small"),
    ],
)
def test_a_missing_checkpoint_is_reported(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_model(name)


def test_a_folder_without_config_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(str(tmp_path))


def test_pickled_weights_are_loaded_on_request_only(broken: Path) -> None:
    torch.save(load_file(broken / "model.safetensors"), broken / "pytorch_model.bin")
    (broken / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors.*model\.pickled: true"):
        load_model(str(broken))
    load_model(str(broken), pickled=True)


def test_exactly_the_declared_parts_train(tiny_model: DetrForObjectDetection) -> None:
    assert not any(p.requires_grad for n, p in tiny_model.named_parameters() if "backbone" in n)  # the stock trap
    set_trainable(tiny_model, [])
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())
    set_trainable(tiny_model, ["backbone.stem", "encoder"])
    for part, (training, total) in trainable_counts(tiny_model).items():
        assert training == (0 if part in ("backbone.stem", "encoder") else total), part
    set_trainable(tiny_model, ["backbone"])
    counts = trainable_counts(tiny_model)
    assert [counts[part][0] for part in counts if part.startswith("backbone")] == [0, 0, 0]
    with pytest.raises(InputError, match="no part 'bakbone'"):
        set_trainable(tiny_model, ["bakbone"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.backbone.model.embedder.embedder.convolution.weight", "backbone.stem"),
        ("model.backbone.model.encoder.stages.2.layers.0.layer.0.convolution.weight", "backbone.stage3"),
        ("model.backbone.model.conv1.weight", "backbone.stem"),
        ("model.backbone.model.layer4.1.conv2.weight", "backbone.stage4"),
        ("model.query_position_embeddings.weight", "queries"),
    ],
)
def test_native_and_timm_names_have_the_same_parts(name: str, part: str) -> None:
    assert DETR.part_of(name).name == part


def test_norms_live_and_frozen_again_are_stock(tiny_model: DetrForObjectDetection) -> None:
    keys = set(tiny_model.state_dict())
    pixels = torch.randn(4, 3, 64, 64)
    live_norms(tiny_model)
    tiny_model.train()
    tiny_model(pixels)
    tiny_model.eval()
    before = tiny_model(pixels).logits
    frozen_norms(tiny_model)
    assert set(tiny_model.state_dict()) == keys
    torch.testing.assert_close(tiny_model(pixels).logits, before, rtol=1e-4, atol=1e-5)


def test_random_weights_are_drawn_as_the_authors_draw_them() -> None:
    torch.manual_seed(0)
    model, processor = build_model(ARCHITECTURE, ["a", "b"], 64)
    assert model.model.query_position_embeddings.weight.std().item() == pytest.approx(1, abs=0.15)
    projection = model.model.encoder.layers[0].self_attn.q_proj.weight
    assert projection.abs().max().item() == pytest.approx((6 / 64) ** 0.5, rel=0.05)  # xavier's bound for 32 x 32
    assert processor.size == {"max_height": 64, "max_width": 64}
    with pytest.raises(InputError, match=r"model\.architecture"):
        build_model(ARCHITECTURE | {"num_queries": "many"}, ["a"], 64)
    with pytest.raises(InputError, match=r"model\.architecture\.d_modell: "):
        build_model(ARCHITECTURE | {"d_modell": 33}, ["a"], 64)


def test_a_backbone_is_taken_whole_or_refused(tmp_path: Path) -> None:
    fields = {key: value for key, value in TINY_BACKBONE.items() if key != "model_type"}
    backbone = ResNetBackbone(ResNetConfig(**fields))
    backbone.save_pretrained(tmp_path / "fits")
    ResNetBackbone(ResNetConfig(**fields | {"hidden_sizes": [8, 24]})).save_pretrained(tmp_path / "other")
    model, _ = build_model(ARCHITECTURE, ["a"], 64, str(tmp_path / "fits"))
    state = backbone.state_dict()
    for name, value in model.model.backbone.model.state_dict().items():
        assert torch.equal(value, state[name])
    with pytest.raises(InputError, match=r"model\.backbone"):
        build_model(ARCHITECTURE | {"backbone_config": TINY_BACKBONE}, ["a"], 64, str(tmp_path / "gone"))
    with pytest.raises(InputError, match="does not fit"):
        build_model(ARCHITECTURE, ["a"], 64, str(tmp_path / "other"))


@pytest.mark.slow
def test_one_step_of_a_full_detr_resnet50_at_800_px() -> None:
    """The model that users fine-tune, at the size at which they do it."""
    from transformers import DetrConfig

    from detr_ft.criterion import detr_criterion
    from detr_ft.models.attach import attach_criterion

    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "out_features": ["stage4"]}
    model = DetrForObjectDetection(DetrConfig(backbone_config=backbone, num_labels=91))
    assert model.num_parameters() > 41_000_000
    set_trainable(model, ["backbone.stem", "backbone.stage1"])
    attach_criterion(model, detr_criterion())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = [
        {"class_labels": torch.tensor([3, 17]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.2, 0.3, 0.1, 0.1]])}
    ]
    outputs = model(torch.randn(1, 3, 800, 800), labels=labels)
    assert len([name for name in outputs.loss_dict if name.startswith("loss_ce")]) == 6
    outputs.loss.backward()
    before = model.model.backbone.model.encoder.stages[3].layers[0].layer[0].convolution.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.model.backbone.model.encoder.stages[3].layers[0].layer[0].convolution.weight)
    assert all(value.isfinite().all() for value in model.parameters())
