"""The command `plan`: what a recipe needs of its devices, whether it fits, and what would."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from rich.console import Console
from rich.table import Table

from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.data.sampling.batching import needed_accumulation
from framework.pra.loss import ObjectiveConfig
from framework.pra.network.config import PRAConfig
from framework.pra.planning.flops import CostPrecision
from framework.pra.planning.memory import Plan, Run, make_plan
from framework.tracking.devices import GIB, Device, named_device
from framework.training.strategies.backend import named_backend
from framework.training.strategies.config import StrategyConfig


def what_would_fit(run: Run, memory_bytes: int) -> list[tuple[str, Plan]]:
    """Options that let a run fit, the mildest first, and its plan with them.

    The global batch stays. None are found where only a smaller model or more devices would do.
    """
    found: list[tuple[str, Plan]] = []
    checkpointing = [run.strategy.activation_checkpointing]
    checkpointing += [n for n in (2, 1) if not checkpointing[0] or n < checkpointing[0]]
    lighter = named_backend(run.strategy.name).lighter
    names = [run.strategy.name, lighter] if lighter is not None and run.num_devices > 1 else [run.strategy.name]
    batches = [run.micro_batch // 2**n for n in range(run.micro_batch.bit_length())]
    for batch in batches:
        factor = run.micro_batch // batch
        if batch * factor != run.micro_batch:
            continue
        for name in names:
            for every in checkpointing:
                strategy = replace(run.strategy, name=name, activation_checkpointing=every)
                changed = replace(run, strategy=strategy, micro_batch=batch, accumulation=run.accumulation * factor)
                plan = make_plan(changed)
                if plan.fits(memory_bytes):
                    found.append((_difference(run, changed), plan))
        if found:
            break
    return found


def _difference(run: Run, changed: Run) -> str:
    options = []
    if changed.strategy.name != run.strategy.name:
        options.append(f"--strategy.name {changed.strategy.name}")
    if changed.strategy.activation_checkpointing != run.strategy.activation_checkpointing:
        options.append(f"--strategy.activation_checkpointing {changed.strategy.activation_checkpointing}")
    if changed.micro_batch != run.micro_batch:
        options.append(f"--data.batch_size {changed.micro_batch}")
        options.append(f"--trainer.accumulate_grad_batches {changed.accumulation}")
    return " ".join(options)


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is planned for, besides the recipe.

    Args:
        nodes: how many nodes.
        devices: devices on each node.
        device: their name (such as H100) or their memory (such as 48GiB), to compare with.
        json: print JSON instead of a table.
    """

    nodes: int = 1
    devices: int = 1
    device: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.devices < 1:
            raise ConfigError(f"nodes {self.nodes}, devices {self.devices}", hint="use 1 or more")

    def found_device(self) -> tuple[Device | None, int | None]:
        """The device of the table, if it is one, and its bytes of memory.

        Raises:
            ConfigError: neither a known device nor a size.
        """
        if self.device is None:
            return None, None
        if size := re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|GB|GiB)?", self.device):
            return None, round(float(size[1]) * {"GB": 10**9, "GiB": GIB}.get(size[2], 1))
        device = named_device(self.device)
        return device, device.memory_bytes


