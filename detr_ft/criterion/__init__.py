"""Set prediction: costs decide the matching, losses score it. Needs torch, SciPy and nothing else."""

from detr_ft.criterion.checks import CriterionError
from detr_ft.criterion.class_losses import (
    CrossEntropyLoss,
    FocalLoss,
    MatchabilityLoss,
    QualityFocalLoss,
    VarifocalLoss,
)
from detr_ft.criterion.costs import (
    BoxL1Cost,
    CIoUCost,
    ClassCost,
    Cost,
    DIoUCost,
    FocalCost,
    GIoUCost,
    LogClassCost,
)
from detr_ft.criterion.explain import explain
from detr_ft.criterion.faults import find_fault
from detr_ft.criterion.losses import (
    BoxL1Loss,
    CardinalityError,
    CIoULoss,
    DIoULoss,
    GIoULoss,
    Loss,
    PairLoss,
    QueryLoss,
    SmoothL1Loss,
)
from detr_ft.criterion.matchers import (
    CostMatcher,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    Matcher,
    MatcherSchedule,
    OneToManyMatcher,
)
from detr_ft.criterion.set_criterion import SetCriterion, detr_criterion
from detr_ft.criterion.verify import check_cost, check_criterion, check_loss

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
    "SmoothL1Loss",
    "VarifocalLoss",
    "check_cost",
    "check_criterion",
    "check_loss",
    "detr_criterion",
    "explain",
    "find_fault",
]
