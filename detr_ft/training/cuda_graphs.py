"""Forward and backward passes replayed as CUDA graphs: a GPU waits for nobody between a thousand small operations.

On a fast GPU a step of DETR is bound by the host that starts its operations, one by one. Recorded once for each shape of
batch, all of them are started at once. The criterion, whose matching needs the host, stands between the two recordings.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.models.attach import AttachedCriterion
from detr_ft.models.families import family_of
from detr_ft.structures import Predictions
from detr_ft.training.forward_backward import EagerForwardBackward, ForwardBackward
from detr_ft.training.settings import TrainSettings

logger = logging.getLogger(__name__)

_AGAIN = 2  # a shape is recorded when it comes this often
_SHAPES = 16  # are recorded at most; the others go the plain way


_REHEARSALS = (
    3  # before a recording, for what libraries choose and allocate at first; as torch.cuda's own documentation has it
)


class CudaGraphForwardBackward:
    """Passes of a DETR on one GPU: plain for a shape of batch that is new, recorded and replayed for one that comes again."""

    def __init__(
        self, plain: EagerForwardBackward, accelerator: Accelerator, model: PreTrainedModel, attached: AttachedCriterion, pool: Pool
    ) -> None:  # fmt: skip
        self.wrapped = plain.wrapped
        self._plain, self._accelerator, self._attached, self._pool = plain, accelerator, attached, pool
        self._layers = _Layers(model, attached)
        self._seen: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, _Recording] = {}
        self._gradients: list[Tensor] = []
        self._able = True

    def take(self, inputs: Mapping[str, Any], share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of a batch."""
        recording = self._recording(inputs)
        if recording is None:
            told = self._plain.take(inputs, share)
            # What gets no gradient is no business of the optimizer's; a recording gives everything one.
            self._able = self._able and all(one.grad is not None for one in self._layers.trained())
            return told
        logits, boxes = answers = [one.requires_grad_() for one in recording.forward(inputs)]
        with self._accelerator.autocast():
            loss, terms = self._attached.score(Predictions(logits, boxes), inputs["labels"])
        self._accelerator.backward(share * loss)
        recording.backward([one.grad for one in answers])
        return loss, terms

    def _recording(self, inputs: Mapping[str, Any]) -> _Recording | None:
        shape = inputs["pixel_values"].shape
        if shape in self._recorded:
            return self._recorded[shape]
        self._seen[shape] += 1
        if not self._able or self._seen[shape] < _AGAIN or len(self._recorded) == _SHAPES:
            return None
        try:
            self._gradients = self._gradients or self._layers.zeros()
            self._recorded[shape] = _Recording(self._layers, inputs, self._accelerator, self._pool, self._gradients)
        except RuntimeError as error:  # of CUDA: memory, or something in the model that can't be recorded
            self._give_up(error)
        return self._recorded.get(shape)

    def _give_up(self, error: RuntimeError) -> None:
        self._able = False
        torch.cuda.empty_cache()
        logger.warning(
            "the passes of this model can't be recorded as CUDA graphs, so its steps go the plain way, which is slower: %s "
            "(train.cuda_graphs=false goes it from the start)", str(error).partition("\n")[0],
        )  # fmt: skip


def passes_of(
    accelerator: Accelerator, model: PreTrainedModel, wrapped: Callable[..., Any], attached: AttachedCriterion, settings: TrainSettings
) -> ForwardBackward:  # fmt: skip
    """Replayed passes where this model, machine and these settings allow them, else plain ones."""
    plain = EagerForwardBackward(accelerator, wrapped)
    if (
        not settings.cuda_graphs
        or accelerator.device.type != "cuda"
        or accelerator.num_processes > 1  # gradients are shared among processes while they are made
        or settings.full_determinism  # the plain way, which a step that a resumed run takes first goes, rounds otherwise
        or settings.gradient_checkpointing  # asks for the state of the random numbers
        or "cuda_graphs" not in family_of(model).supports
        or model.config.auxiliary_loss  # its layers are fed, and answer, in another way
    ):
        return plain
    return CudaGraphForwardBackward(plain, accelerator, model, attached, Pool())


