"""Tensors of a checkpoint by torch.distributed.checkpoint: one format for the single process, DDP and FSDP2.

Names are fully qualified, without what compiling and activation checkpointing put into them: `model.*`, `ema.*` as the
module has them, `optimizers.N.NAME.exp_avg` for the state that optimizer N keeps of a parameter. What has no shape to
shard (step counts, options of the parameter groups) is plain state. Nothing but tensors is in these files, so that
reading them runs no code.
"""

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, load, save
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.optim import Optimizer

from framework.core.errors import CheckpointError
from framework.training.checkpoint.digests import RecordingWriter
from framework.training.checkpoint.layout import FileRecord
from framework.training.shapes import AnyTensor, Held, NamedTensors

OPTIMIZERS = "optimizers"
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
_ALONE = "torch.distributed is disabled, unavailable or uninitialized"

# What `.metadata` is made of, by module and name; all are records without behaviour.
_RECORDS = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
        "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath"},
}  # fmt: skip
# Where other versions of Python have them: 3.13 writes the private name of a path, which no other has.
_MOVED = {"pathlib._local": "pathlib"}


class _RecordUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        module = _MOVED.get(module, module)
        if name in _RECORDS.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise CheckpointError(f".metadata holds {module}.{name}", hint="give a checkpoint that `fit` made")


class RecordReader(FileSystemReader):
    """Reads tensors; the library's own would run whatever a `.metadata` file asks for."""

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as stream:
            metadata = _RecordUnpickler(stream).load()
        if not isinstance(metadata, Metadata):
            raise CheckpointError(f"{self.path}/.metadata is none", hint="give a checkpoint that `fit` made")
        others = [k for k, v in metadata.state_dict_metadata.items() if not isinstance(v, TensorStorageMetadata)]
        if others:
            problem = f"{self.path} holds {others[0]}, which is not a tensor"
            raise CheckpointError(problem, hint="give a checkpoint that `fit` made")
        return metadata


def tensor_records(checkpoint: Path) -> dict[str, TensorStorageMetadata]:
    """Shape and type of each tensor of a checkpoint."""
    return dict(RecordReader(checkpoint).read_metadata().state_dict_metadata)  # type: ignore[arg-type]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """No warning about a single process; and the error itself, which the library packs into a BaseException."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_ALONE)
            yield
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from error


def read_into(checkpoint: Path, tensors: NamedTensors) -> None:
    """Fills tensors, whole or sharded, in place; each rank reads what it holds."""
    if not tensors:
        return
    with _plain_errors():
        # Every rank plans by itself: there is nothing to agree on.
        load(dict(tensors), storage_reader=RecordReader(checkpoint), no_dist=True)


def read_dcp(checkpoint: Path, prefix: str) -> NamedTensors:
    """The tensors whose names start with `prefix`, on the CPU."""
    records = {name: record for name, record in tensor_records(checkpoint).items() if name.startswith(prefix)}
    tensors = {name: torch.empty(record.size, dtype=record.properties.dtype) for name, record in records.items()}
    read_into(checkpoint, tensors)
    return tensors


def write_tensors(partial: Path, tensors: NamedTensors, group: dist.ProcessGroup | None) -> dict[Path, FileRecord]:
    """Writes every rank's tensors, flushed to the disk. Collective over `group`.

    Args:
        partial: the folder.
        tensors: of this rank, by name; shards of DTensors under the name of the whole one.
        group: the processes that write; None for one.

    Returns:
        This rank's files.
    """
    writer = RecordingWriter(partial, num_bytes=sum(_local_bytes(tensor) for tensor in tensors.values()))
    with _plain_errors():
        save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)
    return writer.records()


def _local_bytes(tensor: AnyTensor) -> int:
    """Bytes of what this rank has of a tensor; sharded ones say their part."""
    local = cast("Callable[[], AnyTensor] | None", getattr(tensor, "to_local", None))
    return (tensor if local is None else local()).nbytes


def clean_name(name: str) -> str:
    """A parameter's name without what wrappers have put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def model_tensors(module: nn.Module) -> NamedTensors:
    """Parameters and persistent buffers by clean name; sharded ones stay so, and none is copied."""
    state = get_model_state_dict(module)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    assert len(tensors) == len(state), "a state of a module that is not a tensor"
    return tensors


class OptimizerState(TypedDict):
    """What an optimizer keeps of each parameter, by the parameter's name; and its groups, with names for parameters."""

    state: dict[str, dict[str, object]]
    param_groups: list[dict[str, Any]]


def optimizer_state(module: nn.Module, optimizer: Optimizer) -> OptimizerState:
    """An optimizer's state by parameter name, and its groups.

    Not by the library's get_optimizer_state_dict, which takes a step with an optimizer that has not taken one, so that
    its count is one ahead.
    """
    names: dict[AnyTensor, str] = {parameter: clean_name(name) for name, parameter in module.named_parameters()}
    groups = [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]
    return {"state": {names[p]: dict(state) for p, state in optimizer.state.items()}, "param_groups": groups}


