"""DeepSpeed's checkpoint files: whose they are, their tensors, and loading them into an engine.

    latest, checkpoint/mp_rank_00_model_states.pt                       stages 1, 2: all weights, whole
            checkpoint/zero_pp_rank_R_mp_rank_00_model_states.pt        stage 3: rank R's parts of frozen weights
            checkpoint/zero_pp_rank_R_mp_rank_00_optim_states.pt        rank R's parts of the optimizer (3: and weights)

DeepSpeed reads them with a loader that runs whatever code they ask for; here they are read without.
"""

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Size, Tensor, nn
from torch.optim import Optimizer
from torch.serialization import safe_globals

from framework.core.collectives import rank_and_size
from framework.core.compat.deepspeed_compat import set_universal_loading
from framework.core.errors import CheckpointError
from framework.training.checkpoint.writing import together
from framework.training.shapes import AnyTensor, Held, NamedTensors, Part, Whole

TAG = "checkpoint"
_RANK = re.compile(r"zero_pp_rank_(\d+)_")
_RECORDS = (
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
"""What DeepSpeed puts into its files besides plain types: records without behaviour."""


@runtime_checkable
class Partition(Protocol):
    """What ZeRO-3 adds to a parameter."""

    ds_tensor: Part
    ds_shape: Size
    ds_numel: int
    ds_status: Enum
    ds_active_sub_modules: set[int]

    def all_gather(self, param_list: "Sequence[Partition]") -> object:
        """Gathers the parameters of a list. Collective."""
        ...

    def partition(self, param_list: "Sequence[Partition] | None" = None, has_been_updated: bool = False) -> None:
        """Lets go of whole parameters: of a list, or of this one."""
        ...


@runtime_checkable
class ZeroOptimizer(Protocol):
    """DeepSpeed's optimizer."""

    optimizer: Optimizer
    """The one that it takes its steps with."""


@runtime_checkable
class FileReader(Protocol):
    """What an engine reads its files with."""

    load: Callable[..., object]


@runtime_checkable
class Engine(Protocol):
    """What is used of DeepSpeed's engine, which is a module for Lightning."""

    optimizer: ZeroOptimizer
    checkpoint_engine: FileReader

    def save_checkpoint(self, save_dir: str, tag: str) -> object:
        """Writes this rank's files. Collective."""
        ...

    def load_checkpoint(self, load_dir: str, tag: str, *, load_lr_scheduler_states: bool) -> object:
        """Loads weights and the optimizer. Collective.

        Args:
            load_dir: the folder of checkpoints.
            tag: the checkpoint's name in it.
            load_lr_scheduler_states: also those of a schedule that the engine steps.
        """
        ...

    def get_global_grad_norm(self) -> float | None:
        """Norm of the gradient of the last step."""
        ...


class _Inert:
    """Stands for a record that is of no interest."""

    def __init__(self, *args: object) -> None:
        pass


def files_of(folder: Path, rank: int) -> list[Path]:
    """Files of an engine's checkpoint that a rank has written; for rank 0 with those that belong to no rank."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        match = _RANK.search(path.name)
        if (int(match[1]) if match else 0) == rank:
            found.append(path)
    return found


def _read_inert(path: Path) -> dict[str, Any]:
    """A file, its tensors left on the disk until they are used, and nothing in it run; DeepSpeed need not be there."""
    with safe_globals([(_Inert, name) for name in _RECORDS]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


class DeepSpeedFiles:
    """Tensors of the module in an engine's checkpoint, of any ZeRO stage and number of processes."""

    def __init__(self, checkpoint: Path) -> None:
        folder = checkpoint / TAG
        whole = folder / "mp_rank_00_model_states.pt"
        self._whole: NamedTensors = {}
        self._shards: dict[str, list[Part]] = {}
        self._shapes: dict[str, torch.Size] = {}
        if whole.exists():
            self._whole = _read_inert(whole)["module"]
            return
        count = len(list(folder.glob("zero_pp_rank_*_model_states.pt")))
        models = [_read_inert(folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt") for rank in range(count)]
        if not models:
            raise CheckpointError(f"{folder} has no model states", hint="give a checkpoint that `fit` made")
        self._whole = {name: models[0]["module"][name] for name in models[0]["buffer_names"]}
        for name, shape in (models[0]["frozen_param_shapes"] or {}).items():
            self._shapes[name] = shape
            self._shards[name] = [model["frozen_param_fragments"][name] for model in models]
        states = [_read_inert(folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt") for rank in range(count)]
        groups = [state["optimizer_state_dict"]["fp32_flat_groups"] for state in states]
        group = first = 0
        for name, shape in ((name, shape) for shapes in models[0]["param_shapes"] for name, shape in shapes.items()):
            if first == groups[0][group].numel():
                group, first = group + 1, 0
            # Each rank has an equal part, the last one's padded.
            length = math.ceil(shape.numel() / count)
            self._shapes[name] = shape
            self._shards[name] = [each[group][first : first + length] for each in groups]
            first += length

    def names(self) -> list[str]:
        """Of all tensors of the module."""
        return [*self._whole, *self._shards]

    def tensor(self, name: str) -> Whole:
        """A whole tensor, copied from the disk."""
        if name in self._whole:
            return self._whole[name].clone()
        shape = self._shapes[name]
        return torch.cat([shard.flatten() for shard in self._shards[name]])[: shape.numel()].reshape(shape).clone()


def read_deepspeed(checkpoint: Path, prefix: str) -> NamedTensors:
    """The tensors whose names start with `prefix`, on the CPU."""
    files = DeepSpeedFiles(checkpoint)
    return {name: files.tensor(name) for name in files.names() if name.startswith(prefix)}


def is_partitioned(tensor: AnyTensor) -> bool:
    """Whether ZeRO-3 has spread a tensor over the ranks."""
    return hasattr(tensor, "ds_tensor")


def partition_of(parameter: Held) -> Partition:
    """A parameter that ZeRO-3 has partitioned, with what that adds to it."""
    return cast(Partition, parameter)


def fill_partition(target: Held, value: Whole) -> None:
    """A parameter that ZeRO-3 has partitioned: flat, in equal parts, the last one padded."""
    part = partition_of(target).ds_tensor
    rank = torch.distributed.get_rank()
    mine = value.flatten()[rank * part.numel() : (rank + 1) * part.numel()]
    part.flatten()[: mine.numel()].copy_(mine)
    if target.numel() == value.numel():
        # Small weights are kept whole besides.
        target.copy_(value)


@torch.no_grad()
def fill_module(module: nn.Module, checkpoint: Path, *, only_frozen: bool = False) -> None:
    """Fills a module's tensors, each rank its part of those that ZeRO-3 has partitioned.

    Args:
        module: the module.
        checkpoint: of any number of processes.
        only_frozen: leave out what the optimizer trains.
    """
    files = DeepSpeedFiles(checkpoint)
    state = [*module.named_parameters(), *module.named_buffers()]
    names = set(files.names())
    for name, target in state:
        if (only_frozen and target.requires_grad) or (not isinstance(target, nn.Parameter) and name not in names):
            continue
        if name not in names:
            problem = f"{checkpoint} is of another model ({name} is only in the model)"
            raise CheckpointError(problem, hint="use the checkpoint's settings, or another --run.dir for a new model")
        value = files.tensor(name)
        if is_partitioned(target):
            fill_partition(target, value)
        else:
            target.copy_(value)


@contextmanager
def _without_code(engine: Engine) -> Iterator[None]:
    """Lets the engine read its files as `weights_only` does."""
    known = []
    for name in _RECORDS:
        module, _, kind = name.rpartition(".")
        known.append((getattr(import_module(module), kind), name))
    reader = engine.checkpoint_engine

    def load(path: str, map_location: str | torch.device | None = None) -> object:
        with safe_globals(known):
            return torch.load(path, map_location=map_location, weights_only=True)

    reader.load = load
    try:
        yield
    finally:
        del reader.load


def load_engine(engine: Engine, checkpoint: Path) -> None:
    """Weights and the optimizer, on as many processes as wrote them. Collective."""
    with _without_code(engine):
        engine.load_checkpoint(str(checkpoint), tag=TAG, load_lr_scheduler_states=False)


def load_universal(engine: Engine, module: nn.Module, checkpoint: Path, work: Path) -> None:
    """Weights and the optimizer on another number of processes, by DeepSpeed's universal format. Collective.

    Args:
        engine: set up, not trained yet.
        module: the engine's.
        checkpoint: of any number of processes.
        work: a folder for the converted checkpoint, which takes as much room as the checkpoint; removed at the end.
    """
    rank, _ = rank_and_size()
    together(lambda: _convert(checkpoint, work) if rank == 0 else None, f"{checkpoint} could not be converted")
    set_universal_loading(engine, True)
    try:
        with _without_code(engine):
            engine.load_checkpoint(str(work), tag=TAG, load_lr_scheduler_states=False)
    finally:
        set_universal_loading(engine, False)
    _correct_optimizer(engine.optimizer.optimizer, checkpoint)
    # The format has no place for what is not trained.
    together(lambda: fill_module(module, checkpoint, only_frozen=True), f"{checkpoint} could not be loaded")
    if rank == 0:
        shutil.rmtree(work)


def _correct_optimizer(optimizer: Optimizer, checkpoint: Path) -> None:
    """What DeepSpeed 0.19's universal loader of stage 3 gets wrong.

    It gives all groups the options of the first, such as its weight decay, and all parameters one tensor for their step
    count, which then counts as many steps as there are parameters.
    """
    states = _read_inert(checkpoint / TAG / "zero_pp_rank_0_mp_rank_00_optim_states.pt")["optimizer_state_dict"]
    saved = states.get("optimizer_state_dict") or states["base_optimizer_state"]
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        ours |= {name: value for name, value in theirs.items() if name != "params"}
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def _convert(checkpoint: Path, work: Path) -> None:
    # DeepSpeed's tool runs what its input asks for, so that has to be harmless.
    for path in sorted((checkpoint / TAG).glob("*.pt")):
        _read_inert(path)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint / TAG), "--output_folder", str(work / TAG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(
            f"{checkpoint} could not be converted ({last})", hint="use as many processes as it was written by"
        )
