"""A language model rewrites the prompts of the agents that errors are attributed to.

Published, after OPRO (Yang et al. 2023, arXiv 2309.03409); the words are ours.
"""

import logging
import random
import re
from collections.abc import Sequence

from framework.core.errors import ConfigError, FrameworkError
from framework.gbc.graph.spec import Graph, UserTurn, reads_of
from framework.gbc.language_models.interface import LanguageModel, Piece, Request
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts
from framework.gbc.prompt_search.evidence import BlameKind, Evidence
from framework.gbc.prompt_search.state import OptimizerState

INSTRUCTION = (
    "You improve a system of language-model agents by rewriting one agent's prompt at a time. You are shown the "
    "system, the prompts that were tried with their losses (lower is better), and what went wrong, with the way that "
    "the error took through the system. Answer with the new prompt alone, between <prompt> and </prompt>."
)
_logger = logging.getLogger(__name__)
_LONGEST_QUOTE = 120
_ANSWER = re.compile(r"<prompt>(.*?)</prompt>", re.DOTALL)


class Opro:
    """Asks a model for a new prompt for each of the agents with the most credit for errors, and tries them one by one.

    An answer without one new prompt between the marks proposes nothing, and a warning says why.

    Args:
        model: local or on a server.
        agents_per_step: most agents in a step, 1 or more.
        by: which credit, or the diagnosis, as in `Candidates`.
        max_history: best trials of the agent that are shown, at most; 0 or more.
        max_examples: failures that are shown, at most; 0 or more.
        max_new_tokens: bound of the answer, in tokens; 1 or more.
    """

    needs_attribution = True

    def __init__(
        self,
        model: LanguageModel,
        *,
        agents_per_step: int = 1,
        by: BlameKind = "own",
        max_history: int = 8,
        max_examples: int = 3,
        max_new_tokens: int = 512,
    ) -> None:
        if min(agents_per_step, max_new_tokens) < 1 or min(max_history, max_examples) < 0:
            raise ConfigError(f"agents_per_step {agents_per_step}, history {max_history}", hint="use 1 or more")
        self.model = model
        self.by: BlameKind = by
        self.needs_diagnosis = by == "diagnosis"
        self.agents_per_step, self.max_new_tokens = agents_per_step, max_new_tokens
        self.max_history, self.max_examples = max_history, max_examples

    def propose(self, state: OptimizerState, evidence: Evidence, generator: random.Random) -> Sequence[dict[str, str]]:
        """A change for each of these agents whose answer can be read.

        Args:
            state: what was tried so far.
            evidence: errors with the current prompts, and what they are attributed to.
            generator: of random choices.

        Raises:
            FrameworkError: what the model's server raises.
        """
        prompts = evidence.graph.prompts
        # In random order, so that ties are broken at random.
        agents = generator.sample(sorted(prompts), len(prompts))
        scores = {agent: evidence.score_of(agent, self.by) for agent in agents}
        agents = sorted(filter(lambda agent: any(scores[agent]), agents), key=lambda agent: scores[agent], reverse=True)
        agents = agents[: self.agents_per_step]
        if not agents:
            _logger.warning("no proposal: no error of a training task is attributed to an agent")
        requests = [
            Request(
                step=f"opro for {agent}",
                prompt=INSTRUCTION,
                pieces=(Piece(text=self.describe(agent, state, evidence)),),
                max_new_tokens=self.max_new_tokens,
                seed=generator.getrandbits(48),
            )
            for agent in agents
        ]
        changes: list[dict[str, str]] = []
        for agent, reply in zip(agents, self.model.reply(requests), strict=True):
            if isinstance(reply, FrameworkError):
                raise reply
            found, reason = _proposed(reply.output, prompts[agent])
            if reason:
                _logger.warning("no proposal for %s: %s", agent, reason)
            else:
                changes.append({agent: found})
        return changes

    def is_done(self, state: OptimizerState, graph: Graph) -> bool:
        """Never: a model may always think of something."""
        return False

    def describe(self, agent: str, state: OptimizerState, evidence: Evidence) -> str:
        """The message to the model: structure, current prompts, history with performance, trajectories, losses.

        Args:
            agent: whose prompt is to be rewritten.
            state: what was tried so far.
            evidence: errors with the current prompts, and what they are attributed to.
        """
        lines = ["The system, each node with what it reads:"]
        for node in evidence.graph.nodes.values():
            kind = "user turn" if isinstance(node, UserTurn) else type(node).__name__.lower()
            role = getattr(node, "role", "")
            lines.append(
                f"- {node.name} ({kind}{', ' + role if role else ''}): {', '.join(reads_of(node)) or 'nothing'}"
            )
        lines.append("\nCurrent prompts:")
        lines += [f"- {name}: {prompt}" for name, prompt in evidence.graph.prompts.items()]
        history = sorted((t for t in state.trials if agent in t.changes), key=lambda trial: -trial.loss)
        lines.append(f"\nPrompts tried for {agent}, the best last (loss now: {state.loss:.4g}):")
        lines += [f"- loss {trial.loss:.4g}: {trial.changes[agent]}" for trial in history[-self.max_history :]]
        lines.append("\nWhat went wrong, and the way of the error:")
        # A diagnosis does without attributions: then all steps are shown.
        attributions = evidence.attributions or [None] * len(evidence.traces)
        examples = [
            (trace, loss, found)
            for trace, loss, found in zip(evidence.traces, evidence.losses, attributions, strict=True)
            if self.by != "walk" or (found is not None and found.credit_of(agent).walk > 0)
        ]
        for trace, loss, found in examples[: self.max_examples]:
            way = found.trajectories[0].steps if found is not None and found.trajectories else ()
            shown = [step.name for step in trace.steps] if found is None else way
            lines += [f"* {loss.text}", f"  way: {' <- '.join(way) or 'unknown'}"]
            lines += [f"  {step.name} said: {step.output}" for step in trace.steps if step.name in shown]
        lines.append(f"\nWrite a better prompt for {agent}.")
        return "\n".join(lines)


def _proposed(answer: str, prompt: str) -> tuple[str, str]:
    """The prompt that an answer proposes, or why it proposes none.

    Args:
        answer: of the model.
        prompt: what the agent has now.
    """
    said = without_thoughts(answer)
    found = list(dict.fromkeys(text.strip() for text in _ANSWER.findall(said)))
    if len(found) > 1:
        return "", f"the answer has {len(found)} prompts between <prompt> and </prompt>"
    if not found or not found[0]:
        return (
            "",
            f"the answer has no prompt between <prompt> and </prompt>: {' '.join(said.split())[:_LONGEST_QUOTE]!r}",
        )
    return found[0], "the answer is the prompt that the agent has" if found[0] == prompt else ""
