"""Trajectories of tau-bench and tau2-bench, as their runs write them.

A file of tau-bench is a list of episodes, one of tau2-bench an object with `simulations`. An episode failed unless its
reward is 1. In tau2-bench the user has tools too: what it does with them the agent does not see, and credit ends there.
"""

from collections.abc import Sequence
from dataclasses import replace

from framework.gbc.logs.forms.openai import Told, listed, log_of_messages, objects_of, without_secrets
from framework.gbc.logs.schema import JsonObject, Log, json_object


def is_tau_bench(value: object) -> bool:
    """Whether a value is an episode of tau-bench."""
    fields = json_object(value) or {}
    return {"task_id", "reward", "traj"} <= fields.keys()


def logs_of_tau_bench(value: object, id: str) -> list[Log]:
    """The log of an episode.

    Args:
        value: parsed JSON.
        id: is not looked at: an episode's is its task and its trial.

    Raises:
        ValueError: what is not understood.
    """
    fields = json_object(value) or {}
    messages = objects_of(fields.get("traj"))
    if not messages:
        raise ValueError(f"an episode without messages, its info is {str(fields.get('info'))[:80]!r}")
    told = Told(correct=_succeeded(fields.get("reward")))
    return [log_of_messages(messages, id=f"{fields['task_id']}-{fields.get('trial', 0)}", told=told)]


def is_tau2_bench(value: object) -> bool:
    """Whether a value is a file of tau2-bench, or one of its simulations."""
    fields = json_object(value) or {}
    if "simulations" in fields:
        return all(map(is_tau2_bench, listed(fields["simulations"])))
    return {"task_id", "messages", "reward_info"} <= fields.keys()


def logs_of_tau2_bench(value: object, id: str) -> list[Log]:
    """The logs of a file's simulations, or of one.

    Args:
        value: parsed JSON.
        id: is not looked at: a simulation's is its task and its trial.

    Raises:
        ValueError: what is not understood.
    """
    fields = json_object(value) or {}
    simulations = objects_of(fields["simulations"]) if "simulations" in fields else [fields]
    return [_log_of_simulation(each) for each in simulations or ()]


def _log_of_simulation(simulation: JsonObject) -> Log:
    given = objects_of(simulation.get("messages"))
    if not given:
        raise ValueError(f"simulation {simulation.get('id')!r} has no messages")
    numbered = [(number, each) for number, message in enumerate(given) for each in _parts(message, number)]
    messages = [_message(each) for _, each in numbered]
    reward = (json_object(simulation.get("reward_info")) or {}).get("reward")
    log = log_of_messages(
        messages,
        id=f"{simulation.get('task_id')}-{simulation.get('trial') or 0}",
        told=Told(correct=_succeeded(reward)),
        numbers=[number for number, _ in numbered],
    )
    # Prompts may stand before the messages.
    own = [_is_users_own(each) for _, each in numbered][len(numbered) - len(log.messages) :]
    if not any(own):
        return log
    seen = [
        replace(message, reads=tuple(i for i in range(number) if not own[i])) if message.role == "agent" else message
        for number, message in enumerate(log.messages)
    ]
    return replace(log, messages=tuple(seen))


def _parts(message: JsonObject, number: int) -> Sequence[JsonObject]:
    """A message; of several tools' answers in one, each."""
    inner = objects_of(message.get("tool_messages"))
    if message.get("role") not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"messages[{number}]: role {message.get('role')!r}, not system, user, assistant or tool")
    return inner or [message]


def _is_users_own(message: JsonObject) -> bool:
    """Whether only the user sees a message: calls and answers of its tools."""
    if message.get("role") == "user":
        return bool(message.get("tool_calls"))
    return message.get("role") == "tool" and message.get("requestor") == "user"


def _message(message: JsonObject) -> JsonObject:
    """A message as chat completions have it; the user's calls are what it says."""
    if message["role"] == "tool":
        if _is_users_own(message):
            return {"role": "user", "name": "user's tool", "content": message.get("content")}
        return {"role": "tool", "tool_call_id": message.get("id"), "content": message.get("content")}
    calls = objects_of(message.get("tool_calls")) or []
    if message["role"] == "user" and calls:
        written = [f"{each.get('name')}({without_secrets(each.get('arguments'))})" for each in calls]
        return {"role": "user", "content": "\n".join([str(message.get("content") or ""), *written]).strip()}
    return {"role": message["role"], "content": message.get("content"), "tool_calls": [_call(each) for each in calls]}


def _call(call: JsonObject) -> JsonObject:
    return {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("arguments")}}


def _succeeded(reward: object) -> bool | None:
    return reward >= 1 - 1e-6 if isinstance(reward, int | float) else None
