"""Clients that look like OpenAI's as language models."""

from types import SimpleNamespace
from typing import Any

import pytest

from framework.gbc.language_models.callables.client import ClientModel
from tests.gbc.language_models.callables.test_function import asked, outputs


@pytest.mark.parametrize("is_async", [True, False])
def test_clients_as_openais(is_async):
    seen: list[dict[str, Any]] = []

    def completion(content: str | None) -> SimpleNamespace:
        message = SimpleNamespace(message=SimpleNamespace(content=content), finish_reason="length")
        return SimpleNamespace(choices=[message])

    def create(**request: Any) -> Any:
        seen.append(request)
        found = completion(None if "thoughts" in request["messages"][1]["content"] else "Hot.")

        async def later() -> SimpleNamespace:
            return found

        return later() if is_async else found

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    model = ClientModel(client, "gpt", parallel=1, fields={"temperature": 0, "seed": None})
    said = outputs(model.reply([asked("hi", stop=("\n",)), asked("thoughts")]))
    assert said == [
        "Hot.",
        "the model of 'writer' raised ValueError (no text, finished by length): see what it was asked",
    ]
    assert seen[0] == {
        "model": "gpt",
        "messages": [{"role": "system", "content": "Write."}, {"role": "user", "content": "user: hi"}],
        "max_tokens": 5,
        "stop": ["\n"],
        "temperature": 0,
    }
