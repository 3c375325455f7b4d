"""The criterion on a GPU: waits for the device, time beside the stock loss, share of a step of DETR-ResNet-50.

    python tests/benchmarks/criterion_gpu.py

The stock loss and ours run in turn on the same inputs; medians of ratios. Where torch-linear-assignment is installed,
its solver on the device is timed beside our transfer and SciPy, on the same costs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
from clocks import paired, waits
from criterion_speed import CASES, Case, inputs, ours, stock
from tables import Tables, parser_of
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_ft.criterion import detr_criterion
from detr_ft.criterion.costs import total_cost
from detr_ft.criterion.matchers import DETR_COSTS, HungarianMatcher
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import set_trainable
from detr_ft.structures import Predictions, Targets

DEVICE = torch.device("cuda")
HEIGHT, WIDTH, OBJECTS = 800, 1066, 7

Labels = list[dict[str, torch.Tensor]]


def on_device(case: Case) -> tuple[torch.Tensor, torch.Tensor, Labels]:
    """The inputs of a case, on the GPU."""
    logits, boxes, labels = inputs(case)
    moved = [{key: value.to(DEVICE) for key, value in one.items()} for one in labels]
    return logits.detach().to(DEVICE).requires_grad_(), boxes.detach().to(DEVICE).requires_grad_(), moved


def beside_the_stock_loss(tables: Tables) -> None:
    """A row for each case: milliseconds forward and backward, and waits."""
    tables.begin(
        {
            "case": "",
            "stock, ms": ".1f",
            "ours, ms": ".1f",
            "times faster": ".1f",
            "waits, stock": "",
            "waits, ours": "",
        }
    )
    for case in CASES:
        tensors = on_device(case)
        a, b = lambda: stock(*tensors).backward(), lambda: ours(*tensors).backward()  # noqa: B023
        before, after, ratio = paired(a, b, max(case.runs // 2, 3))
        tables.row(str(case), before, after, ratio, waits(a), waits(b))


def share_of_a_step(tables: Tables) -> None:
    """Add a table: the fraction of a training step of DETR-ResNet-50 in bf16 that the criterion takes."""
    tables.begin(
        {
            f"DETR-ResNet-50, {WIDTH}x{HEIGHT}, bf16": "",
            "step, ms": ".1f",
            "of it the criterion, ms": ".1f",
            "share": ".1%",
            "waits of a step": "",
        }
    )
    for images in (8, 32):
        torch.manual_seed(0)
        model = DetrForObjectDetection(DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]), num_labels=91))
        set_trainable(model, ["backbone.stem", "backbone.stage1"])
        attach_criterion(model.to(DEVICE).to(memory_format=torch.channels_last).train(), detr_criterion())
        _, _, labels = on_device(Case(images, 100, OBJECTS, 0, 1))
        pixels = torch.randn(images, 3, HEIGHT, WIDTH, device=DEVICE)
        mask = torch.ones(images, HEIGHT, WIDTH, dtype=torch.long, device=DEVICE)

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss  # noqa: B023
            loss.backward()

        tensors = on_device(Case(images, 100, OBJECTS, 0, 1))
        whole, alone, _ = paired(step, lambda: ours(*tensors).backward(), 7)  # noqa: B023
        tables.row(f"B{images}", whole, alone, alone / whole, waits(step))


def beside_a_solver_on_the_device(tables: Tables) -> None:
    """Our transfer and SciPy beside torch-linear-assignment, on the costs of one layer padded to a block."""
    if find_spec("torch_linear_assignment") is None:
        tables.note("torch-linear-assignment is not installed: not compared")
        return
    from torch_linear_assignment import batch_linear_assignment

    tables.begin(
        {
            "case": "",
            "torch-linear-assignment, solver alone, ms": ".2f",
            "our matching, costs too, ms": ".2f",
            "times": ".2f",
        }
    )
    for case in CASES:
        logits, boxes, labels = on_device(case)
        predictions, targets = Predictions(logits.detach(), boxes.detach()), Targets.from_labels(labels, DEVICE)
        cost = total_cost(DETR_COSTS, predictions, targets)  # [L, P, Q], as many targets in each image
        blocks = cost.reshape(-1, case.objects, case.queries)
        theirs, mine, ratio = paired(
            lambda: batch_linear_assignment(blocks),  # noqa: B023
            lambda: HungarianMatcher()(predictions, targets),  # noqa: B023
            15,
        )
        tables.row(str(case), theirs, mine, ratio)


def main() -> int:
    """Print the tables, or a message without a GPU."""
    arguments = parser_of(__doc__).parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured", file=sys.stderr)
        return 1
    tables = Tables(arguments.json)
    beside_the_stock_loss(tables)
    share_of_a_step(tables)
    beside_a_solver_on_the_device(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
