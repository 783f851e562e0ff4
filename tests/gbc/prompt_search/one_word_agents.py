"""A small system for the tests of the search: agents that do what their one-word prompts say."""

from collections.abc import Sequence
from typing import Any

from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.search import OptimizeOptions, optimize
from framework.gbc.prompt_search.state import OptimizerState

GOOD = {"left": "copy", "right": "shout", "end": "join"}


class Obedient:
    """Agents that do what their one-word prompts say; another prompt makes them lose the message."""

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        words = [piece.text for piece in request.pieces if piece.source is not None] or [""]
        acts = {"copy": words[0], "shout": words[0].upper(), "join": "+".join(words)}
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}|{message}", request)
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=acts.get(request.prompt, "?"),
            output_ids=(),
            output_spans=(),
            finish="stop",
        )


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt=GOOD[name], model="m", reads=reads, estimator="leave_one_out")


GRAPH = Graph(agents=(agent("left", "user"), agent("right", "user"), agent("end", "left", "right")))
TASKS = [{"id": str(i), "user": word} for i, word in enumerate(["ant", "bee", "cat", "dog"])]


def loss(trace: Trace) -> VerbalLoss:
    word = trace.task["user"]
    wanted = f"{word}+{word.upper()}"
    same = sum(a == b for a, b in zip(trace.output.split("+"), wanted.split("+"), strict=False)) / 2
    return VerbalLoss(value=1 - same, text="" if same == 1 else f"Expected {wanted!r}, it was {trace.output!r}.")


CANDIDATES = {"left": ["copy", "shout", "mumble"], "right": ["copy", "shout"], "end": ["join", "copy", "mumble"]}


def run(prompts: dict[str, str], proposer: Any = None, **options: Any) -> OptimizerState:
    settings: dict[str, Any] = {"steps": 40, "batch_size": 2, "seed": 1, **options}
    state, save_to = settings.pop("state", None), settings.pop("save_to", None)
    return optimize(
        GRAPH.with_prompts(prompts),
        {"m": Obedient()},
        loss,
        proposer or Candidates(CANDIDATES),
        train=TASKS[:2],
        held_out=TASKS[2:],
        options=OptimizeOptions(**settings),
        state=state,
        save_to=save_to,
    )
