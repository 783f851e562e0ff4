"""Language models whose layers are sharded, and processes that use them for as long as each needs (ours).

A sharded layer is gathered by all processes together, every time it is used. But processes have other tasks: texts of
other lengths, other numbers of batches, of agents, of backward passes. So before every pass they vote. A process that
wants the kind of pass that is chosen makes it; every other one only gathers the layers, in the same order, and votes
again; one that is done does so until all are done. Any code may then use the models as if they were whole.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from framework.gbc.language_models.local import LocalModel
from framework.training.strategies.backend import ShardedLayer, backend_of_tensor
from framework.training.strategies.placement import Placement


class _Pass(NamedTuple):
    model: int
    backward: bool


class CollectiveModels:
    """Keeps processes in step that use sharded models.

    Every process makes it, with the same blocks. What uses the models stands in `synchronized`.

    Args:
        models: of each model the sharded layers in their order; all weights outside of them are whole.
    """

    def __init__(self, models: Sequence[Sequence[ShardedLayer]]) -> None:
        self.models = [list(layers) for layers in models]
        # Forward before backward: a process may want to read several times before it goes back.
        self.passes = [_Pass(number, backward) for backward in (False, True) for number in range(len(models))]
        # Of its own: votes must not mix with the traffic of the layers.
        self._group = None
        if dist.is_initialized():
            self._group = dist.new_group(backend="gloo")  # pyright: ignore[reportUnknownMemberType]
        for number, layers in enumerate(self.models):
            # Before the hooks that gather.
            layers[0].module.register_forward_pre_hook(partial(self._expect_forward, number), prepend=True)
            layers[-1].module.register_forward_hook(partial(self._expect_backward, number), prepend=True)

    @contextmanager
    def synchronized(self) -> Generator[None]:
        """Within it the models may be used; it ends on all processes together. An error leaves at once."""
        yield
        self._agree(None)

    def _expect_forward(self, number: int, module: nn.Module, inputs: object) -> None:
        self._agree(_Pass(number, False))

    def _expect_backward(self, number: int, module: nn.Module, inputs: object, output: object) -> None:
        hidden = _hidden(output)
        if hidden.requires_grad:

            def expect(gradient: Float[Tensor, "... hidden"]) -> None:
                self._agree(_Pass(number, True))

            hidden.register_hook(expect)  # pyright: ignore[reportUnknownMemberType]

    def _agree(self, wanted: _Pass | None) -> None:
        """Votes until all want what this process wants; meanwhile takes part in what others do."""
        while self.models and self._group is not None:
            votes = torch.tensor([each == wanted for each in self.passes], dtype=torch.int32)
            dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._group)  # pyright: ignore[reportUnknownMemberType]
            voted = cast("list[int]", votes.tolist())  # pyright: ignore[reportUnknownMemberType]
            chosen = next((each for each, vote in zip(self.passes, voted, strict=True) if vote), None)
            if chosen == wanted:
                return
            assert chosen is not None
            layers = self.models[chosen.model]
            for layer in reversed(layers) if chosen.backward else layers:
                layer.unshard()
                layer.reshard()


def shard_layers(local: LocalModel, placement: Placement) -> list[ShardedLayer]:
    """Spreads the decoder layers of a model over the processes as a placement wants it; none where it stays whole.

    Embeddings, the last norm and the head stay whole on every process: they are used outside of passes too.
    """
    local.adapters.assign({agent: value.to(placement.device) for agent, value in local.adapters.values.items()})
    if placement.shard is None:
        local.model.to(placement.device)  # pyright: ignore
        return []
    modules = list(cast("Iterable[nn.Module]", local.model.get_decoder().layers))  # pyright: ignore
    inner = {id(tensor) for module in modules for tensor in [*module.parameters(), *module.buffers()]}
    for tensor in [*local.model.parameters(), *local.model.buffers()]:
        if id(tensor) not in inner:
            tensor.data = tensor.data.to(placement.device)
    layers: list[ShardedLayer] = []
    for module in modules:
        placement.shard(module, (), True)
        layers.append(backend_of_tensor(next(module.parameters())).as_layer(module))
    with torch.no_grad():
        # The first pass prepares the layers for being gathered one by one.
        local.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=placement.device), use_cache=False)
    return layers


def _hidden(output: object) -> Float[Tensor, "... hidden"]:
    hidden = cast("tuple[object, ...]", output)[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden
