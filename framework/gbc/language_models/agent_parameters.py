"""What gradient descent changes in how agents read: soft prompts, gates on messages (ours), and adapters.

A soft prompt (Lester et al. 2021, arXiv 2104.08691) follows an agent's prompt. A gate g stands between a message and
the agent that reads it: every token e of the message is read as m + g (e - m), m the mean of the vocabulary's
embeddings. At 1 the message is as it is; at 0 all its tokens are alike and say nothing. Adapters are those of
`lora.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from torch.nn import functional

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.gbc.graph.trace import Block
from framework.gbc.language_models.lora import Adapter
from framework.gbc.shapes import AdapterValues, Gate, SoftPrompt, floats

SoftPrompts = nn.ParameterDict | dict[str, Tensor]
"""By agent, `soft hidden`."""


class ParametersByAgent(nn.ParameterDict):
    """Parameters by agent; an agent may have a name that modules have for something else, such as `train`."""

    def _key_to_attr(self, key: str) -> str:
        return f"agent {key}"


_GATE = "gate of "


def gate_name(source: str, target: str) -> str:
    """The gate of a message from step `source` to step `target`; the rounds of a loop share theirs."""
    return f"{source.partition('@')[0]} to {target.partition('@')[0]}"


def soft_prompt_position(blocks: Sequence[Block]) -> int:
    """The input token that a soft prompt comes before: the one after the prompt."""
    return next((block.tokens[1] for block in blocks if block.kind == "prompt"), 0)


def message_gates(step: str, blocks: Sequence[Block], gates: Mapping[str, Gate]) -> list[tuple[Block, Gate]]:
    """The messages that a step reads through a gate, with their gates.

    Args:
        step: the step that reads.
        blocks: of its input.
        gates: by `gate_name`.
    """
    named = [(block, gate_name(block.source, step)) for block in blocks if block.kind == "message"]
    return [(block, gates[name]) for block, name in named if name in gates]


def gate_scale(gated: Sequence[tuple[Block, Gate]], length: int, device: torch.device) -> Float[Tensor, "token"]:
    """What the tokens of an input are scaled by: those of a message by its gate, the others by 1.

    Args:
        gated: messages with their gates, as `message_gates` gives them.
        length: of the input, in tokens.
        device: of the result.
    """
    scale = torch.ones(length, device=device)
    for block, gate in gated:
        inside = torch.zeros(length, device=device)
        inside[slice(*block.tokens)] = 1
        scale = scale + inside * (gate - 1)
    return scale


def apply_gates(
    embeddings: Float[Tensor, "token hidden"],
    scale: Float[Tensor, "token"],
    mean_embedding: Float[Tensor, "hidden"],
) -> Float[Tensor, "token hidden"]:
    """What is read of tokens behind gates: m + g (e - m).

    Args:
        embeddings: e, `token hidden`.
        scale: g of each token; 1 leaves it as it is.
        mean_embedding: m, the mean of the vocabulary's embeddings.
    """
    middle = mean_embedding.to(embeddings)
    return middle + scale[:, None].to(embeddings.dtype) * (embeddings - middle)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundParameters:
    """An agent's parameters bound to one input: where its soft prompt goes, what its gates scale, and its adapter.

    Attributes:
        agent: its name.
        position: input token that the soft prompt comes before.
        soft_prompt: its vectors; None for none.
        scale: of the input's tokens, by gates; None where no message has one.
        mean_embedding: what gates mix with; None where there are none.
        adapter: what the rows are passed with.
    """

    agent: str
    position: int
    soft_prompt: SoftPrompt | None = None
    scale: Float[Tensor, "token"] | None = None
    mean_embedding: Float[Tensor, "hidden"] | None = None
    adapter: Adapter | None = None

    @property
    def changes_embeddings(self) -> bool:
        """Whether `apply` gives others than it is given."""
        return self.soft_prompt is not None or self.scale is not None

    def apply(self, embeddings: Float[Tensor, "token hidden"], *, first: int = 0) -> Float[Tensor, "read hidden"]:
        """What is read in place of tokens from number `first` on, the output's included.

        The soft prompt is among them if the token before it is; at the very start, if token 0 is.
        """
        if self.scale is not None and self.mean_embedding is not None:
            scale = self.scale[first : first + len(embeddings)]
            scale = functional.pad(scale, (0, len(embeddings) - len(scale)), value=1.0)
            embeddings = apply_gates(embeddings, scale, self.mean_embedding)
        at = self.position - first
        if self.soft_prompt is None or not (0 < at <= len(embeddings) or self.position == first == 0):
            return embeddings
        return torch.cat([embeddings[:at], self.soft_prompt.to(embeddings), embeddings[at:]])

    def without(self, start: int, stop: int) -> "BoundParameters":
        """The same for the input without the tokens from `start` to `stop`, the latter excluded."""
        scale = None if self.scale is None else torch.cat([self.scale[:start], self.scale[stop:]])
        return replace(self, position=self.position - max(0, min(self.position, stop) - start), scale=scale)

    def prefix_key(self, stop: int) -> tuple[object, ...]:
        """Equal for inputs of one model whose first `stop` tokens, if equal, are read alike."""
        return self.agent, self.position, None if self.scale is None else tuple(floats(self.scale[:stop]))


@dataclass(frozen=True, kw_only=True)
class AgentParameters:
    """What gradient descent changes: soft prompts and adapters by agent, gates by `gate_name`."""

    soft: Mapping[str, SoftPrompt]
    gates: Mapping[str, Gate]
    adapters: Mapping[str, AdapterValues] = field(default_factory=dict[str, AdapterValues])

    @property
    def values(self) -> tuple[Float[Tensor, "..."], ...]:
        """Soft prompts, gates, adapters."""
        return *self.soft.values(), *self.gates.values(), *self.adapters.values()

    def with_values(self, values: Sequence[Float[Tensor, "..."]]) -> "AgentParameters":
        """Others in their places; further ones are ignored."""
        rest = iter(values)
        soft, gates, adapters = ({name: next(rest) for name in part} for part in (self.soft, self.gates, self.adapters))
        return AgentParameters(soft=soft, gates=gates, adapters=adapters)


def save_soft_prompts(path: str | Path, soft: Mapping[str, SoftPrompt], gates: Mapping[str, Gate]) -> None:
    """Writes soft prompts and gates as safetensors, a whole file or none; makes the folder.

    Args:
        path: of the file.
        soft: soft prompts by agent.
        gates: by `gate_name`.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {**soft, **{_GATE + name: gate for name, gate in gates.items()}}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as stream:
        stream.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def load_soft_prompts(path: str | Path, *, device: str, hidden_size: int) -> tuple[nn.ParameterDict, dict[str, Gate]]:
    """Soft prompts by agent, and gates by `gate_name`, of a file of `save_soft_prompts`.

    Args:
        path: of the file.
        device: of the tensors.
        hidden_size: of the model that reads them.

    Raises:
        ConfigError: no such file, or one of another model.
    """
    try:
        tensors = load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        problem = f"{path} holds no soft prompts ({error})"
        raise ConfigError(problem, hint="give a soft_prompts.safetensors of framework optimize") from None
    gates = {name.removeprefix(_GATE): tensors.pop(name) for name in list(tensors) if name.startswith(_GATE)}
    for agent, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape[1] != hidden_size:
            problem = f"{path}: {agent!r} has shape {list(tensor.shape)}, the model reads {hidden_size}"
            raise ConfigError(problem, hint="give the file that was trained with this model")
    soft = ParametersByAgent({name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()})
    return soft, gates
