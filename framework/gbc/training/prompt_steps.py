"""The search for prompts during training: its evidence is the errors of the batches since the last step (ours)."""

import json
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from framework.core.errors import CheckpointError, ConfigError
from framework.core.serialization import JsonDict, from_json, to_json
from framework.gbc.attribution.results import AgentCredit, Attribution, attribution_from_json, mean_credits
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.prompt_search.evidence import CreditKind, Evidence
from framework.gbc.prompt_search.search import PromptSearch, Proposer
from framework.gbc.prompt_search.state import OptimizerState, Trial


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How prompts are searched for.

    Args:
        proposer: `candidates` chooses among given prompts; `opro` lets a language model write them.
        every_n_steps: optimizer steps between proposals, 1 or more.
        candidates: YAML file with a list of prompts by agent, for `candidates`.
        writer: name of the model that writes, for `opro`; it may be one that no agent uses.
        by: the credit that agents are chosen by: of the walk, what ends at an agent, or what passes through it.
        num_held_out: episodes of `data.validation`, spread evenly over it, that decide what is kept.
        min_gain: a change is kept if it lowers the held-out loss by more than this.
        goal: held-out loss at which the search ends.
        failed_loss: value of a run that failed.
        max_examples: failures that a writing model is shown.
    """

    proposer: Literal["candidates", "opro"] = "candidates"
    every_n_steps: int = 1
    candidates: str | None = None
    writer: str | None = None
    by: CreditKind = "own"
    num_held_out: int = 32
    min_gain: float = 0.0
    goal: float = 0.0
    failed_loss: float = 1.0
    max_examples: int = 3

    def __post_init__(self) -> None:
        if min(self.every_n_steps, self.num_held_out) < 1 or self.max_examples < 0 or self.min_gain < 0:
            problem = (
                f"search.every_n_steps {self.every_n_steps}, num_held_out {self.num_held_out}, "
                f"max_examples {self.max_examples}, min_gain {self.min_gain}"
            )
            raise ConfigError(problem, hint="use 1 or more steps and episodes, and 0 or more of the others")
        needed = "candidates" if self.proposer == "candidates" else "writer"
        if getattr(self, needed) is None:
            raise ConfigError(f"search.proposer {self.proposer} without {needed}", hint=f"set search.{needed}")


@dataclass(frozen=True, kw_only=True)
class AttributedError:
    """A run with errors, and what they are attributed to.

    Attributes:
        place: of its task among those of all processes: sample, number in its episode.
        loss: its value.
        credits: of its nodes.
        example: trace, loss and attribution as JSON; empty where they are not needed.
    """

    place: tuple[int, int]
    loss: float
    credits: tuple[AgentCredit, ...]
    example: str = ""


def example_of(trace: Trace, loss: VerbalLoss, attribution: Attribution) -> str:
    """A run with errors as JSON, to be sent and saved.

    Args:
        trace: the run.
        loss: of it.
        attribution: of it.
    """
    return json.dumps([to_json(trace), to_json(loss), to_json(attribution)])


class SearchState(TypedDict):
    """`TrainingSearch` in a checkpoint."""

    state: JsonDict | None
    problems: int
    blamed: list[JsonDict]


class TrainingSearch(PromptSearch):
    """The search on every process: all of them try a change, each on its share of the held-out tasks.

    Args:
        graph: with the first prompts.
        proposer: asked on the first process alone.
        config: how.
        seed: of the choice of proposals.
        evaluate: the mean loss of a graph over the held-out tasks; all processes call it together.
        synchronized: context in which the proposer uses models.
        loss_drifts: the held-out loss changes between proposals, since something else is trained.
    """

    def __init__(
        self,
        graph: Graph,
        proposer: Proposer,
        config: SearchConfig,
        *,
        seed: int,
        evaluate: Callable[[Graph], float],
        synchronized: Callable[[], AbstractContextManager[None]],
        loss_drifts: bool = False,
    ) -> None:
        super().__init__(
            graph,
            proposer,
            seed=seed,
            evaluate=evaluate,
            evidence=self._evidence,
            min_gain=config.min_gain,
            goal=config.goal,
            synchronized=synchronized,
            loss_drifts=loss_drifts,
            skip_failed_proposals=True,
        )
        self.every_n_steps, self.max_examples = config.every_n_steps, config.max_examples
        self._errors: list[AttributedError] = []

    def note(self, errors: Sequence[AttributedError]) -> None:
        """Errors of a batch, of all processes, in the order of their places."""
        if self.finished:
            return
        examples = sum(bool(each.example) for each in self._errors)
        for each in errors:
            wanted = bool(each.example) and examples < self.max_examples
            examples += wanted
            self._errors.append(each if wanted else replace(each, example=""))

    def step(self, *, stop: Callable[[], bool] = lambda: False) -> tuple[Trial, ...]:
        """As `PromptSearch.step`; the errors that it rested on are forgotten."""
        trials = super().step(stop=stop)
        self._errors = []
        return trials

    def _evidence(self, graph: Graph, generator: random.Random) -> Evidence:
        parts = [json.loads(each.example) for each in self._errors if each.example]
        return Evidence(
            graph=graph,
            traces=tuple(from_json(Trace, part[0]) for part in parts),
            losses=tuple(from_json(VerbalLoss, part[1]) for part in parts),
            attributions=tuple(attribution_from_json(part[2]) for part in parts),
            credits=mean_credits([each.credits for each in self._errors], [each.loss for each in self._errors]),
        )

    def state_dict(self) -> SearchState:
        """Plain types: with the errors that the next proposal will rest on."""
        return {
            "state": None if self.state is None else to_json(self.state),
            "problems": self.num_failed_proposals,
            "blamed": [to_json(each) for each in self._errors],
        }

    def load_state_dict(self, state: SearchState) -> None:
        """The inverse of `state_dict`.

        Raises:
            CheckpointError: of another graph or seed.
        """
        found = None if state["state"] is None else from_json(OptimizerState, state["state"])
        if found is not None and (found.prompts.keys() != self.graph.prompts.keys() or found.seed != self.seed):
            hint = "use the graph and the seed of that run, or another --run.dir"
            raise CheckpointError("the checkpoint's search is of another graph or seed", hint=hint)
        self.state, self.num_failed_proposals = found, state["problems"]
        self._errors = [from_json(AttributedError, each) for each in state["blamed"]]
