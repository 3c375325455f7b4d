"""Fine-tune DETR detectors on your own data, with a matching and a loss that you can replace."""

from detr_ft.utils.lazy import lazy_names

# The module of each public name. It is imported when the name is used: `import detr_ft` loads neither torch nor transformers.
_MODULES = {
    "Callback": "detr_ft.training.callbacks",
    "CallbackError": "detr_ft.training.callbacks",
    "CriterionError": "detr_ft.criterion",
    "Detections": "detr_ft.structures",
    "Detector": "detr_ft.inference",
    "InputError": "detr_ft.errors",
    "Interrupted": "detr_ft.errors",
    "OnnxDetector": "detr_ft.inference",
    "OptimSettings": "detr_ft.training.settings",
    "Recipe": "detr_ft.recipe.recipe",
    "SetCriterion": "detr_ft.criterion",
    "TrainSettings": "detr_ft.training.settings",
    "Trainer": "detr_ft.training.trainer:DetrTrainer",
    "TrainingError": "detr_ft.training.trainer",
    "attach_criterion": "detr_ft.models.attach",
    "check": "detr_ft.workflows.check",
    "coco_metrics": "detr_ft.evaluation.coco",
    "compare": "detr_ft.workflows.compare",
    "detr_criterion": "detr_ft.criterion",
    "doctor": "detr_ft.workflows.doctor",
    "evaluate": "detr_ft.workflows.evaluate",
    "export": "detr_ft.workflows.export",
    "fit_labels": "detr_ft.models.label_map",
    "load_data": "detr_ft.data.load",
    "load_model": "detr_ft.models.load",
    "load_recipe": "detr_ft.recipe.load",
    "new_recipe": "detr_ft.workflows.new",
    "predict": "detr_ft.workflows.predict",
    "probe": "detr_ft.workflows.probe",
    "push": "detr_ft.workflows.push",
    "quickstart": "detr_ft.workflows.quickstart",
    "replay": "detr_ft.workflows.replay",
    "train": "detr_ft.workflows.train",
}
__all__ = sorted(_MODULES)

__getattr__, __dir__ = lazy_names(__name__, _MODULES, distribution="detr-ft")
