"""Truth beside predictions on held-out scenes, as in the README.

python recipes/quickstart/picture.py RUN OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.images import open_image
from detr_ft.data.sources.load import load_data
from detr_ft.inference import Detector
from detr_ft.recipe.load import load_recipe
from detr_ft.utils.drawing import draw

SHOWN = (3, 6, 8, 11)  # of the validation split
WIDTH, GAP = 384, 12  # pixels


def main(run: Path, out: Path) -> None:
    """Draw the scenes, and write a PNG of two columns of pairs."""
    recipe = load_recipe(run / "recipe.yaml")
    rows = load_data(recipe.data.source)["validation"].select(SHOWN)
    detector = Detector.load(str(run))
    images = [open_image(row["image"]) for row in rows]
    pairs = []
    for row, image, detections in zip(rows, images, detector.detect(images), strict=True):
        labels = torch.tensor(row["objects"]["category"], dtype=torch.long)
        truth = xywh_to_xyxy(torch.tensor(row["objects"]["bbox"], dtype=torch.float32).reshape(-1, 4))
        shown = detections.above(0.5)
        drawn = (
            draw(image, truth, labels, detector.names),
            draw(image, shown.boxes, shown.labels, detector.names, shown.scores),
        )
        pairs.append([one.resize((WIDTH, round(WIDTH * one.height / one.width))) for one in drawn])
    heights = [max(pair[0].height for pair in pairs[start : start + 2]) for start in range(0, len(pairs), 2)]
    sheet = Image.new("RGB", (4 * WIDTH + 3 * GAP, sum(heights) + GAP * (len(heights) - 1)), "white")
    for index, pair in enumerate(pairs):
        line, column = divmod(index, 2)
        for side, picture in enumerate(pair):
            sheet.paste(picture, ((2 * column + side) * (WIDTH + GAP), sum(heights[:line]) + GAP * line))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
