from detr_ft.data.doctor import examine
from detr_ft.data.export import write_coco
from detr_ft.data.images import open_image
from detr_ft.data.load import load_data
from detr_ft.data.schema import class_names
from detr_ft.data.sources.stream import open_stream

__all__ = ["class_names", "examine", "load_data", "open_image", "open_stream", "write_coco"]
