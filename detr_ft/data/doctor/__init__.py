"""The doctor: checks of every image and box of a data set, with location and remedy, and repair."""

from detr_ft.data.doctor.diagnosis import Diagnosis, diagnose, examine
from detr_ft.data.doctor.finding import Finding
from detr_ft.data.doctor.repair import repair_data
from detr_ft.data.doctor.statistics import SplitSummary
from detr_ft.data.integrity.scan import scan_dataset

__all__ = ["Diagnosis", "Finding", "SplitSummary", "diagnose", "examine", "repair_data", "scan_dataset"]
