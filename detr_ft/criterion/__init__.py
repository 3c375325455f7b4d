"""Set prediction: costs decide the matching, losses score it. Needs torch, SciPy and nothing else."""

from detr_ft.criterion.checks import CriterionError
from detr_ft.criterion.costs import BoxL1Cost, ClassCost, Cost, GIoUCost
from detr_ft.criterion.losses import BoxL1Loss, CardinalityError, CrossEntropyLoss, GIoULoss, Loss
from detr_ft.criterion.matchers import HungarianMatcher, LayerMatcher, Matcher, OneToManyMatcher
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.criterion.verify import check_criterion

__all__ = [
    "BoxL1Cost",
    "BoxL1Loss",
    "CardinalityError",
    "ClassCost",
    "Cost",
    "CriterionError",
    "CrossEntropyLoss",
    "GIoUCost",
    "GIoULoss",
    "HungarianMatcher",
    "LayerMatcher",
    "Loss",
    "Matcher",
    "OneToManyMatcher",
    "SetCriterion",
    "check_criterion",
    "detr_criterion",
]
