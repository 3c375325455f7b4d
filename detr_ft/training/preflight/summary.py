"""What a probe found, in words, and what to change."""

from __future__ import annotations

from detr_ft.training.preflight.probe import Probe
from detr_ft.utils.formatting import duration


def describe_probe(found: Probe, workers: int) -> list[str]:
    """Lines for people: can it learn, how fast, where the time goes, what the worst batch takes, what to change."""
    shares = ", ".join(f"{part} {_share(seconds / found.seconds_per_step)}" for part, seconds in found.parts.items())
    worst = found.worst
    taken = "does not fit into memory" if worst.mebibytes is None else f"takes {worst.mebibytes:,} MiB"
    return [
        f"one batch: {found.overfit.verdict}: {found.overfit.reason}",
        f"speed: {found.images_per_second:.1f} images/s, {found.seconds_per_step:.2f} s a step; "
        f"{found.steps} steps will take {duration(3600 * found.hours)}, without evaluations",
        *(
            ["that was one operation after another; replayed as CUDA graphs, steps are as fast as the last line says"]
            if found.replayed
            else []
        ),
        f"a step's time: {shares}",
        f"the worst batch ({worst.words}) {taken}",
        *(f"advice: {one}" for one in _advice(found, workers)),
    ]


def _advice(found: Probe, workers: int) -> list[str]:
    share = {part: seconds / found.seconds_per_step for part, seconds in found.parts.items()}
    advice = []
    if share["reading"] > 0.2:
        advice.append(
            f"the model waits for images a good part of the time: train.dataloader_num_workers={max(2, 2 * workers)} "
            "reads them beside it (as many as there are free cores)"
        )
    if share["matching"] > 0.1:
        advice.append("matching takes long: pip install 'detr-ft[fast]' brings a faster solver with the same result")
    if found.worst.mebibytes is None and found.worst.images > 1:
        advice.append(
            f"train.per_device_train_batch_size={found.worst.images // 2} with train.gradient_accumulation_steps=2 takes the "
            "same steps in less memory; train does so by itself where it must"
        )
    return advice


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
