"""Chooses among given prompts; needs no strong language model (ours)."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Graph
from framework.gbc.prompt_search.evidence import BlameKind, Evidence
from framework.gbc.prompt_search.state import OptimizerState


class Candidates:
    """Tries one candidate a step, for the agent with the most credit for errors that has some left.

    A candidate that did not help is not tried again until another agent's prompt has changed.

    Args:
        candidates: prompts by agent.
        by: which credit, or the diagnosis; of equals, the credit of the walk decides where errors are attributed.
        spread: `credit`, or `even`: the agent with the fewest trials, without attribution (to compare with).
    """

    def __init__(
        self,
        candidates: Mapping[str, Sequence[str]],
        *,
        by: BlameKind = "own",
        spread: Literal["credit", "even"] = "credit",
    ) -> None:
        if not any(candidates.values()):
            raise ConfigError("no candidates", hint="give prompts for some agents")
        self.candidates = {agent: tuple(prompts) for agent, prompts in candidates.items()}
        self.by: BlameKind = by
        self.needs_attribution = spread == "credit"
        self.needs_diagnosis = self.needs_attribution and by == "diagnosis"

    def propose(self, state: OptimizerState, evidence: Evidence, generator: random.Random) -> Sequence[dict[str, str]]:
        """One change, or none if there is nothing left.

        Args:
            state: what was tried so far.
            evidence: errors with the current prompts, and what they are attributed to.
            generator: of random choices.
        """
        left = self._left(state)
        if not left:
            return []
        trials = Counter(agent for trial in state.since_kept() for agent in trial.changes)
        # Agents in random order, so that ties are broken at random.
        agents = generator.sample(sorted(left), len(left))
        if self.needs_attribution:
            agents.sort(key=lambda agent: evidence.score_of(agent, self.by), reverse=True)
        else:
            agents.sort(key=lambda agent: trials[agent])
        return [{agents[0]: generator.choice(left[agents[0]])}]

    def is_done(self, state: OptimizerState, graph: Graph) -> bool:
        """Whether everything was tried with the current prompts."""
        unknown = self.candidates.keys() - graph.prompts.keys()
        if unknown:
            hint = f"use {', '.join(graph.prompts)}"
            problem = f"candidates for {', '.join(sorted(unknown))}, which the graph does not have"
            raise ConfigError(problem, hint=hint)
        return not self._left(state)

    def _left(self, state: OptimizerState) -> dict[str, list[str]]:
        tried = {pair for trial in state.since_kept() for pair in trial.changes.items()}
        left = {
            agent: [prompt for prompt in prompts if prompt != state.prompts[agent] and (agent, prompt) not in tried]
            for agent, prompts in self.candidates.items()
        }
        return {agent: prompts for agent, prompts in left.items() if prompts}
