"""What the framework asks of a strategy: the interface, with one implementation a file, and how to find them.

`framework.training.strategies.config.STRATEGIES` is the table of names and implementations. A `Backend` says how the
values of a parameter lie on the ranks, so that averages, exports, histograms and guards know none of them. What it says
here is right where every rank holds all values; who shards overrides it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Size, nn

from framework.core.collectives import rank_and_size
from framework.core.errors import ConfigError
from framework.training.shapes import AnyTensor, Held, Part, Rows, Scalar, Values, Whole
from framework.training.strategies.config import STRATEGIES, StrategyConfig
from framework.training.strategies.workload import ProcessShare, Workload, node_bytes, ring_bytes

if TYPE_CHECKING:
    # What reads weights needs no trainer, which takes longer to load than all else.
    import lightning.pytorch.strategies

WHOLE = "ddp"
"""The strategy whose ranks hold all values, as those of any tensor that nobody has spread."""


@runtime_checkable
class TensorSource(Protocol):
    """A whole tensor in a file, read in part or whole."""

    def rows(self, first: int, end: int) -> Rows:
        """Those from `first` to before `end` along the first axis."""
        ...

    def whole(self) -> Whole:
        """All of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class ShardedLayer:
    """A layer that all ranks gather together, whether or not they use it.

    Its input `hidden_states`, or the first one, and its first output are the hidden states.

    Attributes:
        module: gathers itself when it is used, forward and backward, and is a unit of its own.
        unshard, reshard: gather it, together with all other processes, and let go of it.
    """

    module: nn.Module
    unshard: Callable[[], object]
    reshard: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a run's processes are, one a device.

    Attributes:
        of_node: devices of each node.
        num_nodes: how many nodes.
    """

    of_node: tuple[torch.device, ...]
    num_nodes: int = 1

    @property
    def num_processes(self) -> int:
        """Of all nodes together."""
        return len(self.of_node) * self.num_nodes


class Backend:
    """How a run is spread over processes; every default is that of weights that are whole on every rank.

    Attributes:
        title: its name for readers.
        one_graph: whether a step's loss can be one compiled graph: no weights are gathered within it.
        sees_gradients: whether gradients and their norm can be looked at before the optimizer's step.
        lighter: the name of another strategy that holds less on each process, to be proposed where this does not fit.
    """

    title: ClassVar[str]
    one_graph: ClassVar[bool] = True
    sees_gradients: ClassVar[bool] = True
    lighter: ClassVar[str | None] = None

    # Before a run.

    def make(self, config: StrategyConfig, devices: Devices) -> "lightning.pytorch.strategies.Strategy":
        """The Lightning strategy on these devices; it has this backend as its `backend`.

        Raises:
            ConfigError: options, devices or packages that do not fit.
        """
        raise NotImplementedError

    def check_processes(self, config: StrategyConfig, num_processes: int) -> None:
        """Whether so many processes can be used.

        Raises:
            ConfigError: they cannot.
        """

    def offloaded(self, config: StrategyConfig) -> StrategyConfig | None:
        """The strategy with all in the host's memory that can be there, to be proposed last; None where nothing can."""
        return None

    def plan_share(self, config: StrategyConfig, workload: Workload) -> ProcessShare:
        """What the process that holds most has."""
        whole, trained = workload.num_values, workload.num_trained
        return ProcessShare(parameters=whole, gradients=trained, optimizer=2 * trained, ema=whole)

    def plan_bytes_sent(self, config: StrategyConfig, workload: Workload) -> int:
        """Bytes that each process sends in an optimizer step, on several processes."""
        return round(2 * ring_bytes(workload.num_trained, workload.num_processes))

    def plan_bytes_between_nodes(self, config: StrategyConfig, workload: Workload, num_nodes: int) -> int:
        """Bytes that each process sends to other nodes in an optimizer step.

        Args:
            config: the strategy's.
            workload: what is spread.
            num_nodes: that the processes are on.
        """
        return node_bytes(self.plan_bytes_sent(config, workload), workload.num_processes, num_nodes)

    # Tensors.

    def holds(self, tensor: AnyTensor) -> bool:
        """Whether it is this backend that has spread a tensor over the ranks."""
        return False

    def shards(self, model: nn.Module) -> bool:
        """Whether it is this backend that has spread a model, so that all ranks have to take part in its use."""
        return False

    def local_part(self, parameter: Held) -> Part:
        """The rank's own values, perhaps padded, without gradient; writing to them changes the parameter."""
        return parameter.detach()

    def gather(self, tensor: Held) -> Whole:
        """The whole tensor on every rank; all ranks call it together."""
        return tensor

    def own_values(self, tensor: Held) -> Values:
        """The values that this rank counts, flat: over the ranks each value is counted once."""
        own = tensor.detach().flatten()
        return own if rank_and_size()[0] == 0 else own[:0]

    def whole_shape(self, parameter: Held) -> Size:
        """Shape of the whole parameter."""
        return parameter.shape

    def fill(self, parameter: Held, source: TensorSource) -> None:
        """Takes the values of a file, each rank its own."""
        parameter.copy_(source.whole())

    def drop_copies(self, parameter: Held) -> None:
        """Lets go of a whole copy that is out of date, now that `local_part` was written to."""

    # Models.

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        """Keeps the weights of a frozen model whole for many calls; all ranks enter and leave together."""
        yield

    def as_layer(self, module: nn.Module) -> ShardedLayer:
        """A sharded layer of a model that no engine knows."""
        raise NotImplementedError(f"{self.title} shards no layers")

    # Gradients.

    def norm_after_step(self, strategy: "lightning.pytorch.strategies.Strategy") -> float | None:
        """Euclidean norm of the whole gradient of the step just taken, where it is known only then."""
        return None


