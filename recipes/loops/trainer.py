"""A criterion of ours in the Trainer of transformers.

python recipes/loops/trainer.py CHECKPOINT DATA OUT

The Trainer logs the total alone, doesn't count boxes over accumulated batches, and its resuming does not restore a DETR:
`detr-ft train` does. This shows that the criterion needs none of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

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
    """Train on the train split, and save a stock checkpoint."""
    train = load_data(source)["train"]
    model, processor = load_model(checkpoint)
    fit_labels(model, class_names(train))
    set_trainable(model, freeze=[])
    attach_criterion(model, SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), BoxL1Loss(), GIoULoss()]))

    arguments = TrainingArguments(
        output_dir=out,
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=learning_rate,
        max_grad_norm=0.1,
        logging_strategy="epoch",
        save_strategy="no",
        remove_unused_columns=False,  # it would take the pixels for something that the model has no use for
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        seed=0,
    )
    form = ImageFormat.of(processor)
    examples = TrainDataset(train, TrainTransform(form, Light()), seed=0)
    trainer = Trainer(model, arguments, data_collator=partial(_batch, form), train_dataset=examples)
    trainer.train()
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _batch(form: ImageFormat, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return form.normalize(collate(examples, form.canvas))


if __name__ == "__main__":
    main(*sys.argv[1:4])
