"""The failure logs of Who&When (Zhang et al. 2025, arXiv 2505.00212): a JSON file for each case.

A case has `history`, `question`, `ground_truth`, and the labels `mistake_agent`, `mistake_step` (number of the message,
from 0) and `mistake_reason`. Logs of CaptainAgent have `name` in every message and `system_prompt` by agent; those of
Magentic-One have only `role`, in which the orchestrator's messages say what they are: `Orchestrator (thought)`,
`Orchestrator (-> WebSurfer)`.

Ours: what agents see. In CaptainAgent's group chat that is everything said before; in Magentic-One only the
orchestrator sees its own thoughts. The output is the message with `FINAL ANSWER:`, otherwise the last agent's that says
more than TERMINATE.
"""

import re
from typing import cast

from framework.gbc.logs.schema import JsonObject, Log, Message, Mistake, Role, json_object

_USERS = {"human", "user"}
_TOOLS = {"computer_terminal", "computerterminal"}
_ANSWER = re.compile(r"FINAL ANSWER:[ \t]*(\S.*)")


def is_case(value: object) -> bool:
    """Whether a value is a case."""
    fields = json_object(value) or {}
    return isinstance(fields.get("history"), list) and ("question" in fields or "mistake_agent" in fields)


def log_of_case(case: object, *, id: str) -> Log:
    """The log of a parsed case.

    Raises:
        ValueError: a field that is missing or of another type.
        DataError: what `Log` finds.
    """
    fields = json_object(case)
    if fields is None:
        raise ValueError("not a JSON object")
    history = fields.get("history")
    if not isinstance(history, list) or not history:
        raise ValueError("no history")
    said = [_said(message, number) for number, message in enumerate(cast(list[object], history))]
    kinds = [_speaker(message, number) for number, message in enumerate(said)]
    thoughts = {number for number, (_, _, private) in enumerate(kinds) if private}
    messages: list[Message] = []
    for number, (message, (agent, role, _)) in enumerate(zip(said, kinds, strict=True)):
        hidden = {thought for thought in thoughts if thought < number and kinds[thought][0] != agent}
        seen = tuple(sorted(set(range(number)) - hidden)) if hidden and role == "agent" else None
        messages.append(Message(agent=agent, role=role, content=str(message["content"]), reads=seen))
    answers = [found for message in messages for found in _ANSWER.findall(message.content)]
    correct: object = fields.get("is_correct", fields.get("is_corrected"))
    prompts = json_object(fields.get("system_prompt")) or {}
    return Log(
        id=id,
        task=_text(fields, "question"),
        messages=tuple(messages),
        prompts={str(name): str(text) for name, text in prompts.items()},
        outputs=_outputs(messages),
        answer=answers[-1].strip() if answers else None,
        expected=_text(fields, "ground_truth") or None,
        correct=correct if isinstance(correct, bool) else None,
        mistake=_mistake(fields),
    )


def _said(message: object, number: int) -> JsonObject:
    fields = json_object(message)
    if fields is None or not isinstance(fields.get("content"), str):
        raise ValueError(f"history[{number}] has no text content")
    return fields


def _speaker(message: JsonObject, number: int) -> tuple[str, Role, bool]:
    """Who says a message, as what, and whether nobody else sees it."""
    who: object = message.get("name") or message.get("role")
    if not isinstance(who, str) or not who.strip():
        raise ValueError(f"history[{number}] has no name and no role")
    name, _, what = who.partition(" (")
    role: Role = "user" if name.lower() in _USERS else "tool" if name.lower() in _TOOLS else "agent"
    return name, role, bool(what) and not what.startswith("->")


def _outputs(messages: list[Message]) -> tuple[int, ...]:
    said = [(number, message.content) for number, message in enumerate(messages) if message.role == "agent"]
    final = [number for number, text in said if _ANSWER.search(text)]
    return tuple(final[-1:])


def _mistake(case: JsonObject) -> Mistake | None:
    agent, step = _text(case, "mistake_agent"), _text(case, "mistake_step")
    if step and not step.isdecimal():
        raise ValueError(f"mistake_step is {step!r}, not a number")
    if not agent and not step:
        return None
    return Mistake(agent=agent or None, step=int(step) if step else None, reason=_text(case, "mistake_reason"))


def _text(case: JsonObject, name: str) -> str:
    """A field as text; cases write numbers both ways."""
    value = case.get(name)
    return "" if value is None else str(value).strip()
