"""Runs of CrewAI: a crew's output (`CrewOutput.model_dump_json()`), or its `output_log_file` in JSON.

A task is what its agent is asked, by whoever wrote the crew. Where an output has the `messages` of its tasks (later
versions), they say what each agent read. Otherwise a task is taken to read all results before it, which is a crew's
default; other contexts are not written down.
"""

from collections.abc import Sequence

from framework.gbc.logs.forms.model_calls import ModelCall, log_of_calls
from framework.gbc.logs.forms.openai import objects_of
from framework.gbc.logs.schema import JsonObject, Log, Message, json_object

_EVENT = {"task_name", "task", "agent", "status"}


def is_crewai(value: object) -> bool:
    """Whether a value is a crew's output, or the list of events of its log."""
    fields = json_object(value)
    if fields is not None:
        return bool(objects_of(fields.get("tasks_output")))
    events = objects_of(value)
    return bool(events) and all(each.keys() >= _EVENT for each in events)


def logs_of_crewai(value: object, id: str) -> list[Log]:
    """The logs of a value: one of a crew's output, one for each run of a log's events.

    Args:
        value: parsed JSON.
        id: of the log; of several, `ID-2` and so on.

    Raises:
        ValueError: a task without a description, an agent and a result.
    """
    if not is_crewai(value):
        raise ValueError("neither a crew's output with tasks_output nor the events of its log")
    fields = json_object(value)
    if fields is not None:
        return [_log_of_tasks(objects_of(fields["tasks_output"]) or (), str(fields.get("id", id)))]
    runs = _runs(objects_of(value) or ())
    return [_log_of_tasks(run, id if number == 1 else f"{id}-{number}") for number, run in enumerate(runs, 1)]


def _runs(events: Sequence[JsonObject]) -> list[list[JsonObject]]:
    """The finished tasks of each run: a new one begins where a task starts that has been finished already."""
    runs: list[list[JsonObject]] = []
    for event in events:
        done = [each.get("description") for each in runs[-1]] if runs else []
        if not runs or (event["status"] == "started" and event["task"] in done):
            runs.append([])
        if event["status"] == "completed":
            runs[-1].append({"description": event["task"], "agent": event["agent"], "raw": event.get("output")})
    return [run for run in runs if run]


def _log_of_tasks(tasks: Sequence[JsonObject], id: str) -> Log:
    for number, task in enumerate(tasks):
        for field in ("description", "agent", "raw"):
            if not isinstance(task.get(field), str):
                raise ValueError(f"task {number} has no text {field!r}")
    if all(objects_of(task.get("messages")) for task in tasks):
        return log_of_calls([call for task in tasks for call in _calls(task)], id=id)
    messages: list[Message] = []
    answers: list[int] = []
    for task in tasks:
        wanted = task.get("expected_output")
        asked = f"{task['description']}\n\n{wanted}" if isinstance(wanted, str) and wanted else str(task["description"])
        number = len(messages)
        messages.append(Message(agent="task", role="user", content=asked))
        messages.append(Message(agent=_agent(task), content=str(task["raw"]), reads=(*answers, number)))
        answers.append(number + 1)
    return Log(id=id, messages=tuple(messages))


def _calls(task: JsonObject) -> list[ModelCall]:
    """The calls behind a task: each assistant's message is the answer to what stands before it."""
    messages = objects_of(task.get("messages")) or []
    answers = [number for number, each in enumerate(messages) if each.get("role") == "assistant"]
    calls = [ModelCall(agent=_agent(task), given=messages[:number], said=messages[number]) for number in answers]
    raw = str(task["raw"])
    if not answers or raw.strip() not in str(messages[answers[-1]].get("content")):
        calls.append(ModelCall(agent=_agent(task), given=messages, said={"role": "assistant", "content": raw}))
    return calls


def _agent(task: JsonObject) -> str:
    return str(task["agent"]).strip()
