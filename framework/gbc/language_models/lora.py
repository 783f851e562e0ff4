"""LoRA adapters of agents that share a language model (Hu et al. 2021, arXiv 2106.09685), in the layers of peft.

A linear layer W that is a target gives W x + (alpha / rank) B A x, with an A and a B of each agent; a row of a batch
has those of its agent, or none. What peft keeps as parameters are plain tensors here, put in
from outside: the model's own parameters stay all that it has, frozen, whole or sharded, and gradients reach whatever
the values were made of. An agent's values are one vector: A, then B, layer by layer.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.devices import tensor_on
from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.random.seeding import seed_of
from framework.gbc.language_models.peft_compat import (
    CONFIG,
    KEY_PREFIX,
    PLAIN,
    ROW_NAMES,
    WEIGHTS,
    LoraLayers,
    LoraMatrix,
    PeftConfig,
    has_adapter,
    import_peft,
    is_plain_lora,
    lora_config,
    named_modules,
    read_config,
    take_matrices,
    update_of,
)
from framework.gbc.shapes import AdapterValues

GivenByLayer: TypeAlias = Float[Tensor, "batch ... _"]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """An adapter for each agent.

    Args:
        rank: of the update of a layer.
        alpha: the update is scaled by alpha / rank.
        targets: the ends of the names of linear layers, such as `q_proj`.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ConfigError(f"adapters of rank {self.rank}, alpha {self.alpha}", hint="use 1 or more")
        if not self.targets:
            raise ConfigError("adapters without targets", hint="name linear layers, such as q_proj and v_proj")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What a row of a batch is passed with: an agent's adapter, or the plain model beside others' adapters."""

    owner: "Adapters"
    name: str | None


class RowsByAdapter:
    """Which rows of a batch each adapter changes.

    Args:
        names: peft's name of each row's adapter; None for a row of the plain model.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        self.count = len(names)
        self.numbers: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if name is not None:
                self.numbers.setdefault(name, []).append(number)
        self._indices: dict[tuple[str, torch.device], Int[Tensor, " batch"]] = {}

    def indices(self, name: str, device: torch.device) -> Int[Tensor, " batch"]:
        """The rows of an adapter on a device, which they are brought to once, and nothing waits for it."""
        key = (name, device)
        if key not in self._indices:
            self._indices[key] = tensor_on(device, self.numbers[name])
        return self._indices[key]


@contextmanager
def active_adapters(adapters: Sequence[Adapter | None]) -> Generator[None, None, None]:
    """Within it the rows of a batch, all of one model, are passed with their adapters.

    A backward pass that runs layers again belongs into it, too.
    """
    owner = next((each.owner for each in adapters if each is not None), None)
    if owner is None:
        yield
        return
    kept, owner.rows = owner.rows, RowsByAdapter([None if each is None else each.name for each in adapters])
    try:
        yield
    finally:
        owner.rows = kept


