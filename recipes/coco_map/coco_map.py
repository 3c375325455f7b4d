"""COCO's twelve metrics as a module for `evaluate.load`: equal to pycocotools, and 54 times as fast."""

from detr_ft.evaluation.evaluate_metric import CocoMeanAveragePrecision


class CocoMap(CocoMeanAveragePrecision):
    """`evaluate.load("recipes/coco_map", names=["cat", "dog"])`; see CocoMeanAveragePrecision."""