def run_of_recipe(recipe: dict[str, Any], options: PlanOptions) -> Run:
    """What a parsed recipe asks for on so many devices; no data are opened.

    Raises:
        ConfigError: another model than PRA; a precision or a number of processes that cannot be.
    """
    model, strategy = recipe["model"], recipe["strategy"]
    if model["class_path"] != "framework.pra.module.PRAModule":
        raise ConfigError(f"model {model['class_path']}", hint="plan knows framework.pra.module.PRAModule alone")
    given = model["init_args"]
    precision = str(recipe["trainer"]["precision"] or "32-true")
    known = {"32": "32-true", "32-true": "32-true", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed"}
    if precision not in known:
        raise ConfigError(f"trainer.precision {precision}", hint=f"plan knows {' and '.join(get_args(CostPrecision))}")
    chosen = StrategyConfig.of_recipe(strategy)
    num = options.nodes * options.devices
    named_backend(chosen.name).check_processes(chosen, num)
    data, accumulation = recipe["data"], recipe["trainer"]["accumulate_grad_batches"]
    if data["global_batch"] is not None:
        accumulation = needed_accumulation(
            data["global_batch"], micro_batch=data["batch_size"], num_ranks=num, given=accumulation
        )
    return Run(
        architecture=PRAConfig(**given["architecture"]),
        objective=ObjectiveConfig(**given["objective"]),
        strategy=chosen,
        num_devices=num,
        micro_batch=data["batch_size"],
        accumulation=accumulation,
        precision=cast(CostPrecision, known[precision]),
    )


def show_plan(run: Run, options: PlanOptions) -> None:
    """Print what a run needs, whether a device holds it, and if not, what would make it fit."""
    device, memory_bytes = options.found_device()
    plan = make_plan(run)
    if options.json:
        print(json.dumps(as_json(plan, device, memory_bytes), indent=2))
        return
    console = Console()
    console.print(as_table(plan, device, memory_bytes))
    if memory_bytes is not None and not plan.fits(memory_bytes):
        changes = what_would_fit(run, memory_bytes)
        if not changes:
            nothing = "no strategy, recomputation or micro-batch makes it fit: more devices or a smaller model would"
            console.print(nothing, soft_wrap=True)
        for change, changed in changes:
            console.print(f"fits with {change}: {gib(changed.memory.peak)}", highlight=False, soft_wrap=True)


def as_json(plan: Plan, device: Device | None, memory_bytes: int | None) -> dict[str, Any]:
    """A plan in JSON's types; bytes and operations as whole numbers."""
    run = plan.run
    return {
        "strategy": to_json(run.strategy),
        "num_devices": run.num_devices,
        "micro_batch": run.micro_batch,
        "accumulation": run.accumulation,
        "global_batch": plan.global_batch,
        "precision": run.precision,
        "num_parameters": plan.num_parameters,
        "memory_bytes": to_json(plan.memory),
        "flops_per_image": plan.flops_per_image,
        "flops_per_step": plan.flops_per_step,
        "bytes_sent_per_step": plan.bytes_sent,
        "device": device.name if device else None,
        "device_memory_bytes": memory_bytes,
        "fits": None if memory_bytes is None else plan.fits(memory_bytes),
    }


def as_table(plan: Plan, device: Device | None, memory_bytes: int | None) -> Table:
    """A plan for reading."""
    run, memory = plan.run, plan.memory
    table = Table("each device", "", title=f"{plan.num_parameters / 1e6:.1f}M parameters in training")
    table.columns[1].justify = "right"
    rows = to_json(memory)
    peak, host = rows.pop("peak"), rows.pop("host")
    for name, value in rows.items():
        table.add_row(name, gib(value))
    if host:
        table.add_row("of these on the host", gib(host))
    table.add_section()
    table.add_row("expected peak", gib(peak))
    if memory_bytes is not None:
        table.add_row(f"memory of {device.name if device else 'the device'}", gib(memory_bytes))
        table.add_row("fits", "[green]yes[/]" if plan.fits(memory_bytes) else "[red]no[/]")
    table.add_section()
    batch = f"{run.num_devices} x {run.micro_batch} x {run.accumulation} = {plan.global_batch}"
    table.add_row("devices x micro-batch x accumulation", batch)
    table.add_row("operations an image", f"{plan.flops_per_image / 1e9:.1f} GFLOP")
    table.add_row("operations a step", f"{plan.flops_per_step / 1e12:.1f} TFLOP")
    table.add_row("sent a step", gib(plan.bytes_sent))
    if device is not None:
        seconds = plan.flops_per_step / run.num_devices / device.bfloat16_flops
        table.add_row("seconds a step at 40 % utilisation", f"{seconds / 0.4:.3f}")
    return table


def gib(value: int) -> str:
    """Bytes for reading."""
    return f"{value / GIB:.2f} GiB" if value >= 0.01 * GIB else f"{value / 2**20:.2f} MiB"
