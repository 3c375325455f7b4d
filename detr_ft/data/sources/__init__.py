"""Read a data set from any source into the one schema."""

from detr_ft.data.sources.registry import category_numbers, load_data, open_stream

__all__ = ["category_numbers", "load_data", "open_stream"]
