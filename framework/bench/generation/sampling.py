"""`framework bench sampling`: seconds of a batch of images, by our ways, the plain reference and other public code."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.table import Table
from torch import Tensor

from framework.bench.generation.sphere_ar import load_sphere_ar, sampling_with
from framework.bench.generation.turns import take_turns, timed
from framework.bench.record import check_record, machine_of, write_record
from framework.core.compat.torch_compat import onednn_product, packed_weight, packs_weights
from framework.core.console import results
from framework.core.devices import pick_device
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.core.shapes import Images
from framework.pra.acceleration import Execution, accelerate
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.model import PRA
from framework.pra.network.packing import DTYPES, Precision, is_packed
from framework.pra.planning.sampling import sampling_flops
from framework.pra.sampling import SamplerConfig, sample

_LARGE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices whose product gives a device's peak."""
MEASURED = PRAConfig(image_size=128, patch_size=16, num_classes=1000, depth=11)
REFERENCE = "eager, fp32"
SPHERE_AR = "SphereAR, as it compiles itself", "SphereAR, eager"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to a batch of images.

    Attributes:
        draw: makes it.
        flops: floating-point operations of it; None where they are not counted.
        precision: of its matrix products.
        within: what holds while it runs.
    """

    draw: Callable[[], Tensor]
    flops: int | None
    precision: Precision
    within: Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, kw_only=True)
class SamplingSpeed:
    """How fast a way is.

    Attributes:
        way: its name.
        seconds: of a batch, the median over the rounds.
        cpu_seconds: of all threads, likewise.
        gflops: 10^9 operations a second; None where they are not counted.
        of_floor: the time that the operations would take at the device's peak in that precision, over `seconds`.
        faster: than each other way that the columns name, by the median of the rounds' ratios.
        difference: from the images of the reference with as many steps, on average, in their standard deviations; None
            where there is no such reference.
    """

    way: str
    seconds: float
    cpu_seconds: float
    gflops: float | None
    of_floor: float | None
    faster: Mapping[str, float]
    difference: float | None


def bench_sampling(
    out: Path | None = None,
    *,
    architecture: PRAConfig = MEASURED,
    sampler: SamplerConfig = SamplerConfig(steps=25, guidance=3.0),
    batch_size: int = 8,
    few_steps: int = 4,
    modulations: tuple[str, ...] = ("joint", "separate"),
    compiled: bool = False,
    sphere_ar: Path | None = None,
    rounds: int = 3,
    device: str = "auto",
) -> dict[str, object]:
    """Measures how long a batch of images takes, each way in turn in every round.

    Ours are the plain reference (eager, in fp32) and what `framework sample` does, in fp32 and bf16, with all steps of
    the flow and with a few jumps of a head that knows them; weights are random. The floor of each is its arithmetic at
    the rate of one large matrix product, in the same run. On a busy machine trust ratios alone.

    Args:
        out: JSON file for the numbers.
        architecture: of our model; SphereAR's gets its sizes.
        sampler: how tokens are drawn; the jumps have its guidance.
        batch_size: images.
        few_steps: jumps of a token; 0 leaves them out, and so does a head that predicts clean pixels.
        modulations: of the head (`joint`, `separate`) that are measured.
        compiled: measure `--execution compiled` too, whose compilation takes minutes.
        sphere_ar: folder of SphereAR's public code, to measure beside ours: eager, and with `--compiled true` also
            compiled, as it is on a GPU.
        rounds: that count; one before them warms up.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one. SphereAR runs on the CPU alone.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range, or a folder without SphereAR's code.
    """
    check_record(out)
    if batch_size < 1 or rounds < 1 or few_steps < 0:
        given = f"batch_size {batch_size}, rounds {rounds}, few_steps {few_steps}"
        raise ConfigError(given, hint="use 1 or more; few_steps 0 for none")
    place = pick_device(device)
    ways: dict[str, Way] = {}
    for modulation in modulations:
        config = replace(architecture, head_modulation=modulation)
        ways |= _our_ways(config, sampler, batch_size, few_steps, place, compiled=compiled)
    if sphere_ar is not None and place.type == "cpu":
        ways |= _sphere_ar_ways(sphere_ar, architecture, sampler, batch_size, compiled=compiled)
    peaks: dict[Precision, float] = {precision: matrix_peak(place, precision) for precision in DTYPES}
    speeds = _measure(ways, rounds, place, peaks)
    record: dict[str, object] = {
        **settings_of(architecture, batch_size, place),
        "sampler": to_json(sampler),
        "peak_gflops": {precision: peak / 1e9 for precision, peak in peaks.items()},
        "measured": [to_json(each) for each in speeds],
    }
    _show(speeds, record)
    write_record(out, record)
    return record


def settings_of(config: PRAConfig, batch_size: int, device: torch.device) -> dict[str, object]:
    """What a record says of the machine and of the model.

    Args:
        config: the architecture.
        batch_size: images.
        device: that computes.
    """
    return {
        "machine": machine_of(str(device)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "architecture": to_json(config),
        "batch_size": batch_size,
    }


def _our_ways(
    config: PRAConfig, sampler: SamplerConfig, batch_size: int, few_steps: int, device: torch.device, *, compiled: bool
) -> dict[str, Way]:
    labels = torch.arange(batch_size, device=device) % config.num_classes
    flow = random_model(config).to(device), sampler

    def way(precision: Precision, execution: Execution, drawn_by: tuple[PRA, SamplerConfig]) -> Way:
        model, steps = drawn_by
        ready = accelerate(model, precision, execution, device)
        made = ready.model
        assert isinstance(made, PRA)
        autocast = precision == "bf16" and not is_packed(made)
        return Way(
            # As many rows as images: `framework sample` fills those of a plain model up to 16.
            draw=lambda: sample(made, labels, range(batch_size), steps, step=ready.step).float().cpu(),
            flops=sampling_flops(model.config, steps, batch_size),
            precision=precision,
            within=lambda: torch.autocast(device.type, torch.bfloat16, enabled=autocast),
        )

    found = {REFERENCE: way("fp32", "eager", flow)}
    few = None
    if few_steps and VARIANTS[config.variant].prediction == "velocity":
        knows = replace(config, head_jumps=True)
        few = random_model(knows).to(device), replace(sampler, steps=few_steps, method="jump")
    for precision in DTYPES:
        found[f"ours, {precision}"] = way(precision, "auto", flow)
        if few is not None:
            found[f"ours, {precision}, {few_steps} jumps"] = way(precision, "auto", few)
        if compiled:
            found[f"ours, {precision}, compiled"] = way(precision, "compiled", flow)
    return {f"{config.head_modulation}: {name}": each for name, each in found.items()}


def random_model(config: PRAConfig) -> PRA:
    """A model whose every weight is random: what starts at zero would be multiplied faster.

    Args:
        config: the architecture.

    Raises:
        ConfigError: one that draws no tokens.
    """
    if VARIANTS[config.variant].inputs == "diffused":
        raise ConfigError(f"architecture.variant {config.variant}", hint="its images are not drawn token by token")
    model = PRA(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02, generator=generator)
    return model


def _sphere_ar_ways(
    folder: Path, config: PRAConfig, sampler: SamplerConfig, batch_size: int, *, compiled: bool
) -> dict[str, Way]:
    draw = sampling_with(load_sphere_ar(folder, config).requires_grad_(False), sampler, batch_size)
    own, eager = SPHERE_AR
    found = {eager: Way(draw=draw, flops=None, precision="fp32", within=_as_eager)}
    if compiled:
        found[own] = Way(draw=draw, flops=None, precision="fp32", within=torch.no_grad)
    return found


def _as_eager() -> AbstractContextManager[object]:
    return torch.compiler.set_stance("force_eager")


def matrix_peak(device: torch.device, precision: Precision, *, attempts: int = 10) -> float:
    """Operations a second of one large matrix product, the best of some by torch and, on a CPU, by oneDNN.

    Args:
        device: that multiplies.
        precision: of the product.
        attempts: products by each.
    """
    size, dtype = _LARGE[device.type], DTYPES[precision]
    x, weight = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    products: list[Callable[[], Tensor]] = [lambda: x @ weight]
    if device.type == "cpu" and packs_weights(dtype):
        packed = packed_weight(weight)
        products.append(lambda: onednn_product(x, packed, None))
    timings = [timed(product, device) for product in products for _ in range(attempts)]
    if device.type == "cpu":
        # By the clock a machine with other work would have a lower peak than the ways that are measured.
        return 2 * size**3 * torch.get_num_threads() / min(each.cpu_seconds for each in timings)
    return 2 * size**3 / min(each.seconds for each in timings)


def _measure(
    ways: Mapping[str, Way], rounds: int, device: torch.device, peaks: Mapping[Precision, float]
) -> list[SamplingSpeed]:
    images: dict[str, Tensor] = {}

    def draw(name: str, way: Way) -> None:
        with torch.no_grad(), way.within():
            images[name] = way.draw()

    spent = take_turns({name: partial(draw, name, way) for name, way in ways.items()}, rounds, device)
    seconds = {name: [each.seconds for each in found] for name, found in spent.items()}
    against = [name for name in ways if name.endswith(REFERENCE) or name in SPHERE_AR]
    found: list[SamplingSpeed] = []
    for name, way in ways.items():
        middle = median(seconds[name])
        of_floor = None if way.flops is None else way.flops / peaks[way.precision] / middle
        reference = f"{name.split(':')[0]}: {REFERENCE}"
        comparable = reference in ways and name != reference and "jumps" not in name
        found.append(
            SamplingSpeed(
                way=name,
                seconds=middle,
                cpu_seconds=median(each.cpu_seconds for each in spent[name]),
                gflops=None if way.flops is None else way.flops / middle / 1e9,
                of_floor=of_floor,
                faster={
                    other: median(a / b for a, b in zip(seconds[other], seconds[name], strict=True))
                    for other in against
                    if other != name
                },
                difference=_difference(images[name], images[reference]) if comparable else None,
            )
        )
    return found


def _difference(images: Images, reference: Images) -> float:
    return ((images - reference).abs().mean() / reference.std()).item()


def _show(speeds: list[SamplingSpeed], record: Mapping[str, object]) -> None:
    against = list(dict.fromkeys(name for each in speeds for name in each.faster))
    table = Table(title=f"{record['batch_size']} images, {record['threads']} threads, {record['machine']}")
    for heading in (
        "way",
        "s",
        "CPU s",
        "GFLOP/s",
        "of the floor",
        *(f"over {name}" for name in against),
        "differs by",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for each in speeds:
        table.add_row(
            each.way,
            f"{each.seconds:.2f}",
            f"{each.cpu_seconds:.2f}",
            "" if each.gflops is None else f"{each.gflops:.0f}",
            "" if each.of_floor is None else f"{each.of_floor:.2f}",
            *(f"{each.faster[name]:.2f}x" if name in each.faster else "" for name in against),
            "" if each.difference is None else f"{each.difference:.1e}",
        )
    results().print(table)
