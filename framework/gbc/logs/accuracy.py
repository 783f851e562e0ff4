"""Whether attribution names the labelled agent and step: exact and tolerant accuracy.

After Zhang et al. 2025 (arXiv 2505.00212), section 4.

Candidates are all messages of agents and tools; users and the task are none. The step that is named is the one with the
largest value, the agent the one whose steps' values add up to most; of equals, the one that comes first.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from framework.core.errors import ConfigError
from framework.gbc.attribution.results import Attribution
from framework.gbc.logs.baselines import BASELINES, Guess, step_number
from framework.gbc.logs.schema import Mistake
from framework.gbc.logs.surrogate import ReadLog

Method = Literal["own", "through", "walk"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who is named for a log.

    Attributes:
        agent: as the log calls it.
        step: number of the message.
    """

    agent: str
    step: int


def certain(said: Verdict) -> Guess:
    """A verdict as a guess."""
    return Guess(agents={said.agent: 1.0}, steps={said.step: 1.0})


def step_values(read: ReadLog, found: Attribution, by: Method) -> dict[int, float]:
    """The value of every candidate step by its message's number.

    `own`: credit that ends at the step, `through`: credit that passes through it, both in units of the loss; `walk`:
    share of the trajectories that pass through it.

    Args:
        read: the log.
        found: its attribution.
        by: what is measured.
    """
    numbers = {step.name: step_number(step.name) for step in read.trace.steps if step.kind != "user"}
    values = dict.fromkeys(numbers.values(), 0.0)
    if by == "through":
        values.update({numbers[each.step]: each.credit for each in found.messages if each.step in numbers})
    elif by == "own":
        fed = {edge.target for edge in found.edges if edge.kind != "output"}
        ends = [each for each in found.messages if each.step not in fed]
        for each in (*found.prompts, *ends):
            if each.step in numbers:
                values[numbers[each.step]] += each.credit
    else:
        total = sum(walk.weight for walk in found.trajectories)
        for walk in found.trajectories:
            for name in {name for name in walk.steps if name in numbers}:
                values[numbers[name]] += walk.weight / total if total > 0 else 1 / len(found.trajectories)
    return values


def verdict(read: ReadLog, found: Attribution, by: Method) -> Verdict:
    """Who is named by a method.

    Args:
        read: the log.
        found: its attribution.
        by: the method.
    """
    values = step_values(read, found, by)
    agents: dict[str, float] = defaultdict(float)
    for node in dict.fromkeys(step.node for step in read.trace.steps if step.kind != "user"):
        agents[read.names[node]] += getattr(found.credit_of(node), by)
    return Verdict(agent=max(agents, key=lambda name: agents[name]), step=max(values, key=lambda step: values[step]))


def same_agent(one: str, other: str) -> bool:
    """Whether two names differ in case, spaces and punctuation at most."""
    return _plain(one) == _plain(other)


class AttributionAccuracy(Metric):
    """Shares of labelled logs for which the right agent and step are named, summed over processes.

    `agent_accuracy` (the very name), `agent_accuracy_tolerant` (`same_agent`), `step_accuracy` (the very message),
    `step_accuracy_within_K` for each tolerance. Agents count where the label names one, steps where it gives one;
    labels that no candidate fits count as wrong. What is left out has no label.

    Args:
        tolerances: K, in messages to either side.
    """

    higher_is_better = True
    full_state_update = False
    agents: Float[Tensor, "2"]
    steps: Float[Tensor, "tolerance"]
    num_agents: Float[Tensor, "1"]
    num_steps: Float[Tensor, "1"]

    def __init__(self, tolerances: Sequence[int] = (1, 3), **options: object) -> None:
        super().__init__(**options)
        if any(each < 1 for each in tolerances):
            raise ConfigError(f"tolerances {list(tolerances)}", hint="use 1 message or more; exact is always shown")
        self.tolerances = (0, *tolerances)
        sizes = {"agents": 2, "steps": len(self.tolerances), "num_agents": 1, "num_steps": 1}
        for name, size in sizes.items():
            self.add_state(  # pyright: ignore[reportUnknownMemberType]
                name, default=torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, guesses: Sequence[Guess], labels: Sequence[Mistake]) -> None:
        """Counts logs."""
        for guess, label in zip(guesses, labels, strict=True):
            if label.agent is not None:
                exact = guess.agents.get(label.agent, 0.0)
                tolerant = sum(each for name, each in guess.agents.items() if same_agent(name, label.agent))
                self.agents += torch.tensor([exact, tolerant], dtype=torch.float64, device=self.device)
                self.num_agents += 1
            if label.step is not None:
                near = [
                    sum(each for step, each in guess.steps.items() if abs(step - label.step) <= within)
                    for within in self.tolerances
                ]
                self.steps += torch.tensor(near, dtype=torch.float64, device=self.device)
                self.num_steps += 1

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """The shares, in [0, 1], and the numbers of labels, `num_agent_labels` and `num_step_labels`."""
        names = [f"step_accuracy_within_{each}" if each else "step_accuracy" for each in self.tolerances]
        shares: dict[str, Float[Tensor, ""]] = {}
        if self.num_agents > 0:
            shares |= dict(
                zip(("agent_accuracy", "agent_accuracy_tolerant"), self.agents / self.num_agents, strict=True)
            )
        if self.num_steps > 0:
            shares |= dict(zip(names, self.steps / self.num_steps, strict=True))
        return {**shares, "num_agent_labels": self.num_agents[0], "num_step_labels": self.num_steps[0]}


def attribution_accuracy(
    reads: Sequence[ReadLog], found: Mapping[str, Sequence[Verdict]], tolerances: Sequence[int] = (1, 3)
) -> dict[str, dict[str, float]]:
    """The accuracies by method, and those of all `BASELINES`, over the logs with a label; empty if there is none.

    Args:
        reads: the logs.
        found: for each method a verdict for each log; those of logs without a label are not looked at.
        tolerances: as in `AttributionAccuracy`.
    """
    labelled = [index for index, read in enumerate(reads) if read.log.mistake is not None]
    labels = [label for read in reads if (label := read.log.mistake) is not None]
    if not labels:
        return {}
    guesses = {method: [certain(said[index]) for index in labelled] for method, said in found.items()}
    rows: dict[str, dict[str, float]] = {}
    guesses |= {name: [guess(reads[index]) for index in labelled] for name, guess in BASELINES.items()}
    for name, each in guesses.items():
        metric = AttributionAccuracy(tolerances)
        metric.update(each, labels)
        rows[name] = {key: value.item() for key, value in metric.compute().items()}
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
