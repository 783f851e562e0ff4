"""The parameters that gradient descent trains: soft prompts and gates, and the gradients that reach them (ours)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framework.errors import ConfigError
from framework.gbc.graph import Graph, UserTurn
from framework.gbc.models import LocalModel
from framework.gbc.run import LanguageModel
from framework.gbc.soft import Target, make_soft_prompts, soft_loss
from framework.gbc.steering import SoftPromptDict, gate_name
from framework.gbc.trace import Trace
from framework.tags import NO_DECAY, tag


@dataclass(frozen=True, kw_only=True)
class SoftConfig:
    """What is trained by gradient descent.

    Args:
        model: name of the local model whose agents are trained.
        target: the tasks' field with the right output, a text or texts by output node; or a function of a task that
            gives them: an import path, or class_path and init_args.
        num_tokens: length of each soft prompt; 0 for none.
        gates: train a gate for every message between nodes that an agent reads.
        agents: those that are trained; by default all of the model.
    """

    model: str
    target: str | dict[str, Any] = "expected"
    num_tokens: int = 8
    gates: bool = False
    agents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_tokens < 0 or (self.num_tokens == 0 and not self.gates):
            problem = f"soft.num_tokens {self.num_tokens}{'' if self.gates else ' without gates'}"
            raise ConfigError(problem, mend="use 1 or more, or set gates")

    def local_model(self, graph: Graph, models: Mapping[str, LanguageModel]) -> LocalModel:
        """The model that is trained.

        Raises:
            ConfigError: no such local model, or an agent of another.
        """
        model = models.get(self.model)
        if not isinstance(model, LocalModel):
            mend = "name a model with a `path` that the agents use"
            raise ConfigError(f"soft.model {self.model!r} is no local model of the graph", mend=mend)
        own = [agent.name for agent in graph.agents if agent.model == self.model]
        for agent in self.agents:
            if agent not in own:
                mend = f"use {', '.join(own)}"
                raise ConfigError(f"soft.agents names {agent!r}, no agent of model {self.model!r}", mend=mend)
        return model


class SteeringParameters(nn.Module):
    """Soft prompts and gates as one unit, in float32.

    Where neither is trained it holds one number that nothing uses: trainers count the steps of an optimizer, which
    needs something to step.

    Args:
        soft: first values by agent.
        gates: names of the gates, which begin at 1.
    """

    def __init__(self, soft: Mapping[str, Tensor], gates: Sequence[str]) -> None:
        super().__init__()
        self.gate_names = tuple(gates)
        self.soft = SoftPromptDict({agent: nn.Parameter(value.detach().clone()) for agent, value in soft.items()})
        self.gates = nn.Parameter(torch.ones(len(gates))) if gates else None
        self.unused = None if gates or soft else nn.Parameter(torch.zeros(1))
        self.tag_parameters()

    def tag_parameters(self) -> None:
        """Marks them for the optimizer; sharding puts others in their places."""
        for parameter in self.parameters():
            tag(parameter, NO_DECAY)

    def forward(self) -> tuple[Tensor, ...]:
        """The values: soft prompts, gates, or the unused number; copies, so that sharded ones outlive the pass."""
        gates = () if self.gates is None else tuple(gate.clone() for gate in self.gates)
        unused = () if self.unused is None else (self.unused.clone(),)
        return (*(value.clone() for value in self.soft.values()), *gates, *unused)

    def named(self, values: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of what `forward` gives, the soft prompts by agent and the gates by name."""
        soft = dict(zip(self.soft, values, strict=False))
        return soft, dict(zip(self.gate_names, values[len(soft) :], strict=False))


def make_parameters(
    graph: Graph, local: LocalModel | None, config: SoftConfig | None, *, seed: int
) -> SteeringParameters:
    """What a recipe trains; the first values are a function of the seed."""
    if config is None or local is None:
        return SteeringParameters({}, ())
    agents = [a for a in graph.agents if a.model == config.model and (not config.agents or a.name in config.agents)]
    soft: Mapping[str, Tensor] = {}
    if config.num_tokens:
        names = [agent.name for agent in agents]
        soft = dict(make_soft_prompts(local, names, num_tokens=config.num_tokens, seed=seed).items())
    sources = [(node, agent.name) for agent in agents for node in agent.reads]
    gates = [gate_name(node, reader) for node, reader in sources if not isinstance(graph.nodes[node], UserTurn)]
    return SteeringParameters(soft, gates if config.gates else ())


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The loss that flows through the graph, and where it got to.

    Attributes:
        value: weighted sum over the traces.
        flowing: share of message tokens that gradients pass, mean over chunks.
        gradients: of the values that were given, in their order: soft prompts, then gates.
        num_traces: how many there were.
    """

    value: Float[Tensor, ""]
    flowing: float
    num_traces: int
    gradients: tuple[Tensor, ...]


def flow_gradients(
    local: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    weights: Sequence[float],
    *,
    soft: Mapping[str, Tensor],
    gates: Mapping[str, Tensor],
    at_once: int,
) -> Flow:
    """The gradients of `soft_loss` with respect to soft prompts and gates, in chunks of traces.

    They are taken here, and not in the trainer's backward pass: so that pass is alike on all processes, also on one
    whose episodes have all failed, and no more than a chunk is in memory.
    """
    leaves = [value.detach().requires_grad_() for value in [*soft.values(), *gates.values()]]
    local.soft = dict(zip(soft, leaves, strict=False))
    local.gates = dict(zip(gates, leaves[len(soft) :], strict=True))
    total = torch.zeros((), device=local.device)
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    flowing = []
    for start in range(0, len(traces), at_once):
        part = slice(start, start + at_once)
        found = soft_loss(local, name, traces[part], targets[part], weights[part])
        total += found.value.detach()
        flowing.append(found.flowing)
        if found.value.requires_grad:
            more = torch.autograd.grad(found.value, leaves, allow_unused=True, materialize_grads=True)
            gradients = [have + new for have, new in zip(gradients, more, strict=True)]
    return Flow(
        value=total,
        flowing=sum(flowing) / max(1, len(flowing)),
        num_traces=len(traces),
        gradients=tuple(gradients),
    )


def with_gradients(
    value: Float[Tensor, ""], values: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """A loss of a value that is known already and of gradients that are known already."""
    product = sum(((v * g.to(v)).sum() for v, g in zip(values, gradients, strict=True)), torch.zeros_like(value))
    return value + product - product.detach()