class Adapters:
    """The adapters of a model's agents.

    Attributes:
        values: by agent, `parameter`; those that are in place.
        rows: that are passed now, by their adapters; None for the plain model.

    Args:
        model: gets peft's layers in the places of its targets with the first adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.values: dict[str, AdapterValues] = {}
        self.rows: RowsByAdapter | None = None
        self._configs: dict[str, PeftConfig] = {}
        self._names: dict[str, str] = {}
        self._matrices: dict[str, list[LoraMatrix]] = {}
        self._layers = LoraLayers(model)
        self._hooked: set[str] = set()

    def of(self, agent: str) -> Adapter | None:
        """What an agent's rows are passed with; None where no agent of the model has an adapter."""
        if not self.values:
            return None
        return Adapter(owner=self, name=self._names[agent] if agent in self.values else None)

    def add(self, agents: Iterable[str], config: AdapterConfig) -> None:
        """Makes room for adapters of agents; they are used once they have values.

        Raises:
            ConfigError: peft is missing, or the model has no such targets.
        """
        import_peft()
        # A layer that is a target already is inside of peft's.
        modules = named_modules(self.model)
        linear = {
            name.removesuffix(".base_layer")
            for name, module in modules.items()
            if isinstance(module, nn.Linear) and ".lora_" not in name
        }
        for target in config.targets:
            if not any(f".{name}".endswith(f".{target}") for name in linear):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
                problem = f"adapters.targets names {target!r}, which is not a linear layer of the model"
                raise ConfigError(problem, hint=f"use some of {known}")
        for agent in agents:
            made = lora_config(self.model, rank=config.rank, alpha=config.alpha, targets=config.targets)
            self._add(agent, made)

    def init_values(self, agent: str, *, seed: int) -> AdapterValues:
        """First values, in float32: A at random, uniform up to 1 / sqrt(inputs) as peft's, and B zero: no update."""
        generator = torch.Generator().manual_seed(seed_of("adapter", seed, agent))
        parts: list[AdapterValues] = []
        for matrix in self._matrices[agent]:
            value = torch.zeros(matrix.shape, device="cpu")
            if matrix.key.endswith("lora_A"):
                value.uniform_(-1, 1, generator=generator).div_(matrix.shape[1] ** 0.5)
            parts.append(value.flatten())
        return torch.cat(parts).to(self.model.device)

    def assign(self, values: Mapping[str, AdapterValues]) -> None:
        """Adapters of agents that were added, in place of all that are there."""
        for agent, value in values.items():
            for matrix, part in zip(self._matrices[agent], self._split(agent, value), strict=True):
                matrix.module.weight = part
        self.values = dict(values)

    def write(self, folder: str | Path, values: Mapping[str, AdapterValues]) -> None:
        """Writes FOLDER/AGENT/ in peft's format, whole files. Raises OSError."""
        for agent, value in values.items():
            place = Path(folder) / agent
            place.mkdir(parents=True, exist_ok=True)
            parts = [part.detach().cpu().contiguous() for part in self._split(agent, value)]
            keys = [f"{KEY_PREFIX}{matrix.key}.weight" for matrix in self._matrices[agent]]
            config = {**self._configs[agent].to_dict(), "inference_mode": True}
            with atomic_write(place / CONFIG) as stream:
                stream.write(json.dumps(config, indent=2, sort_keys=True, default=sorted).encode())
            with atomic_write(place / WEIGHTS) as stream:
                stream.write(save(dict(zip(keys, parts, strict=True)), metadata={"format": "pt"}))

    def read(self, folder: str | Path) -> None:
        """Puts the adapters of FOLDER/AGENT/ in place, those of `write` or plain LoRA of peft's.

        Raises:
            ConfigError: peft is missing, no adapters there, or some that this model cannot use.
        """
        values: dict[str, AdapterValues] = {}
        for place in sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG}")):
            try:
                self._add(place.name, read_config(str(place)))
                tensors = load_file(place / WEIGHTS, device=str(self.model.device))
            except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
                reason = str(error).strip().partition("\n")[0]
                hint = "give a folder with adapters of this model, as peft writes them"
                raise ConfigError(f"{place} holds no usable adapter ({reason})", hint=hint) from error
            found = {key: tuple(value.shape) for key, value in tensors.items()}
            keys = {f"{KEY_PREFIX}{each.key}.weight": tuple(each.shape) for each in self._matrices[place.name]}
            if found != keys:
                differing = min(key for key in {*found, *keys} if found.get(key) != keys.get(key))
                problem = f"{place / WEIGHTS}: {differing} has shape {found.get(differing)}, not {keys.get(differing)}"
                raise ConfigError(problem, hint="give plain LoRA that was trained with this model")
            values[place.name] = torch.cat([tensors[key].float().flatten() for key in keys])
        if not values:
            hint = "give a folder with a folder of each agent, as a training writes into best/adapters"
            raise ConfigError(f"{folder} holds no adapters", hint=hint)
        self.assign(values)

    def _add(self, agent: str, config: PeftConfig) -> None:
        """Peft's layers for one more agent, without values. Raises ConfigError and what peft raises."""
        if not is_plain_lora(config):
            kind, layers = (getattr(config, name, None) for name in ("init_lora_weights", "layer_replication"))
            problem = (
                f"the adapter of {agent!r} is {config.peft_type}, init_lora_weights {kind}, layer_replication {layers}"
            )
            raise ConfigError(problem, hint="give plain LoRA, beside which the model stays as it is")
        name = self._layers.add(config)
        self.model.eval()
        matrices: list[LoraMatrix] = []
        for key, layer in self._layers.of(name):
            matrices += take_matrices(key, layer, name)
            if key not in self._hooked:
                layer.register_forward_pre_hook(_as_plain, with_kwargs=True)
                layer.register_forward_hook(self._add_updates)
                self._hooked.add(key)
        self._configs[agent], self._names[agent], self._matrices[agent] = config, name, matrices

    def _split(self, agent: str, value: AdapterValues) -> Iterator[Float[Tensor, "_ _"]]:
        matrices = self._matrices[agent]
        sizes = [each.shape.numel() for each in matrices]
        for matrix, part in zip(matrices, torch.split(value, sizes), strict=True):
            yield part.view(matrix.shape)

    def _add_updates(
        self, layer: nn.Module, inputs: tuple[Float[Tensor, "batch ... _"], ...], given: GivenByLayer
    ) -> GivenByLayer:
        """Adds what the adapters of the rows add to what the plain layer gives."""
        rows, (read, *_) = self.rows, inputs
        if rows is None:
            return given
        if len(read) != rows.count:
            problem = f"a layer that adapters change is passed {len(read)} rows for {rows.count} texts"
            raise ConfigError(problem, hint="name other layers in adapters.targets")
        for name, numbers in rows.numbers.items():
            if not has_adapter(layer, name):
                continue
            if len(numbers) == rows.count:
                return given + update_of(layer, name, read).to(given.dtype)
            index = rows.indices(name, read.device)
            update = update_of(layer, name, read.index_select(0, index))
            given = given.index_add(0, index, update.to(given.dtype))
        return given


def _as_plain(
    _: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, object]
) -> tuple[tuple[Tensor, ...], dict[str, object]]:
    """Peft adds nothing by itself."""
    return inputs, {**named, ROW_NAMES: [PLAIN] * len(inputs[0])}
