"""Forward and backward passes as CUDA graphs, which start all operations of a step together.

On a fast GPU a step of DETR is limited by the host, which starts its operations one by one. Each shape of batch is captured
once, and its passes are then replayed. The criterion, whose matching runs on the host, lies between the two graphs.
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
from detr_ft.training.settings import TrainSettings
from detr_ft.training.step import EagerForwardBackward, ForwardBackward

logger = logging.getLogger(__name__)

_CAPTURE_AT_OCCURRENCE = 2  # a shape is captured when it occurs this often
_MAX_CAPTURED_SHAPES = 16  # others run eagerly
_WARMUP_RUNS = (
    3  # before a capture, because libraries choose and allocate at first; as in the documentation of torch.cuda
)


class CudaGraphForwardBackward:
    """The passes of a DETR on one GPU: eager for a new shape of batch, replayed for one that repeats."""

    def __init__(
        self, eager: EagerForwardBackward, accelerator: Accelerator, model: PreTrainedModel, attached: AttachedCriterion, pool: GraphPool
    ) -> None:  # fmt: skip
        self.wrapped = eager.wrapped
        self._eager, self._accelerator, self._attached, self._pool = eager, accelerator, attached, pool
        self._layers = _Layers(model, attached)
        self._occurrences: Counter[torch.Size] = Counter()
        self._graphs: dict[torch.Size, _Graphs] = {}
        self._gradients: list[Tensor] = []
        self._supported = True

    def run(self, inputs: Mapping[str, Any], weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of a batch."""
        graphs = self._graphs_of(inputs)
        if graphs is None:
            result = self._eager.run(inputs, weight)
            # A graph writes a gradient for every parameter, so AdamW would also decay those that receive none.
            self._supported = self._supported and all(
                parameter.grad is not None for parameter in self._layers.trained()
            )
            return result
        logits, boxes = outputs = [output.requires_grad_() for output in graphs.forward(inputs)]
        with self._accelerator.autocast():
            loss, terms = self._attached.score(self._attached.family.layers(logits, boxes), inputs["labels"])
        self._accelerator.backward(weight * loss)
        graphs.backward([output.grad for output in outputs])
        return loss, terms

    def _graphs_of(self, inputs: Mapping[str, Any]) -> _Graphs | None:
        """Return the graphs of this shape of batch, captured if it repeats; None to run eagerly."""
        shape = inputs["pixel_values"].shape
        if shape in self._graphs:
            return self._graphs[shape]
        self._occurrences[shape] += 1
        if (
            not self._supported
            or self._occurrences[shape] < _CAPTURE_AT_OCCURRENCE
            or len(self._graphs) == _MAX_CAPTURED_SHAPES
        ):
            return None
        try:
            self._gradients = self._gradients or self._layers.zeros()
            self._graphs[shape] = _Graphs(self._layers, inputs, self._accelerator, self._pool, self._gradients)
        except RuntimeError as error:  # of CUDA: memory, or an operation that cannot be captured
            self._disable(error)
        return self._graphs.get(shape)

    def _disable(self, error: RuntimeError) -> None:
        self._supported = False
        torch.cuda.empty_cache()
        logger.warning(
            "this model cannot be captured as CUDA graphs; its steps run eagerly, which is slower: %s "
            "(train.cuda_graphs=false avoids the attempt)", str(error).partition("\n")[0],
        )  # fmt: skip


def build_forward_backward(
    accelerator: Accelerator, model: PreTrainedModel, wrapped: Callable[..., Any], attached: AttachedCriterion, settings: TrainSettings
) -> ForwardBackward:  # fmt: skip
    """Return passes as CUDA graphs if model, machine and settings allow them, else eager ones."""
    eager = EagerForwardBackward(accelerator, wrapped)
    if (
        not settings.cuda_graphs
        or accelerator.device.type != "cuda"
        or accelerator.num_processes > 1  # gradients are averaged over processes during the backward pass
        or settings.full_determinism  # the first step of a resumed run is eager, and rounds differently
        or settings.gradient_checkpointing  # saves the random state, which a capture does not allow
        or "cuda_graphs" not in family_of(model).supports
        or model.config.auxiliary_loss  # transformers then computes the layers' outputs differently
    ):
        return eager
    return CudaGraphForwardBackward(eager, accelerator, model, attached, GraphPool())