def split_optimizers(states: list[OptimizerState]) -> tuple[NamedTensors, list[OptimizerState]]:
    """Tensors by their name in the checkpoint, and the rest, plain."""
    tensors: NamedTensors = {}
    plain: list[OptimizerState] = []
    for number, whole in enumerate(states):
        rest: dict[str, dict[str, object]] = {}
        for name, state in whole["state"].items():
            assert not any("." in key for key in state)
            tensors |= {f"{OPTIMIZERS}.{number}.{name}.{k}": v for k, v in state.items() if _has_shape(v)}
            # A copy on the CPU: a fused optimizer counts in place.
            rest[name] = {
                k: v.detach().cpu().clone() if isinstance(v, Tensor) else v
                for k, v in state.items()
                if not _has_shape(v)
            }
        plain.append({"state": rest, "param_groups": whole["param_groups"]})
    return tensors, plain


def _has_shape(value: object) -> TypeGuard[AnyTensor]:
    return isinstance(value, Tensor) and value.dim() > 0


def load_optimizers(
    checkpoint: Path, module: nn.Module, optimizers: Iterable[Optimizer], plain: list[OptimizerState]
) -> None:
    """Restores optimizers from a checkpoint, each rank its shards.

    Args:
        checkpoint: of any number of processes.
        module: whose parameters they optimise.
        optimizers: as many as were saved.
        plain: what `split_optimizers` left of each.

    Raises:
        CheckpointError: other parameters, or other groups of them, than the checkpoint's.
    """
    records = tensor_records(checkpoint)
    names = {parameter: clean_name(name) for name, parameter in module.named_parameters()}
    for number, (optimizer, saved) in enumerate(zip(optimizers, plain, strict=True)):
        ours = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
        theirs = [group["params"] for group in saved["param_groups"]]
        if ours != theirs:
            problem = f"optimizer {number} has other groups of parameters than the checkpoint's"
            raise CheckpointError(f"{problem} ({_first_difference(ours, theirs)})", hint="use the settings of that run")
        prefix = f"{OPTIMIZERS}.{number}."
        wanted: dict[str, dict[str, TensorStorageMetadata]] = {}
        for key, record in records.items():
            if key.startswith(prefix):
                name, _, kind = key.removeprefix(prefix).rpartition(".")
                wanted.setdefault(name, {})[kind] = record
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        empty = {
            names[p]: {kind: _like(p, record) for kind, record in wanted.get(names[p], {}).items()} for p in parameters
        }
        read_into(checkpoint, {f"{prefix}{n}.{k}": t for n, state in empty.items() for k, t in state.items()})
        places = {name: place for place, name in enumerate(name for group in ours for name in group)}
        state = {places[n]: {**saved["state"].get(n, {}), **empty[n]} for n in places if n in saved["state"]}
        groups = [{**group, "params": [places[n] for n in group["params"]]} for group in saved["param_groups"]]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _like(parameter: Held, record: TensorStorageMetadata) -> AnyTensor:
    """Memory for an optimizer's state of a parameter, sharded as that is where it has its shape."""
    dtype = record.properties.dtype
    if record.size == parameter.shape:
        return torch.empty_like(parameter.detach(), dtype=dtype)
    return torch.empty(record.size, dtype=dtype, device=parameter.device)


def _first_difference(ours: list[list[str]], theirs: list[list[str]]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} groups instead of {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if odd := sorted(set(a) ^ set(b)):
            return f"{odd[0]} in group {number}"
    return "their order"


def load_model(checkpoint: Path, module: nn.Module) -> None:
    """Fills a module's parameters and buffers, each rank its shards.

    Raises:
        CheckpointError: tensors that only one of the two has, or of another shape, by name.
    """
    ours = model_tensors(module)
    theirs = {k: v for k, v in tensor_records(checkpoint).items() if not k.startswith(f"{OPTIMIZERS}.")}
    odd = [f"{name} is only in the model" for name in ours.keys() - theirs.keys()]
    odd += [f"{name} is only in the checkpoint" for name in theirs.keys() - ours.keys()]
    odd += [
        f"{name} is {tuple(theirs[name].size)} in the checkpoint and {tuple(ours[name].shape)} in the model"
        for name in ours.keys() & theirs.keys()
        if theirs[name].size != ours[name].shape
    ]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise CheckpointError(
            f"{checkpoint} is of another model ({min(odd)}{more})",
            hint="use the checkpoint's settings, or another --run.dir for a new model",
        )
    read_into(checkpoint, ours)


def share_of(
    tensors: NamedTensors, rank: int, world_size: int, *, is_part: Callable[[AnyTensor], bool]
) -> NamedTensors:
    """What a rank writes: its shards, and its share of the tensors that all ranks have whole.

    Balanced by size, and a function of names and shapes alone: all ranks agree without a message. So no rank copies the
    whole model on DDP, and each writes a part.

    Args:
        tensors: all that are to be saved, by name.
        rank: the rank that writes, from 0.
        world_size: how many ranks write.
        is_part: whether each rank has another part of a tensor.
    """
    loads = [0] * world_size
    mine: NamedTensors = {}
    for name in sorted(tensors, key=lambda name: (-tensors[name].numel(), name)):
        if is_part(tensors[name]):
            mine[name] = tensors[name]
            continue
        lightest = loads.index(min(loads))
        loads[lightest] += tensors[name].numel()
        if lightest == rank:
            mine[name] = tensors[name]
    return mine
