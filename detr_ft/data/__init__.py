"""Data: reading it from anywhere into one schema, opening images, finding defects, writing it out.

The public names are loaded when they are first used (PEP 562): the command looks up the sources of data without
`datasets` and torch. `__init__.pyi` has their types.
"""

from detr_ft.utils.lazy import lazy_names

_MODULES = {
    "class_names": "detr_ft.data.schema",
    "examine": "detr_ft.data.doctor",
    "load_data": "detr_ft.data.load",
    "open_image": "detr_ft.data.images",
    "open_stream": "detr_ft.data.sources.stream",
    "write_coco": "detr_ft.data.export",
}
__all__ = ["class_names", "examine", "load_data", "open_image", "open_stream", "write_coco"]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