class _Layers(nn.Module):
    """Logits `[L, B, Q, C]` and boxes `[L, B, Q, 4]` of all decoder layers, fp32."""

    def __init__(self, model: PreTrainedModel, attached: AttachedCriterion) -> None:
        super().__init__()
        self.model, self._attached = model, attached

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[Tensor, Tensor]:
        self.model.base_model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        logits, boxes = self._attached.layer_outputs()
        return logits.float(), boxes.float()

    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def zeros(self) -> list[Tensor]:
        """Return memory for the gradients of the trained parameters."""
        return [torch.zeros_like(parameter) for parameter in self.trained()]


class _Graphs:
    """The two graphs of one shape of batch, with memory for their inputs, outputs and gradients."""

    def __init__(
        self,
        layers: _Layers,
        inputs: Mapping[str, Any],
        accelerator: Accelerator,
        pool: GraphPool,
        gradients: list[Tensor],
    ) -> None:
        self._layers, self._accelerator = layers, accelerator
        self._trained, self._gradients = layers.trained(), gradients
        self._inputs = {name: inputs[name].clone() for name in ("pixel_values", "pixel_mask")}
        self._outputs: list[Tensor] = []
        self._live_outputs: Sequence[Tensor] = ()  # with the autograd graph, during the capture
        self._output_gradients: list[Tensor] = []
        buffers = [(buffer, buffer.clone()) for buffer in layers.buffers()]  # of live norms, which warm-ups would move
        random_state = pool.random_state()
        try:
            pool.warm_up(self._warm_up)
            self._replay_forward = pool.capture(self._forward)
            self._replay_backward = pool.capture(self._backward)
        finally:
            self._live_outputs = ()
            pool.restore_random_state(random_state)
            for buffer, value in buffers:
                buffer.copy_(value)

    def forward(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        """Return logits and boxes of all layers, without an autograd graph."""
        for name, buffer in self._inputs.items():
            buffer.copy_(inputs[name])
        self._replay_forward()
        return [output.clone() for output in self._outputs]

    @torch.no_grad()
    def backward(self, output_gradients: Sequence[Tensor | None]) -> None:
        """Add to the parameters the gradients that follow from those of the latest outputs."""
        for buffer, gradient in zip(self._output_gradients, output_gradients, strict=True):
            buffer.zero_() if gradient is None else buffer.copy_(gradient)
        self._attach_gradients()
        self._replay_backward()

    def _attach_gradients(self) -> None:
        """Make the memory that the graph adds to the gradients of the parameters."""
        pairs = list(zip(self._gradients, self._trained, strict=True))
        empty = [gradient for gradient, parameter in pairs if parameter.grad is None]
        if empty:
            torch._foreach_zero_(empty)
        for gradient, parameter in pairs:
            if parameter.grad is not None and parameter.grad is not gradient:  # of an eager pass of the same step
                gradient.copy_(parameter.grad)
            parameter.grad = gradient

    def _warm_up(self) -> None:
        outputs = self._run()
        self._outputs = [torch.empty_like(output) for output in outputs]
        self._output_gradients = [torch.zeros_like(output) for output in outputs]
        torch.autograd.grad(outputs, self._trained, self._output_gradients)

    def _forward(self) -> None:
        self._live_outputs = self._run()
        for buffer, output in zip(self._outputs, self._live_outputs, strict=True):
            buffer.copy_(output.detach())

    def _backward(self) -> None:
        gradients = torch.autograd.grad(self._live_outputs, self._trained, self._output_gradients)
        torch._foreach_add_(self._gradients, gradients)

    def _run(self) -> tuple[Tensor, Tensor]:
        enabled = self._accelerator.mixed_precision != "no"
        dtype = torch.float16 if self._accelerator.mixed_precision == "fp16" else torch.bfloat16
        # The cache of autocast would keep weights of the capture for later passes.
        with torch.autocast(self._accelerator.device.type, dtype, enabled=enabled, cache_enabled=False):
            outputs: tuple[Tensor, Tensor] = self._layers(**self._inputs)
        return outputs


class GraphPool:
    """The memory that the graphs share: the intermediate results of one are not needed once another runs."""

    def __init__(self) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()

    def random_state(self) -> torch.Tensor:
        """Return the random state of the GPU."""
        return torch.cuda.get_rng_state()

    def restore_random_state(self, state: torch.Tensor) -> None:
        """Undo the draws of a capture, which belongs to no step."""
        torch.cuda.set_rng_state(state)

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run the work a few times on a stream of its own."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_RUNS):
                work()
        current.wait_stream(stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture the work as a CUDA graph and return its replay, which reads and writes the same memory."""
        graph = torch.cuda.CUDAGraph()
        # Loader threads pin memory meanwhile, which would invalidate a capture of the whole process.
        with torch.cuda.graph(graph, pool=self.handle, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
