"""PRA-L's sampling: seconds for 256 images, kernels a token, in several precisions."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import PRA_L, TINY
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.pra.sampling import SamplerConfig


def measure_sampling(session: Session) -> None:
    """fp32, TF32 and bfloat16, eager; bfloat16 with a compiled head, and with the head's calls as CUDA graphs."""
    config = TINY if session.rehearse else PRA_L
    model = PRA(config).to(session.device).eval().requires_grad_(False)
    _randomise(model)
    session.note("floor", **floor(config, 4 if session.rehearse else 256, 2 if session.rehearse else 100))
    ways: tuple[tuple[str, str, str], ...] = (
        ("bf16", "bf16", "no"),
        ("bf16, compiled head", "bf16", "default"),
        ("bf16, compiled head as CUDA graphs", "bf16", "reduce-overhead"),
        ("TF32", "tf32", "no"),
        ("fp32", "fp32", "no"),
    )
    for name, precision, compiled in ways:
        if compiled == "reduce-overhead" and session.compile_backend != "inductor":
            session.note(name, skipped="CUDA graphs come with inductor, on a GPU only")
            continue
        measure = partial(_measure, session, model, precision, compiled)
        session.attempt(name, measure, least_seconds=12)


def floor(config: PRAConfig, num_images: int, steps: int) -> dict[str, object]:
    """Operations and bytes that sampling cannot do without.

    Every step of the flow reads the head's weights and multiplies by them, for every token; every token reads the
    transformer's, and the keys and values so far.

    Args:
        config: the model.
        num_images: drawn together.
        steps: of the flow.
    """
    with torch.device("meta"):
        model = PRA(config)

    def values(module: nn.Module | None) -> int:
        return (
            0 if module is None else sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
        )

    head, others, tokens = values(model.head), values(model.transformer) + values(model.decoder), config.num_tokens
    flops = 2 * tokens * num_images * (steps * head + others)
    cache = 2 * 2 * config.depth * config.width * num_images * tokens * tokens // 2
    return {
        "tflop": flops / 1e12,
        "weights_gb_read_bf16": 2 * tokens * (steps * head + others) / 1e9,
        "cache_gb": cache / 1e9,
    }


@torch.no_grad()
def _randomise(model: PRA) -> None:
    """Gates and last layers start at zero, and numbers that are all zero are multiplied faster."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)


def _measure(session: Session, model: PRA, precision: str, compiled: str) -> dict[str, object]:
    num_images, steps = (4, 2) if session.rehearse else (256, 100)
    eager = model.head.forward
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if compiled != "no":
        mode = compiled if session.compile_backend == "inductor" else None
        model.head.forward = torch.compile(eager, dynamic=False, backend=session.compile_backend, mode=mode)
    context: AbstractContextManager[object] = (
        torch.autocast(session.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    )
    try:
        with context:
            few = partial(_draw, session, model, num_images, 1)
            few()
            return {"images": num_images, "flow_steps": steps, **_timed(session, model, num_images, steps)}
    finally:
        model.head.forward = eager
        torch.backends.cuda.matmul.allow_tf32 = False


def _timed(session: Session, model: PRA, num_images: int, steps: int) -> dict[str, object]:
    """Seconds for all images, by one run where they are many, and kernels of a token."""
    counted = _kernels(session, lambda: _draw(session, model, num_images, 2))
    before = session.now()
    _draw(session, model, num_images, 2)
    short = session.now() - before
    if not session.rehearse and short * (steps + 3) / 5 > session.left():
        return {
            "skipped": f"2 steps take {short:.1f} s",
            "kernels_a_token_of_2_steps": counted / model.config.num_tokens,
        }
    before = session.now()
    images = _draw(session, model, num_images, steps)
    seconds = session.now() - before
    return {
        "seconds": seconds,
        "images_per_second": num_images / seconds,
        "kernels_a_token_of_2_steps": counted / model.config.num_tokens,
        "finite": bool(images.isfinite().all()),
        "peak_gib": session.peak_gib(),
    }


def _draw(session: Session, model: PRA, num_images: int, steps: int) -> torch.Tensor:
    labels = balanced_labels(num_images, range(model.config.num_classes))
    sampler = SamplerConfig(steps=steps)
    batches = generate(model, labels, seed=0, sampler=sampler, batch_size=num_images, device=session.device)
    return torch.cat(list(batches))


def _kernels(session: Session, work: Callable[[], object]) -> int:
    """Kernels that the device runs, or operations where there is no GPU."""
    real = session.on_gpu and not session.rehearse
    with profile(activities=[ProfilerActivity.CUDA if real else ProfilerActivity.CPU]) as profiler:
        work()
        session.now()
    events = profiler.events()
    assert isinstance(events, EventList)
    return len(events)