@cache
def _import_backend(path: str) -> Backend:
    module, _, name = path.partition(":")
    backend = getattr(import_module(module), name)()
    assert isinstance(backend, Backend), path
    return backend


def named_backend(name: str) -> Backend:
    """The implementation of a strategy's name.

    Raises:
        ConfigError: the table has no such name.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"strategy.name {name}", hint=f"use one of: {', '.join(STRATEGIES)}")
    return _import_backend(STRATEGIES[name])


def backend_of_strategy(strategy: "lightning.pytorch.strategies.Strategy") -> Backend:
    """The backend of a trainer's strategy; one that is not ours has whole weights."""
    return getattr(strategy, "backend", named_backend(WHOLE))


def backend_of_tensor(tensor: AnyTensor) -> Backend:
    """The backend that has spread a tensor over the ranks; `ddp`'s where none has."""
    return next((each for each in map(named_backend, STRATEGIES) if each.holds(tensor)), named_backend(WHOLE))


def local_part(parameter: Held) -> Part:
    """The rank's own part of a parameter, or the whole one where it is not sharded; without gradient."""
    return backend_of_tensor(parameter).local_part(parameter)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Scalar:
    """Euclidean norm of the gradient over parameters and ranks, where gradients can be seen. Collective."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    # By itself torch takes sharded tensors one by one.
    foreach = True if gradients and all(gradient.is_cuda for gradient in gradients) else None
    norm = torch.nn.utils.get_total_norm(gradients, foreach=foreach)
    return backend_of_tensor(norm).gather(norm)


def _sharded_by(model: nn.Module) -> Backend | None:
    return next((each for each in map(named_backend, STRATEGIES) if each.shards(model)), None)


def is_sharded(model: nn.Module) -> bool:
    """Whether the ranks hold parts of the model, so that all of them have to take part in its use."""
    return _sharded_by(model) is not None


def gathered(model: nn.Module) -> AbstractContextManager[None]:
    """Keep the weights of a frozen sharded model whole for many calls, such as sampling's; of a whole one, nothing.

    Without this every call gathers every block anew. All ranks enter and leave together.
    """
    backend = _sharded_by(model)
    return nullcontext() if backend is None else backend.gathered(model)
