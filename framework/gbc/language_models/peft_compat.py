"""The parts of peft that its documentation does not promise, in one place; peft is imported when it is needed.

`tests/gbc/language_models/test_peft_compat.py` says which of them moved when a new version moves one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.errors import ConfigError

INSTALL = 'pip install "framework[adapters]"'
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter."""
KEY_PREFIX = "base_model.model."
"""Of the names in a file of weights."""
PLAIN = "__base__"
"""The name of a row that is passed without an adapter."""
ROW_NAMES = "adapter_names"
"""The argument of a LoRA layer's forward pass that has an adapter's name for each row of the batch."""


@runtime_checkable
class PeftConfig(Protocol):
    """What we read of peft's configs."""

    peft_type: object

    def to_dict(self) -> dict[str, object]:
        """What its file has."""
        ...


class _Tuner(Protocol):
    peft_config: dict[str, PeftConfig]

    def inject_adapter(self, model: nn.Module, adapter_name: str, *, low_cpu_mem_usage: bool) -> None: ...


class _Layer(Protocol):
    r: Mapping[str, int]
    lora_A: Mapping[str, nn.Module]
    lora_B: Mapping[str, nn.Module]
    lora_variant: Collection[str]
    scaling: Mapping[str, float]

    def get_base_layer(self) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class LoraMatrix:
    """An A or a B of an adapter, without values.

    Attributes:
        key: its name in the model, such as `model.layers.0.self_attn.q_proj.lora_A`.
        module: peft's layer that uses it as its `weight`.
        shape: of the matrix.
    """

    key: str
    module: nn.Module
    shape: torch.Size


def import_peft() -> ModuleType:
    """The package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft", hint=f"install it with: {INSTALL}") from error
    return peft


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model by their names."""
    return dict(cast(Iterable[tuple[str, nn.Module]], model.named_modules()))


def lora_config(model: PreTrainedModel, *, rank: int, alpha: int, targets: Sequence[str]) -> PeftConfig:
    """The `LoraConfig` of an adapter for a causal language model.

    Args:
        model: that the adapter belongs to.
        rank: of the update of a layer.
        alpha: the update is scaled by alpha / rank.
        targets: the ends of the names of linear layers.

    Raises:
        ConfigError: peft is not installed.
    """
    return import_peft().LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(model.name_or_path),
    )


def read_config(folder: str) -> PeftConfig:
    """The config of an adapter in a folder; raises what peft raises."""
    return import_peft().PeftConfig.from_pretrained(folder)


def is_plain_lora(config: PeftConfig) -> bool:
    """Whether the model stays as it is beside an adapter of this config.

    Some first values are taken out of the layers' own weights, and replicated layers are others for all agents.
    """
    kind, layers = (getattr(config, name, None) for name in ("init_lora_weights", "layer_replication"))
    other_init = isinstance(kind, str) and kind != "gaussian"
    return isinstance(config, import_peft().LoraConfig) and not layers and not other_init


class LoraLayers:
    """Peft's layers in the places of a model's linear ones; the model itself stays the module that it is.

    Args:
        model: gets the layers with the first adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._tuner: _Tuner | None = None

    def add(self, config: PeftConfig) -> str:
        """Makes room for one more adapter, without values; returns peft's name of it. Raises what peft raises."""
        # Not the agent's own: a module may not be called as an attribute of modules is.
        name = f"adapter{0 if self._tuner is None else len(self._tuner.peft_config)}"
        # Empty ones: their values come from outside.
        if self._tuner is None:
            self._tuner = import_peft().LoraModel(self.model, {name: config}, name, low_cpu_mem_usage=True)
        else:
            self._tuner.peft_config[name] = config
            self._tuner.inject_adapter(self.model, name, low_cpu_mem_usage=True)
        return name

    def of(self, name: str) -> list[tuple[str, nn.Module]]:
        """The layers that an adapter changes, with their names in the model."""
        from peft.tuners.lora import LoraLayer

        modules = named_modules(self.model)
        layers = [(key, each) for key, each in modules.items() if isinstance(each, LoraLayer)]
        return [(key, layer) for key, layer in layers if has_adapter(layer, name)]


def take_matrices(key: str, layer: nn.Module, name: str) -> list[LoraMatrix]:
    """A and B of an adapter in a layer; their own parameters are removed.

    Args:
        key: the layer's name in the model.
        layer: one of `LoraLayers.of`.
        name: the adapter's.

    Raises:
        ConfigError: a layer that is not a linear one, or a variant of LoRA such as DoRA.
    """
    its = cast(_Layer, layer)
    base = its.get_base_layer()
    if not isinstance(base, nn.Linear) or name in its.lora_variant:
        raise ConfigError(f"the adapter at {key} is not plain LoRA", hint="use linear layers")
    rank = its.r[name]
    # Not by peft's own matrices: of a sharded weight it may take the part for the whole.
    shapes = {"lora_A": (rank, base.in_features), "lora_B": (base.out_features, rank)}
    modules = {"lora_A": its.lora_A, "lora_B": its.lora_B}
    found: list[LoraMatrix] = []
    for kind, shape in shapes.items():
        module = modules[kind][name]
        found.append(LoraMatrix(key=f"{key}.{kind}", module=module, shape=torch.Size(shape)))
        del module.weight
    return found


def has_adapter(layer: nn.Module, name: str) -> bool:
    """Whether an adapter changes a layer."""
    return name in cast(_Layer, layer).lora_A


def update_of(layer: nn.Module, name: str, read: Float[Tensor, "batch ... _"]) -> Float[Tensor, "batch ... _"]:
    """What an adapter adds to what a layer gives: alpha / rank B A x.

    Peft's own mixed batches pick rows by lists, and a GPU waits for each of these.

    Args:
        layer: one of `LoraLayers.of`.
        name: the adapter's.
        read: rows of this adapter.
    """
    its = cast(_Layer, layer)
    a, b = its.lora_A[name], its.lora_B[name]
    return b(a(read.to(cast(Tensor, a.weight).dtype))) * its.scaling[name]
