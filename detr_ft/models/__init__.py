"""Load models, fit them to data, choose the parts that train, attach a criterion."""

from detr_ft.models.attach import AttachedCriterion, attach_criterion
from detr_ft.models.build import build_model
from detr_ft.models.freeze import set_trainable, trainable_counts
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.models.predict import detect

__all__ = [
    "AttachedCriterion",
    "attach_criterion",
    "build_model",
    "detect",
    "fit_labels",
    "load_model",
    "set_trainable",
    "trainable_counts",
]
