"""Weights alone, in safetensors files as Hugging Face's tools read them: one file, or several and an index."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from framework.core.errors import CheckpointError
from framework.core.io import PARTIAL, atomic_write, sync_folder
from framework.training.shapes import NamedTensors, Rows, Whole
from framework.training.strategies.backend import backend_of_tensor

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"


def index_of(out: Path) -> Path:
    """The index of weights that are split over several files named after `out`."""
    return out.with_name(out.name.removesuffix(SUFFIX) + INDEX_SUFFIX)


def write_weights(out: Path, tensors: NamedTensors, *, max_shard_bytes: int | None = None) -> list[Path]:
    """Writes tensors to `out`, or split into `NAME-00001-of-0000N.safetensors` and an index beside it.

    Each file appears whole, and the index after the last of them.

    Args:
        out: `NAME.safetensors`.
        tensors: on the CPU, of storages of their own.
        max_shard_bytes: split where they take more; a tensor that alone takes more has a file of its own.

    Returns:
        The files; where there are several, the index is the last.
    """
    groups = _split({name: t.nbytes for name, t in tensors.items()}, max_shard_bytes)
    if len(groups) == 1:
        _write(out, tensors)
        return [out]
    stem = out.name.removesuffix(SUFFIX)
    places: dict[str, str] = {}
    files = []
    for number, names in enumerate(groups, start=1):
        file = out.with_name(f"{stem}-{number:05d}-of-{len(groups):05d}{SUFFIX}")
        _write(file, {name: tensors[name] for name in names})
        places |= dict.fromkeys(names, file.name)
        files.append(file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
    with atomic_write(index_of(out)) as stream:
        stream.write(json.dumps(index, indent=1).encode())
    return [*files, index_of(out)]


def _write(file: Path, tensors: NamedTensors) -> None:
    partial = file.with_name(file.name + PARTIAL)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata={"format": "pt"})
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
        sync_folder(file.parent)
    except SafetensorError as error:
        # The library's own error for a full disk and the like.
        raise OSError(None, str(error), str(file)) from error
    finally:
        partial.unlink(missing_ok=True)


def _split(sizes: dict[str, int], limit: int | None) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and limit is not None and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


@dataclass(frozen=True)
class WeightFiles:
    """Where tensors lie: the file of each by name."""

    files: dict[str, Path]

    @classmethod
    def at(cls, path: Path) -> "WeightFiles":
        """Of `NAME.safetensors` or of an index.

        Raises:
            CheckpointError: neither, damaged, or files of the index are missing.
        """
        try:
            if path.name.endswith(INDEX_SUFFIX):
                places = json.loads(path.read_bytes())["weight_map"]
                files = {name: path.parent / file for name, file in places.items()}
                for file in set(files.values()):
                    with safe_open(file, framework="pt"):
                        pass
                return cls(files)
            with safe_open(path, framework="pt") as opened:
                return cls(dict.fromkeys(opened.keys(), path))
        except (OSError, SafetensorError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({str(error) or type(error).__name__})",
                hint="give what `framework export` wrote",
            ) from error

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every tensor."""
        with self.opened() as files:
            return {name: torch.Size(files[file].get_slice(name).get_shape()) for name, file in self.files.items()}

    def tensors(self) -> NamedTensors:
        """All tensors."""
        with self.opened() as files:
            return {name: files[file].get_tensor(name) for name, file in self.files.items()}

    @contextmanager
    def opened(self) -> Iterator[dict[Path, safe_open]]:
        """The files, open and mapped."""
        with ExitStack() as stack:
            yield {
                file: stack.enter_context(safe_open(file, framework="pt"))
                for file in dict.fromkeys(self.files.values())
            }


@torch.no_grad()
def fill_model(model: nn.Module, weights: WeightFiles, *, new: Collection[str] = ()) -> None:
    """Fills a model's parameters and saved buffers, each rank its own part where they are sharded.

    Args:
        model: what is filled.
        weights: of all its tensors.
        new: names of tensors that stay as they are where there are no weights for them.

    Raises:
        CheckpointError: names or shapes are not the model's.
    """
    saved = set(model.state_dict()) - (set(new) - weights.files.keys())
    targets = {n: t for n, t in [*model.named_parameters(), *model.named_buffers()] if n in saved}
    backends = {name: backend_of_tensor(target) for name, target in targets.items()}
    ours = {name: backends[name].whole_shape(target) for name, target in targets.items()}
    check_shapes(ours, weights.shapes(), "the weights are")
    with weights.opened() as files:
        for name, target in targets.items():
            backends[name].fill(target, _SavedTensor(file=files[weights.files[name]], name=name))


@dataclass(frozen=True, kw_only=True)
class _SavedTensor:
    """A tensor of an open safetensors file."""

    file: safe_open
    name: str

    def rows(self, first: int, end: int) -> Rows:
        return self.file.get_slice(self.name)[first:end]

    def whole(self) -> Whole:
        return self.file.get_tensor(self.name)


def check_shapes(ours: dict[str, torch.Size], theirs: dict[str, torch.Size], subject: str) -> None:
    """Whether tensors are a model's.

    Args:
        ours: the model's.
        theirs: what there is.
        subject: of the message, such as "the checkpoint is".

    Raises:
        CheckpointError: names what is missing, unknown or of another shape.
    """
    odd = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
    odd += [f"{name} is unknown" for name in theirs.keys() - ours.keys()]
    odd += [
        f"{name} is {tuple(theirs[name])} and not {tuple(ours[name])}"
        for name in ours.keys() & theirs.keys()
        if theirs[name] != ours[name]
    ]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise CheckpointError(f"{subject} of another model ({min(odd)}{more})", hint="use the model's own")
