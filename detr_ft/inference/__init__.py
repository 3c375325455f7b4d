"""Detect objects in images with a checkpoint or an exported model."""

from detr_ft.inference.detector import Detector
from detr_ft.inference.onnx import OnnxDetector

__all__ = ["Detector", "OnnxDetector"]
