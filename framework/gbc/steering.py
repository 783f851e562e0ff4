"""What gradient descent changes in what agents read: soft prompts, and gates on messages (ours).

A soft prompt (Lester et al. 2021, arXiv 2104.08691) follows an agent's prompt. A gate g stands between a message and
its reader: every token e of the message is read as m + g (e - m), m the mean of the vocabulary's embeddings. At 1 the
message is as it is; at 0 all its tokens are alike and say nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from framework.errors import ConfigError
from framework.files import written_whole
from framework.gbc.trace import Block

SoftPrompts = nn.ParameterDict | dict[str, Tensor]
"""By agent, `token hidden`."""


class SoftPromptDict(nn.ParameterDict):
    """Soft prompts as parameters; an agent may have a name that modules have for something else, such as `train`."""

    def _key_to_attr(self, key: str) -> str:
        return f"agent {key}"


_GATE = "gate of "


def gate_name(source: str, reader: str) -> str:
    """The gate of a message; the steps of a loop's rounds share theirs."""
    return f"{source.partition('@')[0]} to {reader.partition('@')[0]}"


def soft_place(blocks: Sequence[Block]) -> int:
    """The input token that a soft prompt comes before: the one after the prompt."""
    return next((block.tokens[1] for block in blocks if block.kind == "prompt"), 0)


def gates_of(step: str, blocks: Sequence[Block], gates: Mapping[str, Tensor]) -> list[tuple[Block, Tensor]]:
    """The messages that a step reads through a gate, with the gates."""
    named = [(block, gate_name(block.source, step)) for block in blocks if block.kind == "message"]
    return [(block, gates[name]) for block, name in named if name in gates]


def through_gates(
    embeddings: Float[Tensor, "token hidden"],
    gated: Sequence[tuple[Block, Tensor]],
    neutral: Float[Tensor, "hidden"],
) -> Float[Tensor, "token hidden"]:
    """What is read of an input whose messages have gates.

    Args:
        embeddings: of the input.
        gated: messages and their gates, one value each.
        neutral: the mean of the vocabulary's embeddings.
    """
    scale = torch.ones(len(embeddings), device=embeddings.device)
    for block, gate in gated:
        inside = torch.zeros(len(embeddings), device=embeddings.device)
        inside[slice(*block.tokens)] = 1
        scale = scale + inside * (gate - 1)
    middle = neutral.to(embeddings.dtype)
    return middle + scale[:, None].to(embeddings.dtype) * (embeddings - middle)


def with_soft_prompt(
    embeddings: Float[Tensor, "token hidden"], soft: Float[Tensor, "soft hidden"] | None, blocks: Sequence[Block]
) -> Float[Tensor, "read hidden"]:
    """The input with the soft prompt in its place."""
    place = soft_place(blocks)
    if soft is None:
        return embeddings
    return torch.cat([embeddings[:place], soft.to(embeddings.dtype), embeddings[place:]])


def write_steering(path: str | Path, soft: Mapping[str, Tensor], gates: Mapping[str, Tensor]) -> None:
    """Writes soft prompts and gates, a whole file or none; makes the folder. Raises OSError."""
    tensors = {**soft, **{_GATE + name: gate for name, gate in gates.items()}}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written_whole(Path(path)) as stream:
        stream.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def read_steering(path: str | Path, *, device: str, hidden_size: int) -> tuple[nn.ParameterDict, dict[str, Tensor]]:
    """Soft prompts by agent, and gates by `gate_name`, of a file of `write_steering`.

    Raises:
        ConfigError: no such file, or one of another model.
    """
    try:
        tensors = load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        problem = f"{path} holds no soft prompts ({error})"
        raise ConfigError(problem, mend="give a soft_prompts.safetensors of framework optimize") from None
    gates = {name.removeprefix(_GATE): tensors.pop(name) for name in list(tensors) if name.startswith(_GATE)}
    for agent, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape[1] != hidden_size:
            problem = f"{path}: {agent!r} has shape {list(tensor.shape)}, the model reads {hidden_size}"
            raise ConfigError(problem, mend="give the file that was trained with this model")
    soft = SoftPromptDict({name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()})
    return soft, gates
