"""`framework bench step`: the arithmetic rate of a step, by torch's products, by ours and beside other code."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from framework.bench.generation.sampling import MEASURED, matrix_peak, random_model, settings_of
from framework.bench.generation.sphere_ar import load_sphere_ar, training_with
from framework.bench.generation.turns import take_turns
from framework.bench.record import check_record, write_record
from framework.core import products
from framework.core.console import results
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.pra.loss import ObjectiveConfig, losses_of_seeds
from framework.pra.network.config import PRAConfig
from framework.pra.planning.flops import training_flops_per_image

OURS, PLAIN, LOWER, OTHER = "ours", "ours, torch's products", "ours, bf16-mixed", "SphereAR"


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """A way of training.

    Attributes:
        way: its name.
        seconds: of a forward and a backward pass, the median over the rounds.
        cpu_seconds: of all threads, likewise.
        tflop: 10^12 operations of matrix products and attention in it.
        gflops: 10^9 operations a second of CPU time and thread.
        of_peak: the same, as a share of one large product's in fp32.
    """

    way: str
    seconds: float
    cpu_seconds: float
    tflop: float
    gflops: float
    of_peak: float


def bench_step(
    out: Path | None = None,
    *,
    architecture: PRAConfig = MEASURED,
    objective: ObjectiveConfig = ObjectiveConfig(),
    batch_size: int = 4,
    sphere_ar: Path | None = None,
    rounds: int = 3,
) -> dict[str, object]:
    """Measures a forward and a backward pass on the CPU, each way in turn in every round.

    Args:
        out: JSON file for the numbers.
        architecture: of our model; SphereAR's gets its sizes.
        objective: of our model.
        batch_size: images.
        sphere_ar: folder of SphereAR's public code, to measure beside ours; eager, its autoencoder frozen.
        rounds: that count; one before them warms up.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range, or a folder without SphereAR's code.
    """
    check_record(out)
    if batch_size < 1 or rounds < 1:
        raise ConfigError(f"batch_size {batch_size}, rounds {rounds}", hint="use 1 or more")
    ways = _our_ways(architecture, objective, batch_size)
    flops = dict.fromkeys(ways, training_flops_per_image(architecture, objective)[1] * batch_size)
    if sphere_ar is not None:
        theirs = training_with(load_sphere_ar(sphere_ar, architecture), architecture, batch_size)
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            theirs()
        ways[OTHER], flops[OTHER] = theirs, counter.get_total_flops()
    speeds = _measure(ways, flops, rounds, matrix_peak(torch.device("cpu"), "fp32"))
    record: dict[str, object] = {
        **settings_of(architecture, batch_size, torch.device("cpu")),
        "objective": to_json(objective),
        "measured": [to_json(each) for each in speeds],
    }
    _show(speeds, record)
    write_record(out, record)
    return record


def _our_ways(config: PRAConfig, objective: ObjectiveConfig, batch_size: int) -> dict[str, Callable[[], Tensor]]:
    model = random_model(config).train().requires_grad_(True)
    size = (batch_size, config.channels, config.image_size, config.image_size)
    images, numbers = torch.rand(size) * 2 - 1, torch.arange(batch_size)

    def step() -> Tensor:
        total = losses_of_seeds(model, images, numbers % config.num_classes, numbers, objective).total
        total.backward()
        model.zero_grad()
        return total.detach()

    def plain() -> Tensor:
        with _torch_products():
            return step()

    def lower() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return step()

    return {OURS: step, PLAIN: plain, LOWER: lower}


@contextmanager
def _torch_products() -> Iterator[None]:
    kept = products.LEAST_MULTIPLICATIONS
    products.LEAST_MULTIPLICATIONS = 1 << 62
    try:
        yield
    finally:
        products.LEAST_MULTIPLICATIONS = kept


def _measure(
    ways: Mapping[str, Callable[[], Tensor]], flops: Mapping[str, int], rounds: int, peak: float
) -> list[StepSpeed]:
    def eager(step: Callable[[], Tensor]) -> None:
        with torch.compiler.set_stance("force_eager"):
            step()

    spent = take_turns({name: partial(eager, step) for name, step in ways.items()}, rounds, torch.device("cpu"))
    found: list[StepSpeed] = []
    for name in ways:
        seconds = median(each.seconds for each in spent[name])
        cpu = median(each.cpu_seconds for each in spent[name])
        rate = flops[name] / cpu
        found.append(
            StepSpeed(
                way=name,
                seconds=seconds,
                cpu_seconds=cpu,
                tflop=flops[name] / 1e12,
                gflops=rate / 1e9,
                of_peak=rate * torch.get_num_threads() / peak,
            )
        )
    return found


def _show(speeds: list[StepSpeed], record: Mapping[str, object]) -> None:
    table = Table(title=f"{record['batch_size']} images, {record['threads']} threads, {record['machine']}")
    for heading in ("way", "s", "CPU s", "TFLOP", "GFLOP a CPU second", "of the peak in fp32"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for each in speeds:
        numbers = f"{each.seconds:.2f}", f"{each.cpu_seconds:.2f}", f"{each.tflop:.3f}", f"{each.gflops:.1f}"
        table.add_row(each.way, *numbers, f"{each.of_peak:.2f}")
    results().print(table)
