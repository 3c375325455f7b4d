"""Fine-tune DETR detectors on your own data, with a matching and a loss that you can replace."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("detr-ft")
except PackageNotFoundError:  # run from a tree that is not installed
    __version__ = "0+unknown"
