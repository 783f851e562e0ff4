"""PRA-L's training step: milliseconds, memory, and the share of what the GPU can do."""

import tempfile
from functools import partial
from pathlib import Path

import torch

from framework.bench.gpu.first_light import MadeBatches, MadeData, make_trainer
from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import PRA_L, PRA_S, TINY, BareLoop, build_models, made_batch
from framework.pra.callbacks import SampleGridConfig
from framework.pra.loss import ObjectiveConfig
from framework.pra.module import PRAModule
from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.pra.planning.flops import training_flops_per_image
from framework.training.strategies.config import FSDP2Options, StrategyConfig

_OPTIMIZERS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "tensor by tensor": {"foreach": False},
}


def matrix_peak(session: Session) -> float:
    """Operations per second of a product of large bfloat16 matrices of random numbers."""
    size = 256 if session.rehearse else 8192
    left, right = (torch.randn(size, size, device=session.device, dtype=torch.bfloat16) for _ in range(2))
    rounds = 3 if session.rehearse else 20

    def multiply() -> None:
        for _ in range(rounds):
            torch.mm(left, right)

    seconds = session.seconds_of(multiply, rounds=3)
    return 2 * size**3 * rounds / seconds


def copy_rate(session: Session) -> float:
    """Bytes per second of a copy within the device's memory, those read and those written."""
    size = 1 << (20 if session.rehearse else 32)
    source = torch.empty(size, dtype=torch.uint8, device=session.device)
    target = torch.empty_like(source)
    return 2 * size / session.seconds_of(lambda: target.copy_(source), rounds=5)


def measure_steps(session: Session) -> None:
    """The matrix peak, then steps at growing sizes, compiled or not, and AdamW's variants."""
    peak = matrix_peak(session)
    session.note("device", bf16_tflops=peak / 1e12, copy_gb_per_second=copy_rate(session) / 1e9)
    session.free()
    large = TINY if session.rehearse else PRA_L
    small = TINY if session.rehearse else PRA_S
    sizes = (2, 4) if session.rehearse else (32, 64)
    _measure_large(session, large, sizes, peak)
    measure = partial(measure_step, session, small, sizes[1], peak, compiled="blocks")
    session.attempt(f"PRA-S, batch {sizes[1]}, compiled: blocks", measure, least_seconds=20)
    session.attempt("PRA-L, batch 1, offloaded", partial(_train_offloaded, session, large), least_seconds=20)


def _measure_large(session: Session, config: PRAConfig, sizes: tuple[int, int], peak: float) -> None:
    """Steps of the large model and what the optimizer takes of them, all with the same weights in memory.

    Args:
        session: of the part.
        config: the model.
        sizes: images of a step.
        peak: of the device's matrix products, operations per second.
    """
    started = session.now()
    models = build_models(session, config)
    session.note("PRA-L made", seconds=session.now() - started)
    measure = partial(measure_step, session, config, peak=peak, models=models)
    for size in sizes:
        session.attempt(f"PRA-L, batch {size}", partial(measure, size=size), least_seconds=8)
    for size in sizes:
        title = f"PRA-L, batch {size}, compiled: blocks"
        session.attempt(title, partial(measure, size=size, compiled="blocks"), least_seconds=20)
    title = f"PRA-L, batch {sizes[1]}, recomputed"
    session.attempt(title, partial(measure, size=sizes[1], recompute=True), least_seconds=8)
    for name, arguments in _OPTIMIZERS.items():
        optimize = partial(_measure_optimizer, session, config, arguments, models)
        session.attempt(f"AdamW, {name}", optimize, least_seconds=3)
    title = f"PRA-L, batch {sizes[0]}, compiled: whole"
    session.attempt(title, partial(measure, size=sizes[0], compiled="whole"), least_seconds=45)


def measure_step(
    session: Session,
    config: PRAConfig,
    size: int,
    peak: float,
    *,
    compiled: str = "no",
    recompute: bool = False,
    models: tuple[PRA, PRA] | None = None,
) -> dict[str, object]:
    """A step on images that are on the device already.

    Args:
        session: of the part.
        config: the model.
        size: images.
        peak: of the device's matrix products, operations per second.
        compiled: as in `BareLoop`.
        recompute: activations are made anew in the backward pass.
        models: as in `BareLoop`.
    """
    loop = BareLoop(session, config, compiled=compiled, recompute=recompute, models=models)
    batch = made_batch(config, size).to(session.device)
    started = session.now()
    loop.step(batch.images, batch.labels)
    first = session.now() - started
    rounds = 2 if session.rehearse else 8
    seconds = session.seconds_of(lambda: loop.step(batch.images, batch.labels), rounds=rounds, warm_up=2)
    forward = session.seconds_of(lambda: loop.backward(batch.images, batch.labels), rounds=rounds, warm_up=0)
    # What is computed again does not count: the model's operations are those of the usual convention.
    flops = training_flops_per_image(config, ObjectiveConfig())[1] * size
    return {
        "step_ms": 1000 * seconds,
        "gradients_ms": 1000 * forward,
        "first_step_s": first,
        "images_per_second": size / seconds,
        "peak_gib": session.peak_gib(),
        "mfu_of_measured_peak": flops / seconds / peak,
    }


def _measure_optimizer(
    session: Session, config: PRAConfig, arguments: dict[str, bool], models: tuple[PRA, PRA]
) -> dict[str, object]:
    """Clipping, AdamW and the averaged weights, without a forward or a backward pass.

    Args:
        session: of the part.
        config: the model.
        arguments: of AdamW.
        models: as in `BareLoop`.
    """
    loop = BareLoop(session, config, optimizer=arguments, models=models)
    for parameter in loop.model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    gradients = [parameter.grad for parameter in loop.model.parameters()]
    parts = {
        "norm_and_clip_ms": lambda: torch.nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0),
        "adamw_ms": loop.optimizer.step,
        "ema_ms": loop.average,
    }
    rounds = 2 if session.rehearse else 10
    return {
        "tensors": len(gradients),
        **{name: 1000 * session.seconds_of(work, rounds=rounds) for name, work in parts.items()},
    }


def _train_offloaded(session: Session, config: PRAConfig) -> dict[str, object]:
    """Steps of one image with weights, gradients, moments and averages in the host's memory."""
    strategy = StrategyConfig(name="fsdp2", fsdp2=FSDP2Options(cpu_offload=True), activation_checkpointing=1)
    module = PRAModule(architecture=config, grid=SampleGridConfig(every_n_steps=0))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(session, Path(folder), strategy, max_steps=3)
        started = session.now()
        trainer.fit(module, datamodule=MadeData(MadeBatches(config, 1, 3)))
    return {"steps": 3, "seconds_with_start": session.now() - started, "peak_gib": session.peak_gib()}
