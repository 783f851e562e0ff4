"""The parameters that gradient descent trains: soft prompts, gates, adapters; the gradients that reach them (ours)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.errors import ConfigError
from framework.core.param_tags import NO_DECAY, tag
from framework.core.serialization import JsonDict
from framework.gbc.graph.spec import Graph, UserTurn
from framework.gbc.graph.trace import Trace
from framework.gbc.language_models.agent_parameters import (
    AgentParameters,
    ParametersByAgent,
    gate_name,
    save_soft_prompts,
)
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.language_models.straight_through import Target, make_soft_prompts, straight_through_loss
from framework.gbc.shapes import AdapterValues, SoftPrompt
from framework.training.strategies.placement import Placement


@dataclass(frozen=True, kw_only=True)
class SoftConfig:
    """What is trained by gradient descent.

    Args:
        model: name of the local model whose agents are trained.
        target: the tasks' field with the right output, a text or texts by output node; or a function of a task that
            gives them: an import path, or class_path and init_args.
        num_tokens: length of each soft prompt; 0 for none.
        gates: train a gate for every message between nodes that an agent reads.
        adapters: train a LoRA adapter of each agent; needs peft.
        agents: those that are trained; by default all of the model.
        rollouts: what agents read of each other in a training step: what they say (`generated`), or the targets of
            those that have one (`targets`, teacher forcing): then nothing is generated for these, and the verbal loss
            of the step is that of the targets.
        through_prompts: adapters get gradients through the tokens of prompts, too; false reads each prompt once a step,
            for all tasks, and takes gradients through the rest alone: several times faster where prompts are long.
    """

    model: str
    target: str | JsonDict = "expected"
    num_tokens: int = 8
    gates: bool = False
    adapters: AdapterConfig | None = None
    agents: tuple[str, ...] = ()
    rollouts: Literal["generated", "targets"] = "generated"
    through_prompts: bool = True

    def __post_init__(self) -> None:
        others = self.gates or self.adapters is not None
        if self.num_tokens < 0 or (self.num_tokens == 0 and not others):
            problem = f"soft.num_tokens {self.num_tokens}{'' if others else ' without gates and adapters'}"
            raise ConfigError(problem, hint="use 1 or more, or set gates or adapters")

    def local_model(self, graph: Graph, models: Mapping[str, LanguageModel]) -> LocalModel:
        """The model that is trained.

        Raises:
            ConfigError: no such local model, or an agent of another.
        """
        model = models.get(self.model)
        if not isinstance(model, LocalModel):
            hint = "name a model with a `path` that the agents use"
            raise ConfigError(f"soft.model {self.model!r} is not a local model of the graph", hint=hint)
        own = [agent.name for agent in graph.agents if agent.model == self.model]
        for agent in self.agents:
            if agent not in own:
                hint = f"use {', '.join(own)}"
                raise ConfigError(
                    f"soft.agents names {agent!r}, which is not an agent of model {self.model!r}", hint=hint
                )
        return model


class AgentParametersModule(nn.Module):
    """Soft prompts, gates and adapters as one unit, in float32.

    Where none is trained it holds one number that nothing uses: trainers count the steps of an optimizer, which needs
    something to step.

    Args:
        first: the first values.
    """

    def __init__(self, first: AgentParameters) -> None:
        super().__init__()
        self.gate_names = tuple(first.gates)
        self.soft = _parameters(first.soft)
        self.gates = nn.Parameter(torch.stack([*first.gates.values()])) if first.gates else None
        self.adapters = _parameters(first.adapters)
        self.unused = None if first.values else nn.Parameter(torch.zeros(1))
        self.tag_parameters()

    def tag_parameters(self) -> None:
        """Marks them for the optimizer; sharding puts others in their places."""
        for parameter in self.parameters():
            tag(parameter, NO_DECAY)

    def forward(self) -> tuple[Float[Tensor, "..."], ...]:
        """The values as `AgentParameters.values` has them, or the unused number.

        They are copies: sharded ones outlive the pass.
        """
        gates = () if self.gates is None else self.gates
        unused = () if self.unused is None else (self.unused,)
        return tuple(value.clone() for value in (*self.soft.values(), *gates, *self.adapters.values(), *unused))

    def named(self, values: Sequence[Float[Tensor, "..."]]) -> AgentParameters:
        """What `forward` gives, by agents and gates."""
        gates = dict.fromkeys(self.gate_names, torch.ones(()))
        return AgentParameters(soft=dict(self.soft), gates=gates, adapters=dict(self.adapters)).with_values(values)


def _parameters(values: Mapping[str, Float[Tensor, "..."]]) -> ParametersByAgent:
    return ParametersByAgent({agent: nn.Parameter(value.detach().clone()) for agent, value in values.items()})


def make_parameters(
    graph: Graph, local: LocalModel | None, config: SoftConfig | None, placement: Placement, *, seed: int
) -> AgentParametersModule:
    """What a recipe trains; the first values are a function of the seed.

    Args:
        graph: whose agents are trained.
        local: their model.
        config: what is trained; with None nothing is.
        placement: of the trainer's strategy.
        seed: of soft prompts and adapters.

    Raises:
        ConfigError: adapters that the model cannot have, or that need peft.
    """
    module = AgentParametersModule(_first_values(graph, local, config, seed)).to(placement.device)
    if placement.shard is not None:
        placement.shard(module, (), False)
        module.tag_parameters()
    return module


def _first_values(graph: Graph, local: LocalModel | None, config: SoftConfig | None, seed: int) -> AgentParameters:
    if config is None or local is None:
        return AgentParameters(soft={}, gates={})
    agents = [a for a in graph.agents if a.model == config.model and (not config.agents or a.name in config.agents)]
    names = [agent.name for agent in agents]
    soft: Mapping[str, SoftPrompt] = {}
    if config.num_tokens:
        soft = dict(make_soft_prompts(local, names, num_tokens=config.num_tokens, seed=seed).items())
    adapters: Mapping[str, AdapterValues] = {}
    if config.adapters is not None:
        local.adapters.add(names, config.adapters)
        adapters = {name: local.adapters.init_values(name, seed=seed) for name in names}
    sources = [(node, agent.name) for agent in agents for node in agent.reads]
    gates = [gate_name(node, reader) for node, reader in sources if not isinstance(graph.nodes[node], UserTurn)]
    ones = {name: torch.ones(()) for name in gates} if config.gates else {}
    return AgentParameters(soft=soft, gates=ones, adapters=adapters)


def save_parameters(soft_prompts: Path, adapters: Path, agent_parameters: AgentParameters, local: LocalModel) -> None:
    """Writes what is trained; makes the folders. Raises OSError.

    Args:
        soft_prompts: file for soft prompts and gates, if there are any.
        adapters: folder that gets a folder of each agent's adapter.
        agent_parameters: the values.
        local: the model that they are of.
    """
    if agent_parameters.soft or agent_parameters.gates:
        save_soft_prompts(soft_prompts, agent_parameters.soft, agent_parameters.gates)
    local.adapters.write(adapters, agent_parameters.adapters)


@dataclass(frozen=True, kw_only=True)
class StraightThroughGradients:
    """The straight-through loss of traces, and its gradients.

    Attributes:
        value: weighted sum over the traces, in nats per token.
        connected_share: share of message tokens that gradients pass through, in [0, 1], mean over chunks.
        gradients: of the values that were given, in their order.
        num_traces: how many there were.
    """

    value: Float[Tensor, ""]
    connected_share: float
    num_traces: int
    gradients: tuple[Float[Tensor, "..."], ...]


def straight_through_gradients(
    local: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    weights: Sequence[float],
    *,
    agent_parameters: AgentParameters,
    at_once: int,
    through_prompts: bool = True,
) -> StraightThroughGradients:
    """The gradients of `straight_through_loss` with respect to the agents' parameters, in chunks of traces.

    They are taken here, and not in the trainer's backward pass: so that pass is alike on all processes, also on one
    whose episodes have all failed, and no more than a chunk is in memory.

    Args:
        local: the model that is trained.
        name: of it in the graph.
        traces: runs that did not fail.
        targets: the right output of each.
        weights: of each, in the sum.
        agent_parameters: values at which the gradients are taken.
        at_once: traces in a chunk, 1 or more.
        through_prompts: as of `straight_through_loss`.
    """
    leaves = [value.detach().requires_grad_() for value in agent_parameters.values]
    local.set_agent_parameters(agent_parameters.with_values(leaves))
    total = torch.zeros((), device=local.device)
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    connected: list[float] = []
    for start in range(0, len(traces), at_once):
        part = slice(start, start + at_once)
        found = straight_through_loss(
            local, name, traces[part], targets[part], weights[part], through_prompts=through_prompts
        )
        total += found.value.detach()
        connected.append(found.connected_share)
        if found.value.requires_grad:
            more = torch.autograd.grad(found.value, leaves, allow_unused=True, materialize_grads=True)
            gradients = [have + new for have, new in zip(gradients, more, strict=True)]
    return StraightThroughGradients(
        value=total,
        connected_share=sum(connected) / max(1, len(connected)),
        num_traces=len(traces),
        gradients=tuple(gradients),
    )


def with_gradients(
    value: Float[Tensor, ""], values: Sequence[Float[Tensor, "..."]], gradients: Sequence[Float[Tensor, "..."]]
) -> Float[Tensor, ""]:
    """A loss of a value that is known already and of gradients that are known already.

    Args:
        value: of the loss.
        values: parameters that `backward` reaches.
        gradients: of the loss with respect to each of them.
    """
    product = sum(((v * g.to(v)).sum() for v, g in zip(values, gradients, strict=True)), torch.zeros_like(value))
    return value + product - product.detach()