class _Layers(nn.Module):
    """Logits `[L, B, Q, K+1]` and boxes `[L, B, Q, 4]` of all decoder layers, fp32."""

    def __init__(self, model: PreTrainedModel, attached: AttachedCriterion) -> None:
        super().__init__()
        self.model, self._attached = model, attached

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor]:
        self.model.base_model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        logits, boxes = self._attached.layer_outputs()
        return logits.float(), boxes.float()

    def trained(self) -> list[nn.Parameter]:
        return [one for one in self.parameters() if one.requires_grad]

    def zeros(self) -> list[Tensor]:
        """Room for the gradients of what trains."""
        return [torch.zeros_like(one) for one in self.trained()]


class _Recording:
    """The passes of one shape of batch. Inputs, answers and gradients are copied to and from the memory it works on."""

    def __init__(
        self, layers: _Layers, inputs: Mapping[str, Any], accelerator: Accelerator, pool: Pool, gradients: list[Tensor]
    ) -> None:
        self._layers, self._accelerator, self._trained, self._gradients = (
            layers,
            accelerator,
            layers.trained(),
            gradients,
        )
        self._inputs = {name: inputs[name].clone() for name in ("pixel_values", "pixel_mask")}
        self._answers: list[Tensor] = []
        self._made: Sequence[Tensor] = ()
        self._asked: list[Tensor] = []
        figures = [(one, one.clone()) for one in layers.buffers()]  # of live norms, which rehearsals would move
        drawn = pool.random_state()
        try:
            pool.rehearse(self._rehearse)
            self._start = pool.record(self._forward)
            self._finish = pool.record(self._backward)
        finally:
            self._made = ()
            pool.restore_random(drawn)
            for one, was in figures:
                one.copy_(was)

    def forward(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        """Logits and boxes of all layers, without a graph."""
        for name, one in self._inputs.items():
            one.copy_(inputs[name])
        self._start()
        return [one.clone() for one in self._answers]

    @torch.no_grad()
    def backward(self, asked: Sequence[Tensor | None]) -> None:
        """Add to the parameters what these gradients of the answers of the last forward pass give."""
        for one, given in zip(self._asked, asked, strict=True):
            one.zero_() if given is None else one.copy_(given)
        self._take_over()
        self._finish()

    def _take_over(self) -> None:
        """Let parameters have their gradients where the recording adds to them."""
        empty = [one for one, parameter in zip(self._gradients, self._trained, strict=True) if parameter.grad is None]
        if empty:
            torch._foreach_zero_(empty)
        for one, parameter in zip(self._gradients, self._trained, strict=True):
            if parameter.grad is not None and parameter.grad is not one:  # of a plain pass of the same step
                one.copy_(parameter.grad)
            parameter.grad = one

    def _rehearse(self) -> None:
        made = self._run()
        self._answers = [torch.empty_like(one) for one in made]
        self._asked = [torch.zeros_like(one) for one in made]
        torch.autograd.grad(made, self._trained, self._asked)

    def _forward(self) -> None:
        self._made = self._run()
        for one, made in zip(self._answers, self._made, strict=True):
            one.copy_(made.detach())

    def _backward(self) -> None:
        torch._foreach_add_(self._gradients, torch.autograd.grad(self._made, self._trained, self._asked))

    def _run(self) -> tuple[Tensor, Tensor]:
        enabled = self._accelerator.mixed_precision != "no"
        dtype = torch.float16 if self._accelerator.mixed_precision == "fp16" else torch.bfloat16
        # The cache of autocast would keep weights of the recording for what comes after.
        with torch.autocast(self._accelerator.device.type, dtype, enabled=enabled, cache_enabled=False):
            answers: tuple[Tensor, Tensor] = self._layers(**self._inputs)
        return answers


class Pool:
    """The memory that recordings share, where none of them is needed any more once the next has begun."""

    def __init__(self) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()

    def random_state(self) -> torch.Tensor:
        """Where the GPU's random numbers are."""
        return torch.cuda.get_rng_state()

    def restore_random(self, state: torch.Tensor) -> None:
        """Let them go on from there: what was drawn for a recording was no step's."""
        torch.cuda.set_rng_state(state)

    def rehearse(self, work: Callable[[], None]) -> None:
        """Do the work a few times, beside what the GPU does now."""
        stream, now = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            for _ in range(_REHEARSALS):
                work()
        now.wait_stream(stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the same work again, on the same memory: it reads and leaves tensors where they were. A CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        # Loader threads pin memory meanwhile, which would spoil a recording of the whole process.
        with torch.cuda.graph(graph, pool=self.handle, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
