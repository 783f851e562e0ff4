"""What sampling costs, found without weights."""

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.pra.sampling import SamplerConfig


@torch.no_grad()
def sampling_flops(config: PRAConfig, sampler: SamplerConfig, num_images: int) -> int:
    """Floating-point operations of the products and of attention in `sample`; a multiply and an add are two.

    Counted on the meta device. Attention counts its whole cache at every token, as it is computed.

    Args:
        config: the model.
        sampler: its steps, method and guidance.
        num_images: of the batch.
    """
    meta, streams = torch.device("meta"), num_images * (2 if sampler.guidance != 1 else 1)
    with meta:
        model = PRA(config)
    labels = torch.zeros(streams, dtype=torch.long, device=meta)
    prefix = _count(lambda: model.transformer.begin(labels))
    hidden, cache = model.transformer.begin(labels)
    pixels = torch.zeros(streams, 1, config.pixel_size, device=meta)
    targets = torch.zeros(streams, config.target_size, device=meta)
    moment = tuple(each[0] for each in model.head.of_time(torch.zeros(1, device=meta)))
    of_state = partial(model.head.of_state, hidden[:, 0])
    state, time = of_state(), torch.zeros((), device=meta)
    drawn = torch.zeros(num_images, 1, config.target_size, device=meta)
    velocities = 2 * sampler.steps - 1 if sampler.method == "heun" else sampler.steps
    token = (
        _count(of_state)
        + velocities * _count(lambda: model.head.velocity(targets, time, state, moment))
        + _count(lambda: model.decode(drawn, hidden[:num_images]))
    )
    step = _count(lambda: model.transformer.step(pixels, cache))
    return prefix + config.num_tokens * token + (config.num_tokens - 1) * step


def _count(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
