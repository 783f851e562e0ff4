"""LoRA adapters of agents that share a language model (Hu et al. 2021, arXiv 2106.09685), in the layers of peft.

A linear layer W that is a target gives W x + (alpha / rank) B A x, with an A and a B of each agent; a row of a batch
has those of its agent, or none (peft's mixed batches). What peft keeps as parameters are plain tensors here, put in
from outside: the model's own parameters stay all that it has, frozen, whole or sharded, and gradients reach whatever
the values were made of. An agent's values are one vector: A, then B, layer by layer.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.seeding import seed_of

INSTALL = 'pip install "framework[adapters]"'
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter, as peft calls them."""
_PREFIX = "base_model.model."
"""Of the names in a file of peft's."""
_BASE = "__base__"
"""What peft calls a row without an adapter."""


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
    name: str


@contextmanager
def reading(adapters: Sequence[Adapter | None]) -> Iterator[None]:
    """Within it the rows of a batch, all of one model, are passed with their adapters.

    A backward pass that runs layers again belongs into it, too.
    """
    owner = next((each.owner for each in adapters if each is not None), None)
    if owner is None:
        yield
        return
    kept, owner.rows = owner.rows, [_BASE if each is None else each.name for each in adapters]
    try:
        yield
    finally:
        owner.rows = kept


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """An A or a B of an agent; `key` is its name in the model, `module` peft's layer that uses it."""

    key: str
    module: nn.Module
    shape: torch.Size


