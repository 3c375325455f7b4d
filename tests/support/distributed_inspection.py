"""Inspection of two splits before the processes of an evaluation join; each rank writes a file.

torchrun distributed_inspection.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

from detr_ft.data.generated.generate import generate
from detr_ft.data.integrity import usable_images
from detr_ft.data.integrity.scan import scan_images
from detr_ft.data.integrity.usable_images import inspect_splits, with_true_sizes
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.training.launch import join
from detr_ft.utils.distributed import rank

SIZES = {"train": 5, "validation": 4}
FORM = ImageFormat({"max_height": 64, "max_width": 64}, (0.0,) * 3, (1.0,) * 3)


def main() -> None:
    data = generate("shapes?edge=64&" + "&".join(f"{name}={count}" for name, count in SIZES.items()))
    with patch.object(usable_images, "scan_images", wraps=scan_images) as scan:
        images = len(with_true_sizes(data, "validation"))  # `evaluate` does this before it joins
        inspected = inspect_splits(data, list(data), FORM)
    accelerator = join()
    result = {
        "images": images,
        "scanned": sum(len(call.args[0]) for call in scan.call_args_list),
        "fingerprints": {
            name: [fingerprint.hex() for fingerprint in split.fingerprints] for name, split in inspected.items()
        },
        "processes": accelerator.num_processes,
    }
    (Path(sys.argv[1]) / f"{rank()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
