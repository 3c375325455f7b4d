"""Set prediction: costs decide the matching, losses score it. Needs torch, NumPy and SciPy only."""

from detr_ft.criterion.base import Cost, Loss, Matcher, PairLoss, QueryLoss
from detr_ft.criterion.box_losses import BoxL1Loss, CardinalityError, CIoULoss, DIoULoss, GIoULoss, SmoothL1Loss
from detr_ft.criterion.checking.check import check_cost, check_criterion, check_loss
from detr_ft.criterion.class_losses import (
    CrossEntropyLoss,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
)

# Names in the code of earlier recipes.
from detr_ft.criterion.class_losses import SoftmaxFocalLoss as FocalLoss
from detr_ft.criterion.class_losses import SoftmaxMatchabilityLoss as MatchabilityLoss
from detr_ft.criterion.class_losses import SoftmaxQualityFocalLoss as QualityFocalLoss
from detr_ft.criterion.class_losses import SoftmaxVarifocalLoss as VarifocalLoss
from detr_ft.criterion.costs import (
    BoxL1Cost,
    CIoUCost,
    ClassCost,
    DIoUCost,
    GIoUCost,
    LogClassCost,
    SigmoidFocalCost,
    SoftmaxFocalCost,
)
from detr_ft.criterion.costs import SoftmaxFocalCost as FocalCost
from detr_ft.criterion.explain import explain
from detr_ft.criterion.fault_finder import describe_exception, find_fault
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import (
    CostMatcher,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
)
from detr_ft.criterion.serialization import check_activation
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.criterion.sigmoid_losses import (
    IoUAwareLoss,
    SigmoidFocalLoss,
    SigmoidMatchabilityLoss,
    SigmoidQualityFocalLoss,
    SigmoidVarifocalLoss,
)

__all__ = [
    "BoxL1Cost",
    "BoxL1Loss",
    "CIoUCost",
    "CIoULoss",
    "CardinalityError",
    "ClassCost",
    "Cost",
    "CostMatcher",
    "CriterionError",
    "CrossEntropyLoss",
    "DIoUCost",
    "DIoULoss",
    "FocalCost",
    "FocalLoss",
    "GIoUCost",
    "GIoULoss",
    "GreedyMatcher",
    "HungarianMatcher",
    "IoUAwareLoss",
    "LayerMatcher",
    "LogClassCost",
    "Loss",
    "MatchabilityLoss",
    "Matcher",
    "MatcherSchedule",
    "OneToManyMatcher",
    "PairLoss",
    "QualityFocalLoss",
    "QueryLoss",
    "SetCriterion",
    "SigmoidFocalCost",
    "SigmoidFocalLoss",
    "SigmoidMatchabilityLoss",
    "SigmoidQualityFocalLoss",
    "SigmoidVarifocalLoss",
    "SmoothL1Loss",
    "SoftmaxFocalCost",
    "SoftmaxFocalLoss",
    "SoftmaxMatchabilityLoss",
    "SoftmaxQualityFocalLoss",
    "SoftmaxVarifocalLoss",
    "VarifocalLoss",
    "check_activation",
    "check_cost",
    "check_criterion",
    "check_loss",
    "describe_exception",
    "detr_criterion",
    "explain",
    "find_fault",
]
