"""What every image generator of this package is: the method, and the diffusion model that it is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, cast

from torch import nn

from framework.pra.network.config import PRAConfig


class ImageGenerator(nn.Module):
    """Base of the models that `build_generator` makes.

    Attributes:
        BLOCKS: classes of the modules that are recomputed, compiled and sharded one by one.
        PARTS: the modules that are called from outside, with their methods besides `forward` that use weights.

    Args:
        config: the architecture.
    """

    BLOCKS: ClassVar[tuple[type[nn.Module], ...]]
    PARTS: ClassVar[Mapping[str, Sequence[str]]]

    def __init__(self, config: PRAConfig) -> None:
        super().__init__()
        self.config = config

    def units(self) -> dict[str, nn.Module]:
        """The modules that are sharded one by one, by qualified name: each of `BLOCKS` and of `PARTS`."""
        modules = cast(Iterable[tuple[str, nn.Module]], self.named_modules())
        return {name: module for name, module in modules if isinstance(module, self.BLOCKS) or name in self.PARTS}

    def num_sampling_parameters(self) -> int:
        """Parameters that sampling needs."""
        return sum(parameter.numel() for parameter in self.parameters())
