"""The public names for type checkers; `__init__.py` loads them when they are used."""

from detr_ft.criterion import CriterionError, SetCriterion, detr_criterion
from detr_ft.data.load import load_data
from detr_ft.errors import InputError, Interrupted
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.inference import Detector, OnnxDetector
from detr_ft.models.attach import attach_criterion
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.recipe.load import load_recipe
from detr_ft.recipe.recipe import Recipe
from detr_ft.structures import Detections
from detr_ft.training.callbacks import Callback, CallbackError
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.training.trainer import DetrTrainer as Trainer
from detr_ft.training.trainer import TrainingError
from detr_ft.workflows.check import check
from detr_ft.workflows.compare import compare
from detr_ft.workflows.doctor import doctor
from detr_ft.workflows.evaluate import evaluate
from detr_ft.workflows.export import export
from detr_ft.workflows.new import new_recipe
from detr_ft.workflows.predict import predict
from detr_ft.workflows.probe import probe
from detr_ft.workflows.push import push
from detr_ft.workflows.quickstart import quickstart
from detr_ft.workflows.replay import replay
from detr_ft.workflows.train import train

__version__: str

__all__ = [
    "Callback",
    "CallbackError",
    "CriterionError",
    "Detections",
    "Detector",
    "InputError",
    "Interrupted",
    "OnnxDetector",
    "OptimSettings",
    "Recipe",
    "SetCriterion",
    "TrainSettings",
    "Trainer",
    "TrainingError",
    "attach_criterion",
    "check",
    "coco_metrics",
    "compare",
    "detr_criterion",
    "doctor",
    "evaluate",
    "export",
    "fit_labels",
    "load_data",
    "load_model",
    "load_recipe",
    "new_recipe",
    "predict",
    "probe",
    "push",
    "quickstart",
    "replay",
    "train",
]
