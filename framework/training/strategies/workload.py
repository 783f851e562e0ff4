"""What a strategy says of a run before it is started: values that a process holds, and bytes that it sends."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from torch import Size

FLOAT_BYTES = 4
Kept = Literal["parameters", "gradients", "optimizer", "ema"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is spread over processes.

    Attributes:
        shapes: of the parameters, by name; gradients, moments and averages have the same.
        frozen: names of those that do not learn: they have no gradient and no moments.
        largest_unit: values of the largest unit of sharding.
        largest_trained_unit: values that learn of the unit that has most of these.
        num_processes: one a device, of all nodes together.
        accumulation: micro-batches of an optimizer step.
        forward_values: values that a forward pass gathers where every unit is gathered for each of its calls; counting
            them takes a while.
        backward_values: the same of a backward pass, which leaves out what no gradient flows through.
    """

    shapes: dict[str, Size]
    frozen: Collection[str] = frozenset()
    largest_unit: int
    largest_trained_unit: int
    num_processes: int
    accumulation: int
    forward_values: Callable[[], int]
    backward_values: Callable[[], int]

    @property
    def num_values(self) -> int:
        """Values of all parameters together."""
        return sum(shape.numel() for shape in self.shapes.values())

    @property
    def trained_shapes(self) -> dict[str, Size]:
        """Of the parameters that learn."""
        return {name: shape for name, shape in self.shapes.items() if name not in self.frozen}

    @property
    def num_trained(self) -> int:
        """Values of the parameters that learn."""
        return sum(shape.numel() for shape in self.trained_shapes.values())


@dataclass(frozen=True, kw_only=True)
class ProcessShare:
    """What the process that holds most has, in float32 values.

    Attributes:
        hosted: names of those that are in the host's memory.
        buffers: bytes of gathered blocks and of gradients in flight.
        casts: autocast makes copies of the weights.
        buckets: gradients live in buckets of several processes, which are there all the time.
    """

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    hosted: tuple[Kept, ...] = ()
    buffers: int = 0
    casts: bool = True
    buckets: bool = True


def node_bytes(sent: int, num_processes: int, num_nodes: int) -> int:
    """Of the bytes that each process sends by rings over all processes, those that go to other nodes.

    A ring enters and leaves a node once, and the processes of a node share that.

    Args:
        sent: bytes of each process.
        num_processes: of all nodes.
        num_nodes: that the processes are on.
    """
    return sent * num_nodes // num_processes if num_nodes > 1 else 0


def ring_bytes(num_values: int, num_processes: int, value_bytes: int = FLOAT_BYTES) -> float:
    """Bytes that each process sends when values are gathered, or summed and scattered, by a ring.

    b bytes over n processes: (n - 1) / n b; a sum that all get is twice that.

    Args:
        num_values: of all processes together.
        num_processes: in the ring.
        value_bytes: bytes of a value.
    """
    return num_values * value_bytes * (num_processes - 1) / num_processes
