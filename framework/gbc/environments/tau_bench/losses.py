"""The verbal loss of tau-bench: expected against actual actions, missing outputs, another database."""

import json
from collections.abc import Sequence

from framework.core.serialization import JsonDict
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss


def tau_loss(trace: Trace) -> VerbalLoss:
    """1 minus the reward, with the words of the method (published), against what `run_episode` keeps in the task.

    Where the database does not match, the words name the task's actions that were not taken and the calls that changed
    the database without being among them; then the outputs that were not told. Look-ups more or less are no error.

    The places are the calls that should not have been made, and for what is missing the last message (ours).
    """
    task = trace.task
    reward = task["reward"]
    if reward["value"] == 1:
        return VerbalLoss(value=0.0, text="")
    words: list[str] = []
    places: list[Place] = []
    missing: list[JsonDict] = []
    if not reward["database"]:
        words.append("The database is not the one that the right actions leave.")
        left = list(task["actions"])
        for expected in task["expected_actions"]:
            same = [each for each in left if _call(each) == _call(expected)]
            if same:
                left.remove(same[0])
            else:
                missing.append(expected)
                words.append(f"Expected {_words(expected)}, it was not taken (false negative).")
        for each in left:
            if each["changed"]:
                words.append(f"{_words(each)} changed the database but was not expected (false positive).")
                places.append(_whole(trace, each["step"]))
    untold = [text for text, told in reward["outputs"].items() if not told]
    words += [f"The user had to be told {text!r} and was not." for text in untold]
    if task["failure"]:
        words.append(f"The episode failed: {task['failure']}.")
    lacking = len(missing) + len(untold)
    if lacking and trace.outputs:
        places.append(_whole(trace, trace.outputs[-1], weight=float(lacking)))
    return VerbalLoss(value=1.0 - reward["value"], text=" ".join(words), places=tuple(places))


def mean_reward(traces: Sequence[Trace]) -> dict[str, float]:
    """Means over episodes: `reward`, its parts `database` and `outputs` (all told), and `failed`; none of nothing.

    All are shares in [0, 1]; tasks without outputs have them all.
    """
    if not traces:
        return {}
    rewards = [trace.task["reward"] for trace in traces]
    rows = {
        "reward": [reward["value"] for reward in rewards],
        "database": [float(reward["database"]) for reward in rewards],
        "outputs": [float(all(reward["outputs"].values())) for reward in rewards],
        "failed": [float(trace.failure is not None) for trace in traces],
    }
    return {name: sum(values) / len(values) for name, values in rows.items()}


def _call(action: JsonDict) -> tuple[str, str]:
    return action["name"], json.dumps(action["arguments"], sort_keys=True)


def _words(action: JsonDict) -> str:
    return f"{action['name']}({json.dumps(action['arguments'])})"


def _whole(trace: Trace, step: str, weight: float = 1.0) -> Place:
    return Place(step=step, start=0, stop=len(trace.step(step).output), weight=weight)