class Adapters:
    """The adapters of a model's agents.

    Attributes:
        values: by agent, `number`; those that are in place.
        rows: peft's names of the adapters of the rows that are passed now; None for the plain model.

    Args:
        model: gets peft's layers in the places of its targets with the first adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.values: dict[str, Tensor] = {}
        self.rows: list[str] | None = None
        self._configs: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._matrices: dict[str, list[_Matrix]] = {}
        self._tuner: Any = None

    def of(self, agent: str) -> Adapter | None:
        """What an agent's rows are passed with; None where no agent of the model has an adapter."""
        if not self.values:
            return None
        return Adapter(owner=self, name=self._names[agent] if agent in self.values else _BASE)

    def add(self, agents: Iterable[str], config: AdapterConfig) -> None:
        """Makes place for adapters of agents; they are used once they have values.

        Raises:
            ConfigError: peft is missing, or the model has no such targets.
        """
        peft = _import_peft()
        # A layer that is a target already is inside of peft's.
        linear = {
            name.removesuffix(".base_layer")
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and ".lora_" not in name
        }
        for target in config.targets:
            if not any(f".{name}".endswith(f".{target}") for name in linear):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
                problem = f"adapters.targets names {target!r}, which is no linear layer of the model"
                raise ConfigError(problem, hint=f"use some of {known}")
        for agent in agents:
            made = peft.LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                target_modules=list(config.targets),
                task_type="CAUSAL_LM",
                base_model_name_or_path=str(self.model.name_or_path),
            )
            self._add(agent, made)

    def initial(self, agent: str, *, seed: int) -> Float[Tensor, "number"]:
        """First values, in float32: A at random, uniform up to 1 / sqrt(inputs) as peft's, and B zero: no update."""
        generator = torch.Generator().manual_seed(seed_of("adapter", seed, agent))
        parts = []
        for matrix in self._matrices[agent]:
            value = torch.zeros(matrix.shape)
            if matrix.key.endswith("lora_A"):
                value.uniform_(-1, 1, generator=generator).div_(matrix.shape[1] ** 0.5)
            parts.append(value.flatten())
        return torch.cat(parts).to(self.model.device)

    def put(self, values: Mapping[str, Float[Tensor, "_"]]) -> None:
        """Adapters of agents that were added, in place of all that are there."""
        for agent, value in values.items():
            for matrix, part in zip(self._matrices[agent], self._split(agent, value), strict=True):
                matrix.module.weight = part
        self.values = dict(values)

    def write(self, folder: str | Path, values: Mapping[str, Float[Tensor, "_"]]) -> None:
        """Writes FOLDER/AGENT/ in peft's format, whole files. Raises OSError."""
        for agent, value in values.items():
            place = Path(folder) / agent
            place.mkdir(parents=True, exist_ok=True)
            parts = [part.detach().cpu().contiguous() for part in self._split(agent, value)]
            keys = [f"{_PREFIX}{matrix.key}.weight" for matrix in self._matrices[agent]]
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
        values = {}
        for place in sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG}")):
            try:
                self._add(place.name, _import_peft().PeftConfig.from_pretrained(str(place)))
                tensors = load_file(place / WEIGHTS, device=str(self.model.device))
            except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
                reason = str(error).strip().partition("\n")[0]
                hint = "give a folder with adapters of this model, as peft writes them"
                raise ConfigError(f"{place} holds no usable adapter ({reason})", hint=hint) from error
            found = {key: tuple(value.shape) for key, value in tensors.items()}
            keys = {f"{_PREFIX}{each.key}.weight": tuple(each.shape) for each in self._matrices[place.name]}
            if found != keys:
                differing = min(key for key in {*found, *keys} if found.get(key) != keys.get(key))
                problem = f"{place / WEIGHTS}: {differing} has shape {found.get(differing)}, not {keys.get(differing)}"
                raise ConfigError(problem, hint="give plain LoRA that was trained with this model")
            values[place.name] = torch.cat([tensors[key].float().flatten() for key in keys])
        if not values:
            hint = "give a folder with a folder of each agent, as a training writes into best/adapters"
            raise ConfigError(f"{folder} holds no adapters", hint=hint)
        self.put(values)

    def _add(self, agent: str, config: Any) -> None:
        """Peft's layers for one more agent, without values. Raises ConfigError and what peft raises."""
        peft = _import_peft()
        from peft.tuners.lora import LoraLayer

        # Some first values are taken out of the layers' own weights, and replicated layers are others for all agents.
        kind, layers = (getattr(config, name, None) for name in ("init_lora_weights", "layer_replication"))
        if not isinstance(config, peft.LoraConfig) or layers or (isinstance(kind, str) and kind != "gaussian"):
            problem = (
                f"the adapter of {agent!r} is {config.peft_type}, init_lora_weights {kind}, layer_replication {layers}"
            )
            raise ConfigError(problem, hint="give plain LoRA, beside which the model stays as it is")
        # Not the agent's own: a module may not be called as an attribute of modules is.
        name = f"adapter{0 if self._tuner is None else len(self._tuner.peft_config)}"
        # Empty ones: their values come from outside.
        if self._tuner is None:
            self._tuner = peft.LoraModel(self.model, {name: config}, name, low_cpu_mem_usage=True)
        else:
            self._tuner.peft_config[name] = config
            self._tuner.inject_adapter(self.model, name, low_cpu_mem_usage=True)
        self.model.eval()
        matrices = []
        found: Any = [each for each in self.model.named_modules() if isinstance(each[1], LoraLayer)]
        for key, layer in found:
            if name not in layer.lora_A:
                continue
            base = layer.get_base_layer()
            if not isinstance(base, nn.Linear) or name in layer.lora_variant:
                raise ConfigError(f"the adapter of {agent!r} at {key} is no plain LoRA", hint="use linear layers")
            if not any(hook == self._hand_names for hook in layer._forward_pre_hooks.values()):
                layer.register_forward_pre_hook(self._hand_names, with_kwargs=True)
            rank = layer.r[name]
            # Not by peft's own matrices: of a sharded weight it may take the part for the whole.
            shapes = {"lora_A": (rank, base.in_features), "lora_B": (base.out_features, rank)}
            for kind, shape in shapes.items():
                module = getattr(layer, kind)[name]
                matrices.append(_Matrix(key=f"{key}.{kind}", module=module, shape=torch.Size(shape)))
                del module.weight
        self._configs[agent], self._names[agent], self._matrices[agent] = config, name, matrices

    def _split(self, agent: str, value: Float[Tensor, "_"]) -> Iterator[Tensor]:
        matrices = self._matrices[agent]
        for matrix, part in zip(matrices, value.split([each.shape.numel() for each in matrices]), strict=True):
            yield part.view(matrix.shape)

    def _hand_names(self, layer: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        count = len(inputs[0])
        rows = [_BASE] * count if self.rows is None else self.rows
        if len(rows) != count:
            problem = f"a layer that adapters change is passed {count} rows for {len(rows)} texts"
            raise ConfigError(problem, hint="name other layers in adapters.targets")
        return inputs, {**named, "adapter_names": rows}


def _import_peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft", hint=f"install it with: {INSTALL}") from error
    return peft
