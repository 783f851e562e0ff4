"""Prompts that are changed in steps: proposed once, tried by all processes, kept where they help (ours).

Everything here is a function of what all processes have seen together, in the order of the samples: so the number of
processes changes nothing. A search that is killed between a proposal and its decision makes both again.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

from framework.core.collectives import broadcast_object, rank_and_size
from framework.core.errors import CheckpointError, ConfigError, FrameworkError
from framework.core.serialization import from_json, to_json
from framework.gbc.attribution.results import AgentCredit, Attribution
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.prompt_search.search import Blame, Evidence, Proposer
from framework.gbc.prompt_search.state import OptimizerState, Trial


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How prompts are searched for.

    Args:
        proposer: `candidates` chooses among given prompts; `opro` lets a language model write them.
        every_n_steps: optimizer steps between proposals.
        candidates: YAML file with a list of prompts by agent, for `candidates`.
        writer: name of the model that writes, for `opro`; it may be one that no agent uses.
        by: the credit that blames: of the walk, what ends at an agent, or what passes through it.
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
    by: Blame = "own"
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
    """A run with errors, and who is to blame for them.

    Attributes:
        place: of its task among those of all processes.
        loss: its value.
        credits: of its nodes.
        example: trace, loss and attribution as JSON; empty where they are not needed.
    """

    place: tuple[int, int]
    loss: float
    credits: tuple[AgentCredit, ...]
    example: str = ""


def example_of(trace: Trace, loss: VerbalLoss, attribution: Attribution) -> str:
    """A run with errors as JSON, to be sent and saved."""
    return json.dumps([to_json(trace), to_json(loss), to_json(attribution)])


class PromptSearch:
    """The search, on every process.

    Attributes:
        state: what was tried, and the best prompts; None before the first proposal.
        problems: proposals that came to nothing because their model failed.
        loss_before: held-out loss of the prompts that the last update began with; None before the first.

    Args:
        graph: with the first prompts.
        proposer: asked on the first process alone.
        config: how.
        seed: of the choice of proposals.
        evaluate: the mean loss of a graph over the held-out tasks; all processes call it together.
        together: what the proposer's use of models stands in.
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
        together: Callable[[], AbstractContextManager[None]],
        loss_drifts: bool = False,
    ) -> None:
        self.graph, self.proposer, self.config, self.seed = graph, proposer, config, seed
        self.evaluate, self.together, self.loss_drifts = evaluate, together, loss_drifts
        self.state: OptimizerState | None = None
        self.problems = 0
        self.loss_before: float | None = None
        self._blamed: list[AttributedError] = []

    @property
    def prompts(self) -> dict[str, str]:
        """The best so far."""
        return self.graph.prompts if self.state is None else self.state.prompts

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to try, or the goal is reached."""
        return self.state is not None and self.state.finished

    def note(self, blamed: Sequence[AttributedError]) -> None:
        """Errors of a batch, of all processes, in the order of their places."""
        if self.finished:
            return
        examples = sum(bool(each.example) for each in self._blamed)
        for each in blamed:
            wanted = bool(each.example) and examples < self.config.max_examples
            examples += wanted
            self._blamed.append(each if wanted else replace(each, example=""))

    def update(self, *, stop: Callable[[], bool]) -> tuple[Trial, ...]:
        """Proposes, tries and decides; gives the new trials.

        Args:
            stop: whether no further trial may begin.
        """
        state = self._start()
        self.loss_before = state.loss
        evidence, self._blamed = self._evidence(state), []
        if state.finished or state.loss <= self.config.goal or self.proposer.is_done(state, self.graph):
            self.state = replace(state, finished=True)
            return ()
        before = len(state.trials)
        for changes in self._propose(state, evidence):
            if stop():
                break
            found = self.evaluate(self.graph.with_prompts({**state.prompts, **changes}))
            # Decided once: processes whose arithmetic differs in the last bit must not part.
            kept = broadcast_object(found < state.loss - self.config.min_gain)
            state = replace(
                state,
                prompts={**state.prompts, **changes} if kept else state.prompts,
                loss=found if kept else state.loss,
                evaluations=state.evaluations + 1,
                trials=(*state.trials, Trial(step=state.step, changes=dict(changes), loss=found, kept=kept)),
            )
        self.state = replace(state, step=state.step + 1)
        return self.state.trials[before:]

    def _start(self) -> OptimizerState:
        """The state, with a held-out loss that is up to date."""
        state = self.state
        if state is not None and (not self.loss_drifts or state.finished):
            return state
        loss = broadcast_object(self.evaluate(self.graph.with_prompts(self.prompts)))
        if state is not None:
            return replace(state, loss=loss, evaluations=state.evaluations + 1)
        return OptimizerState(seed=self.seed, step=0, prompts=self.prompts, loss=loss, evaluations=1, runs=0)

    def _propose(self, state: OptimizerState, evidence: Evidence) -> list[dict[str, str]]:
        changes: list[dict[str, str]] = []
        problem = ""
        with self.together():
            if rank_and_size()[0] == 0:
                try:
                    generator = random.Random(f"{state.seed}/{state.step}")
                    changes = list(self.proposer.propose(state, evidence, generator))
                except ConfigError:
                    raise
                except FrameworkError as error:
                    problem = str(error)
        changes, problem = broadcast_object((changes, problem))
        self.problems += bool(problem)
        return changes

    def _evidence(self, state: OptimizerState) -> Evidence:
        parts = [json.loads(each.example) for each in self._blamed if each.example]
        return Evidence(
            graph=self.graph.with_prompts(state.prompts),
            traces=tuple(from_json(Trace, part[0]) for part in parts),
            losses=tuple(from_json(VerbalLoss, part[1]) for part in parts),
            attributions=tuple(from_json(Attribution, part[2]) for part in parts),
            credits=mean_blame(self._blamed),
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain types: with the errors that the next proposal will rest on."""
        return {
            "state": None if self.state is None else to_json(self.state),
            "problems": self.problems,
            "blamed": [to_json(each) for each in self._blamed],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            CheckpointError: of another graph or seed.
        """
        found = None if state["state"] is None else from_json(OptimizerState, state["state"])
        if found is not None and (found.prompts.keys() != self.graph.prompts.keys() or found.seed != self.seed):
            hint = "use the graph and the seed of that run, or another --run.dir"
            raise CheckpointError("the checkpoint's search is of another graph or seed", hint=hint)
        self.state, self.problems = found, state["problems"]
        self._blamed = [from_json(AttributedError, each) for each in state["blamed"]]


def mean_blame(blamed: Sequence[AttributedError]) -> tuple[AgentCredit, ...]:
    """The nodes' credits over several runs, as `mean_credits` takes their mean."""
    count, loss = max(1, len(blamed)), sum(each.loss for each in blamed) or 1.0
    names = dict.fromkeys(credit.name for each in blamed for credit in each.credits)
    found = {name: AgentCredit(name=name, through=0.0, own=0.0, walk=0.0) for name in names}
    for each in blamed:
        for credit in each.credits:
            have = found[credit.name]
            found[credit.name] = AgentCredit(
                name=credit.name,
                through=have.through + credit.through / count,
                own=have.own + credit.own / count,
                walk=have.walk + credit.walk * each.loss / loss,
            )
    return tuple(found.values())
