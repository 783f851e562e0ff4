"""The models of the benchmark: PRA-L as its recipe has it, and what a rehearsal takes in its place."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from framework.bench.gpu.session import Session
from framework.core.random.philox import Seeds
from framework.core.random.seeding import seed_of
from framework.core.shapes import Images, Labels
from framework.data.loading.batch import ImageBatch
from framework.pra.loss import Losses, ObjectiveConfig, losses_of_seeds
from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.training.ema import update_ema
from framework.training.strategies.placement import Placement, build_with_ema, prepare_block

PRA_L = PRAConfig(
    image_size=256,
    patch_size=16,
    num_classes=1000,
    class_tokens=16,
    width=1280,
    depth=21,
    num_heads=20,
    head_width=1280,
    head_depth=6,
    state_size=16,
    decoder_width=1280,
    decoder_depth=4,
    encoder_width=512,
    encoder_depth=6,
    encoder_heads=8,
)
"""As in `recipes/pra/imagenet256_l.yaml`."""
PRA_S = replace(PRA_L, width=768, depth=11, num_heads=12, head_width=1024, decoder_width=1024)
"""As in `recipes/pra/imagenet256_s.yaml`."""
CIFAR = PRAConfig(
    image_size=32,
    patch_size=8,
    num_classes=10,
    class_tokens=8,
    width=384,
    depth=8,
    num_heads=6,
    head_width=512,
    head_depth=4,
    state_size=32,
    decoder_width=512,
    decoder_depth=3,
    encoder_width=256,
    encoder_depth=4,
    encoder_heads=4,
)
"""As in `recipes/pra/cifar10.yaml`."""
TINY = PRAConfig(
    image_size=16,
    patch_size=8,
    num_classes=10,
    class_tokens=2,
    width=32,
    depth=2,
    num_heads=2,
    head_width=32,
    head_depth=1,
    state_size=4,
    decoder_width=32,
    decoder_depth=1,
    encoder_width=32,
    encoder_depth=1,
    encoder_heads=2,
)
"""Of a rehearsal."""


def made_batch(config: PRAConfig, size: int, *, seed: int = 0) -> ImageBatch:
    """Images of noise in [-1, 1], on the CPU.

    Args:
        config: of the model that they are for.
        size: images.
        seed: of pixels and classes.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (size, config.channels, config.image_size, config.image_size)
    return ImageBatch(
        images=torch.rand(shape, generator=generator) * 2 - 1,
        labels=torch.randint(config.num_classes, (size,), generator=generator),
        indices=torch.arange(seed * size, (seed + 1) * size),
        epoch=0,
    )


def build_models(session: Session, config: PRAConfig) -> tuple[PRA, PRA]:
    """A model and its averages on the session's device; of PRA-L that takes the host several seconds."""
    return build_with_ema(lambda: PRA(config), Placement(device=session.device), seed=0)


class BareLoop:
    """Training steps without Lightning: noise, losses, gradients, clipping, AdamW, averaged weights.

    Args:
        session: says where.
        config: the model.
        compiled: `no`, `blocks` as `strategy.compile` does it, or `whole`: noise and loss as one graph.
        recompute: activations of every block are made anew in the backward pass.
        optimizer: arguments of AdamW, such as fused.
        learning_rate: of AdamW.
        models: weights and averages of an earlier loop, of any values; new ones by default.
    """

    def __init__(
        self,
        session: Session,
        config: PRAConfig,
        *,
        compiled: str = "no",
        recompute: bool = False,
        optimizer: dict[str, bool] | None = None,
        learning_rate: float = 3e-4,
        models: tuple[PRA, PRA] | None = None,
    ) -> None:
        self.session, self.config, self.objective = session, config, ObjectiveConfig()
        self.model, self.ema = models or build_models(session, config)
        placement = Placement(device=session.device, activation_checkpointing=int(recompute))
        for number, block in enumerate(each for each in self.model.modules() if isinstance(each, PRA.BLOCKS)):
            # That of its class, whatever an earlier loop has made of it.
            block.__dict__.pop("forward", None)
            prepare_block(block, number, placement)
            if compiled == "blocks":
                block.forward = torch.compile(block.forward, dynamic=False, backend=session.compile_backend)
        self._losses: Callable[[PRA, Images, Labels, Seeds, ObjectiveConfig], Losses] = losses_of_seeds
        if compiled == "whole":
            self._losses = torch.compile(
                losses_of_seeds, dynamic=False, fullgraph=True, backend=session.compile_backend
            )
        chosen = {"fused": True} if optimizer is None else optimizer
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.05, **chosen)
        self.optimizer.zero_grad()
        self.num_steps = 0

    def backward(self, images: Images, labels: Labels) -> Tensor:
        """The loss and its gradients.

        Args:
            images: on the device.
            labels: on the device.
        """
        numbers = range(len(images))
        seeds = torch.tensor([seed_of("bench", self.num_steps, number) for number in numbers])
        seeds = seeds.pin_memory().to(self.session.device, non_blocking=True) if self.session.on_gpu else seeds
        with torch.autocast(self.session.device.type, torch.bfloat16):
            loss = self._losses(self.model, images, labels, seeds, self.objective).total
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """Clips, makes the optimizer's step and averages."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average()
        self.num_steps += 1

    def average(self) -> None:
        """Moves the averaged weights."""
        update_ema(self.ema, self.model, 0.9999)

    def step(self, images: Images, labels: Labels) -> Tensor:
        """A whole step; returns its loss, on the device."""
        loss = self.backward(images, labels)
        self.update()
        return loss
