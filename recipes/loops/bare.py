"""A criterion of ours in a loop of one's own.   python recipes/loops/bare.py CHECKPOINT DATA OUT

Nothing of the training loop of detr_ft is used: the model is a stock one, and its loss is the criterion.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader

from detr_ft.criterion import BoxL1Loss, CrossEntropyLoss, GIoULoss, HungarianMatcher, SetCriterion
from detr_ft.data.augmentation.builtin import Light
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import set_trainable
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model


def main(checkpoint: str, source: str, out: str, epochs: int = 10, learning_rate: float = 1e-4) -> None:
    """Train on the train split, print the terms of the loss once an epoch, and save a stock checkpoint."""
    torch.manual_seed(0)
    train = load_data(source)["train"]
    model, processor = load_model(checkpoint)
    fit_labels(model, class_names(train))
    set_trainable(model, freeze=[])
    attach_criterion(model, SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), BoxL1Loss(), GIoULoss()]))

    form = ImageFormat.of(processor)
    examples = TrainDataset(train, TrainTransform(form, Light()), seed=0)
    on_canvas = partial(collate, canvas=form.canvas)
    loader = DataLoader(examples, batch_size=4, shuffle=True, collate_fn=on_canvas)
    optimizer = AdamW(model.parameters(), lr=learning_rate)
    model.train()
    for epoch in range(epochs):
        examples.epoch = epoch
        for batch in loader:
            outputs = model(**form.normalize(batch))
            outputs.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
        print(epoch, {name: round(value.item(), 3) for name, value in outputs.loss_dict.items() if name[-1].isalpha()})
    model.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:4])
