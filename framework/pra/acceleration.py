"""Faster ways to the same images: packed or compiled layers, and a token's step as one graph of a GPU's launches."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from framework.core.shapes import Images
from framework.pra.generate import draw_numbered
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.layers import KVCache
from framework.pra.network.model import PRA
from framework.pra.network.packing import Precision, pack_for_sampling, shared_copy
from framework.pra.sampling import Drawing, Grid, SamplerConfig, TokenStep, next_token

_logger = logging.getLogger(__name__)
Execution = Literal["auto", "eager", "compiled"]
Replay = Callable[[], None]
Capture = Callable[[Replay], Replay]
"""Makes of work on tensors that stay where they are something that does it again."""


@dataclass(frozen=True, kw_only=True)
class Accelerated:
    """A model and what draws a token with it.

    Attributes:
        model: samples as the one it was made of, up to rounding.
        step: draws each token but the first.
        precision: of matrix products.
        device: of the model.
        whole_batches: whether another number of images costs time: batches are then filled up.
    """

    model: ImageGenerator
    step: TokenStep
    precision: Precision
    device: torch.device
    whole_batches: bool = False

    def draw(
        self, labels: Sequence[int], numbers: range, *, seed: int, sampler: SamplerConfig, full_batch: int = 1
    ) -> Images:
        """Images of certain numbers, on the CPU; see `draw_numbered`.

        Args:
            labels: the class of each image, of all numbers.
            numbers: consecutive ones, of a batch.
            seed: of all images.
            sampler: how tokens are drawn.
            full_batch: images of the other batches.
        """
        return draw_numbered(
            self.model,
            labels,
            numbers,
            seed=seed,
            sampler=sampler,
            precision=self.precision,
            device=self.device,
            step=self.step,
            fill_up_to=full_batch if self.whole_batches else 1,
        )


def accelerate(model: ImageGenerator, precision: Precision, execution: Execution, device: torch.device) -> Accelerated:
    """A model made ready for many samples.

    `eager` leaves it as it is. `auto` casts and packs its weights (see `pack_for_sampling`), and on a GPU makes one
    graph of a token's launches. `compiled` has torch.compile fuse what lies between the products as well: transformer,
    a step of the head and decoder, each compiled once for all tokens and batches; on a CPU it takes plain weights,
    whose products are the slower ones.

    Args:
        model: in evaluation mode, whole; it is moved to the device.
        precision: of matrix products.
        execution: the way.
        device: where images are made.
    """
    model = model.to(device)
    ready = partial(Accelerated, precision=precision, device=device)
    if execution == "eager":
        return ready(model=model, step=next_token)
    if not isinstance(model, PRA):
        if execution == "compiled":
            _logger.warning("execution compiled compiles what draws token by token: weights are packed, as by auto")
        return ready(model=pack_for_sampling(model, precision), step=next_token)
    if device.type == "cuda":
        lowered = pack_for_sampling(model, precision)
        made = compile_for_sampling(lowered) if execution == "compiled" else lowered
        return ready(model=made, step=CapturedStep(), whole_batches=True)
    if execution == "compiled":
        return ready(model=compile_for_sampling(model), step=next_token, whole_batches=True)
    return ready(model=pack_for_sampling(model, precision), step=next_token)


def compile_for_sampling(model: PRA) -> PRA:
    """A model with the same weights whose parts of a token's step are compiled, each as one graph of fixed shapes."""
    made = shared_copy(model)
    compiled = partial(torch.compile, fullgraph=True, dynamic=False)  # pyright: ignore[reportUnknownMemberType]
    made.transformer.step = compiled(made.transformer.step)
    made.head.velocity = compiled(made.head.velocity)
    if made.decoder is not None:
        made.decoder.forward = compiled(made.decoder.forward)
    return made


def cuda_graph(work: Replay) -> Replay:
    """A CUDA graph of work, which is done once before: libraries and compilers are ready then."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class CapturedStep:
    """`next_token` captured once and replayed for every token of every batch of a size: one launch a token.

    It draws in buffers of its own. Whatever it was captured for stays; another model, sampler or number of images is
    captured anew.

    Args:
        capture: makes the graph.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture = capture
        # The model itself, not its id: another one may get that once this one is gone.
        self._key: tuple[PRA, SamplerConfig, torch.Size] | None = None
        self._drawing: Drawing | None = None
        # The graph reads the grid's tensors too, which change with the model's weights.
        self._grid: Grid | None = None
        self._replay: Replay | None = None

    def __call__(self, model: PRA, config: SamplerConfig, grid: Grid, drawing: Drawing) -> Drawing:
        """Draw one more token of each image, in this step's own buffers, which are returned.

        Args:
            model: in evaluation mode.
            config: the sampler.
            grid: its steps.
            drawing: what it returned last, or other images, which are then copied.
        """
        if drawing is not self._drawing:
            self._take(model, config, grid, drawing)
        assert self._replay is not None
        assert self._drawing is not None
        self._replay()
        return self._drawing

    def _take(self, model: PRA, config: SamplerConfig, grid: Grid, drawing: Drawing) -> None:
        key = model, config, drawing.tokens.shape
        if key != self._key:
            own = _copied(drawing)
            self._key, self._grid, self._drawing = key, grid, own

            def work() -> None:
                next_token(model, config, grid, own)

            self._replay = self._captured(work)
        assert self._drawing is not None
        assert self._grid is not None
        given = *_tensors(drawing), *_grid_tensors(grid)
        for to, each in zip((*_tensors(self._drawing), *_grid_tensors(self._grid)), given, strict=True):
            to.copy_(each)

    def _captured(self, work: Replay) -> Replay:
        """The graph of work, or, where there can be none, the work itself."""
        try:
            return self._capture(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _logger.warning(
                "a token's step runs operation by operation, as it cannot be captured as one graph: %s", error
            )
            return work


def _tensors(drawing: Drawing) -> tuple[Shaped[Tensor, "..."], ...]:
    return drawing.tokens, drawing.seeds, drawing.cache.keys, drawing.cache.values, drawing.cache.length


def _grid_tensors(grid: Grid) -> tuple[Shaped[Tensor, "..."], ...]:
    return grid.starts, *(each for moment in grid.moments for each in moment)


def _copied(drawing: Drawing) -> Drawing:
    tokens, seeds, keys, values, length = (each.clone() for each in _tensors(drawing))
    return Drawing(tokens=tokens, seeds=seeds, cache=KVCache(keys=keys, values=values, length=length))
