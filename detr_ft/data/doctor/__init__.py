"""The doctor: reads every image and every box of a data set, says what is wrong, where, and how to mend it."""

from detr_ft.data.doctor.diagnosis import Diagnosis, diagnose, examine
from detr_ft.data.doctor.figures import SplitSummary
from detr_ft.data.doctor.findings import Finding
from detr_ft.data.doctor.look import look
from detr_ft.data.doctor.mend import mend

__all__ = ["Diagnosis", "Finding", "SplitSummary", "diagnose", "examine", "look", "mend"]
