"""The verbal loss of tau-bench and tau2-bench: expected and actual actions, missing outputs, another database."""

import json
from collections.abc import Sequence
from typing import get_args

from framework.core.serialization import JsonDict
from framework.gbc.environments.tau_bench.interface import Part
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss


def tau_loss(trace: Trace) -> VerbalLoss:
    """1 minus the reward, with the words of the method (published), against what `run_episode` keeps in the task.

    Of the parts of the reward that count: where the database or the end of the environment is wrong, or expected
    actions were not taken, the words name those and, for the database, the calls that changed it without being among
    them; then the outputs that were not told. Look-ups more or less are no error.

    The places are the calls that should not have been made, or what the user was told before it made them, and for what
    is missing the last message (ours).
    """
    task = trace.task
    reward = task["reward"]
    if reward["value"] == 1:
        return VerbalLoss(value=0.0, text="")
    basis = reward.get("basis", _TAU_BENCH)
    missing, unexpected = _compared(task)
    has_wrong_end = "database" in basis and not reward["database"]
    broken = _unmet(reward, "assertions", basis)
    words: list[str] = []
    places: list[Place] = []
    lacking = 0
    if has_wrong_end:
        words.append("The database is not the one that the right actions leave.")
    words += [f"At the end it does not hold that {each}." for each in broken]
    if has_wrong_end or broken or ("actions" in basis and not reward["actions"]):
        words += [f"Expected {_words(each)}, it was not taken (false negative)." for each in missing]
        lacking += len(missing)
    if has_wrong_end:
        for each in unexpected:
            words.append(f"{_words(each)} changed the database but was not expected (false positive).")
            if each["step"] in trace.outputs:
                places.append(_whole(trace, each["step"]))
    untold = _unmet(reward, "outputs", basis)
    words += [f"The user had to be told {text!r} and was not." for text in untold]
    refuted = _unmet(reward, "judged", basis)
    words += [f"A judge finds that this does not hold: {text}" for text in refuted]
    if task["failure"]:
        words.append(f"The episode failed: {task['failure']}.")
    lacking += len(untold) + len(refuted) + (len(broken) if not missing else 0)
    if lacking and trace.outputs:
        places.append(_whole(trace, trace.outputs[-1], weight=float(lacking)))
    return VerbalLoss(value=1.0 - reward["value"], text=" ".join(words), places=tuple(places))


def mean_reward(traces: Sequence[Trace]) -> dict[str, float]:
    """Means over episodes: `reward`, its parts that count for one of them, and `failed`; none of nothing.

    All are shares in [0, 1]; tasks for which a part does not count, or that ask nothing of it, have it.
    """
    if not traces:
        return {}
    rewards = [trace.task["reward"] for trace in traces]
    rows = {"reward": [reward["value"] for reward in rewards]}
    for part in get_args(Part):
        if any(part in reward.get("basis", _TAU_BENCH) for reward in rewards):
            rows[part] = [float(_fulfilled(reward, part)) for reward in rewards]
    rows["failed"] = [float(trace.failure is not None) for trace in traces]
    return {name: sum(values) / len(values) for name, values in rows.items()}


_TAU_BENCH = ("database", "outputs")
"""The parts that count where a trace does not say so: those of tau-bench."""


def _fulfilled(reward: JsonDict, part: Part) -> bool:
    basis = reward.get("basis", _TAU_BENCH)
    if part in ("database", "actions"):
        return part not in basis or bool(reward[part])
    return not _unmet(reward, part, basis)


def _unmet(reward: JsonDict, part: Part, basis: Sequence[str]) -> list[str]:
    """What a part asks for and is known to be missing."""
    return [text for text, holds in reward.get(part, {}).items() if holds is False] if part in basis else []


def _compared(task: JsonDict) -> tuple[list[JsonDict], list[JsonDict]]:
    """The expected actions that were not taken, and the calls that changed the database and were not expected."""
    left = list(task["actions"])
    missing: list[JsonDict] = []
    for expected in task["expected_actions"]:
        same = [each for each in left if _call(each, expected) == _call(expected, expected)]
        if same:
            left.remove(same[0])
        else:
            missing.append(expected)
    return missing, [each for each in left if each["changed"]]


def _call(action: JsonDict, expected: JsonDict) -> tuple[str, str, str]:
    """What must be the same in a call and in what was expected."""
    arguments = action["arguments"]
    if (compared := expected.get("compared")) is not None:
        arguments = {name: value for name, value in arguments.items() if name in compared}
    return action.get("by", "agent"), action["name"], json.dumps(arguments, sort_keys=True)


def _words(action: JsonDict) -> str:
    by = " by the user" if action.get("by") == "user" else ""
    return f"{action['name']}({json.dumps(action['arguments'])}){by}"


def _whole(trace: Trace, step: str, weight: float = 1.0) -> Place:
    return Place(step=step, start=0, stop=len(trace.step(step).output), weight=weight)
