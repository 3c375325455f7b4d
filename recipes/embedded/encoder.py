"""Pretrain backbone and encoder before the decoder.

python encoder.py OUT

From random weights, most of the training of a small DETR is spent on the attention of the decoder. Here every token of
the encoder is a query of its own, with the model's own heads: each object is matched with the three tokens nearest to
its center, and the criterion scores the pairs. The decoder is left out; its training then starts from an encoder whose
tokens predict class and box of the object at their position (the first stage of two-stage DETRs; Zhu et al., Deformable
DETR, ICLR 2021, section 4.2).

Several processes share the work: torchrun --nproc_per_node 2 encoder.py OUT.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, RandomSampler
from transformers import DetrForObjectDetection, get_scheduler

from detr_ft.criterion import BoxL1Loss, CrossEntropyLoss, GIoULoss, OneToManyMatcher, SetCriterion
from detr_ft.data.augmentation.builtin import Light
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.models.build import build_model
from detr_ft.models.freeze import frozen_norms, live_norms, set_trainable
from detr_ft.structures import Predictions, Targets

SOURCE, EDGE, AUGMENT = "generated:shapes?train=12000&validation=500&edge=128&seed=1", 128, Light(jitter=0)
ARCHITECTURE = {
    "backbone_config": {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 128],
        "depths": [2, 2, 2],
        "out_features": ["stage3"],  # stride 16: 8 x 8 tokens in an image of 128 px
    },
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "num_queries": 25,
    "dropout": 0.0,  # each epoch crops every scene anew, so overfitting is unlikely
}
EPOCHS, BATCH, RATE, WARMUP, NEAREST, SEED = 20, 32, 7e-4, 200, 3, 0
STRIDE = 16  # pixels of an image from one token to the next


@dataclass(frozen=True)
class CenterCost:
    """Distance of a query's position from the target's center, in fractions of the image: `[L, P, Q]`."""

    positions: Tensor  # [B, Q, 2], x and y
    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        offset = self.positions[targets.image] - targets.boxes[:, None, :2]  # [P, Q, 2]
        return offset.norm(dim=-1).expand(predictions.num_layers, -1, -1)


class EncoderTokens(nn.Module):
    """A DETR whose queries are the tokens of its encoder.

    Returns logits `[1, B, H*W, K+1]`, boxes `[1, B, H*W, 4]` and positions `[B, H*W, 2]`.
    """

    def __init__(self, model: DetrForObjectDetection) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.model.model(pixel_values, pixel_mask).encoder_last_hidden_state
        logits, boxes = self.model.class_labels_classifier(tokens), self.model.bbox_predictor(tokens).sigmoid()
        return logits[None], boxes[None], _positions(pixel_mask)


def _positions(pixel_mask: Tensor) -> Tensor:
    """Return the positions `[B, H*W, 2]` of the tokens, in fractions of the un-padded image.

    Those of padding are far off.
    """
    size = tuple(math.ceil(side / STRIDE) for side in pixel_mask.shape[1:])
    mask = nn.functional.interpolate(pixel_mask[None].float(), size=size)[0]
    down, across = mask.cumsum(1), mask.cumsum(2)
    y, x = (down - 0.5) / down[:, -1:].clamp(min=1), (across - 0.5) / across[:, :, -1:].clamp(min=1)
    return torch.stack([x, y], -1).masked_fill(mask[..., None] == 0, 9.0).flatten(1, 2)


def main(out: Path) -> None:
    """Train, print a line every hundred steps, and save the whole model; its decoder is still random."""
    began = time.monotonic()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())  # torchrun on CPUs is not distributed otherwise
    set_seed(SEED)
    train = load_data(SOURCE)["train"]
    model, processor = build_model(ARCHITECTURE, class_names(train), EDGE)
    live_norms(model)
    decoder, model.model.decoder.layers = model.model.decoder.layers, nn.ModuleList()
    set_trainable(model, ["decoder", "queries"])
    tokens = EncoderTokens(model).to(memory_format=torch.channels_last)
    form = ImageFormat.of(processor)
    examples = TrainDataset(train, TrainTransform(form, AUGMENT), SEED)
    order = RandomSampler(examples, generator=torch.Generator().manual_seed(SEED))
    on_canvas = partial(collate, canvas=form.canvas)
    loader = DataLoader(examples, BATCH // accelerator.num_processes, sampler=order, collate_fn=on_canvas)
    optimizer = AdamW(tokens.parameters(), RATE, weight_decay=1e-4)
    wrapped, optimizer, loader = accelerator.prepare(tokens, optimizer, loader)
    steps = EPOCHS * len(loader)
    schedule = get_scheduler("cosine", optimizer, WARMUP, steps)
    losses = [CrossEntropyLoss(weight=1, eos_coef=0.1), BoxL1Loss(weight=5), GIoULoss(weight=2)]
    wrapped.train()
    step = 0
    for epoch in range(EPOCHS):
        examples.epoch = epoch
        for batch in map(form.normalize, loader):
            logits, boxes, positions = wrapped(batch["pixel_values"], batch["pixel_mask"])
            targets = Targets.from_labels(batch["labels"], logits.device)
            criterion = SetCriterion(OneToManyMatcher(k=NEAREST, costs=[CenterCost(positions)]), losses)
            loss, terms = criterion(Predictions(logits, boxes), targets)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(tokens.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 100 == 0:
                row = {"step": step, "of": steps, "minutes": round((time.monotonic() - began) / 60, 1)}
                accelerator.print(
                    json.dumps(row | {name: round(value.item(), 4) for name, value in terms.items()}), flush=True
                )
    if accelerator.is_main_process:
        model.model.decoder.layers = decoder
        frozen_norms(model)
        model.save_pretrained(out)
        processor.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
