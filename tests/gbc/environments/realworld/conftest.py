"""A system of two agents whose model continues the pattern of its prompt's last example."""

import re
from collections.abc import Sequence

import pytest

from framework.gbc.environments.realworld.systems import MODEL, PlantedFault, RealSystem
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.interface import Reply, Request

WORD = "Say it.\n\nUser: a\nWord: a"
WRITER = "Write it.\n\nWord: a\nSlots: word=a"


class Analogy:
    """Answers as the last example of the prompt does, with what the message has in place of the example's."""

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        """An answer for each request."""
        return [_reply(self.answer(request)) for request in requests]

    def answer(self, request: Request) -> str:
        """The example's answer, its input exchanged for the message's."""
        example_in, example_out = request.prompt.splitlines()[-2:]
        read, asked = (text.split(": ", 1)[1] for text in (example_in, request.message.splitlines()[0]))
        return " " + re.sub(rf"\b{read}\b", asked.strip(), example_out.split(": ", 1)[1])


def _reply(text: str) -> Reply:
    return Reply(
        input_text="",
        input_ids=(),
        input_spans=(),
        blocks=(),
        output=text,
        output_ids=(),
        output_spans=(),
        finish="stop",
    )


@pytest.fixture
def system() -> RealSystem:
    def agent(name: str, prompt: str, template: str, *reads: str) -> Agent:
        return Agent(
            name=name,
            prompt=prompt,
            role=f"does {name}",
            model=MODEL,
            reads=reads,
            template=template,
            max_new_tokens=4,
            stop=("\n",),
        )

    return RealSystem(
        graph=Graph(
            agents=(
                agent("word", WORD, "User: {user}\nWord:", "user"),
                agent("writer", WRITER, "Word: {word}\nSlots:", "word"),
            )
        ),
        tasks=[{"user": user, "expected": {"word": user}} for user in ("b", "c")]
        + [{"user": "d", "expected": {"word": "e"}}],
        faults=[
            PlantedFault(kind="wrong_example", node="word", replace={"Word: a": "Word: z"}),
            PlantedFault(kind="missing_field", node="writer", replace={"word=a": "other=a"}),
        ],
        part="choosing",
        name="pair",
    )


@pytest.fixture
def analogy() -> Analogy:
    return Analogy()
