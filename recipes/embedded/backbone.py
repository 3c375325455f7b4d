"""Teach a small ResNet silhouettes, so that a DETR need not learn them from boxes.   python backbone.py OUT

DETR starts from a backbone that was trained to classify (Carion et al., ECCV 2020, section 4); this is that step for the
embedded checkpoint. The objects of generated scenes are cut out with a margin, and their class is learned. A few minutes on
two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from transformers import ResNetBackbone, ResNetConfig, ResNetForImageClassification

from detr_ft.data import class_names, load_data, open_image
from detr_ft.data.transforms import ImageFormat, to_pixel_values

SOURCE = "generated:shapes?train=5000&validation=0&edge=128&seed=2"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, MARGIN, HELD_OUT = 48, 0.15, 1000  # pixels of a cutting; of the box's longer side; cuttings
STEPS, BATCH, RATE = 2000, 64, 3e-3


def cuttings() -> tuple[Tensor, Tensor, list[str]]:
    """Every object of the scenes: pixels `[N, 3, SIDE, SIDE]`, classes `[N]`, and the classes' names."""
    split = load_data(SOURCE)["train"]
    square = ImageFormat({"max_height": SIDE, "max_width": SIDE}, MEAN, STD)
    pixels, classes = [], []
    for row in split:
        image = open_image(row["image"])
        for (x, y, w, h), category in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True):
            reach = max(w, h) * (0.5 + MARGIN)
            window = [round(v) for v in (x + w / 2 - reach, y + h / 2 - reach, x + w / 2 + reach, y + h / 2 + reach)]
            pixels.append(to_pixel_values(image.crop(tuple(window)).resize((SIDE, SIDE)), square))
            classes.append(category)
    return torch.stack(pixels), torch.tensor(classes), class_names(split)


def main(out: Path) -> None:
    """Train, say the accuracy on cuttings that were held out, and save the backbone."""
    torch.manual_seed(0)
    pixels, classes, names = cuttings()
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[2, 2, 2],
        layer_type="basic",
        out_features=["stage3"],
        num_labels=len(names),
    )
    model = ResNetForImageClassification(config)
    optimizer = AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for step in range(1, STEPS + 1):
        chosen = torch.randint(HELD_OUT, len(pixels), (BATCH,))
        batch = pixels[chosen].flip(3) if step % 2 else pixels[chosen]
        loss = nn.functional.cross_entropy(model(batch).logits, classes[chosen])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            model.eval()
            with torch.no_grad():
                right = model(pixels[:HELD_OUT]).logits.argmax(-1) == classes[:HELD_OUT]
            model.train()
            print(
                f"step {step}/{STEPS}  loss {loss.item():.3f}  accuracy held out {right.float().mean():.3f}", flush=True
            )
    backbone = ResNetBackbone(config)
    state = {key: value for key, value in model.resnet.state_dict().items() if not key.startswith("pooler")}
    backbone.load_state_dict(state)
    backbone.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
