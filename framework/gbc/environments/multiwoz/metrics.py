"""Metrics of state tracking and of answers, summed over processes, in all and by domain.

Names are `joint_goal_accuracy`, `slot_f1` and so on, with `/hotel` for a domain. A domain without a turn or dialogue is
left out.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.dialogues import State
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, domain_of
from framework.gbc.environments.multiwoz.dataset.values import same_value
from framework.gbc.environments.multiwoz.success import Judgement

_ROWS = ("", *DOMAINS)


def wrong_slots(predicted: State, expected: State) -> set[str]:
    """The slots of either state that are missing in the other, or have a wrong value."""
    slots = predicted.keys() | expected.keys()
    return {
        slot
        for slot in slots
        if slot not in predicted or slot not in expected or not same_value(slot, predicted[slot], expected[slot])
    }


class _ByDomain(Metric):
    """Sums in rows: all, then the domains."""

    higher_is_better = True
    full_state_update = False

    def __init__(self, sums: Sequence[str], **options: object) -> None:
        super().__init__(**options)
        for name in sums:
            rows = torch.zeros(len(_ROWS), dtype=torch.long)
            self.add_state(name, default=rows, dist_reduce_fx="sum")  # pyright: ignore[reportUnknownMemberType]

    def _add(self, name: str, counts: Mapping[str, int]) -> None:
        """Adds counts by row."""
        rows = torch.tensor([counts.get(row, 0) for row in _ROWS], device=self.device)
        setattr(self, name, getattr(self, name) + rows)

    def _named(
        self, name: str, values: Float[Tensor, "domain"], totals: Int[Tensor, "domain"]
    ) -> dict[str, Float[Tensor, ""]]:
        rows = zip(_ROWS, values, totals, strict=True)
        return {f"{name}/{row}".rstrip("/"): value for row, value, total in rows if total > 0}


class JointGoalAccuracy(_ByDomain):
    """The share of turns whose whole state is right (Henderson et al. 2014, DSTC2; Budzianowski et al. 2018).

    A domain's counts its slots only, over the turns of the dialogues that have it (Wu et al. 2019; Hu et al. 2022).
    """

    right: Int[Tensor, "domain"]
    total: Int[Tensor, "domain"]

    def __init__(self, **options: object) -> None:
        super().__init__(("right", "total"), **options)

    def update(self, predicted: Sequence[State], expected: Sequence[State], domains: Sequence[Iterable[str]]) -> None:
        """Counts turns.

        Args:
            predicted: states that the system gave.
            expected: the labels.
            domains: those of each turn's dialogue.
        """
        for one, other, named in zip(predicted, expected, domains, strict=True):
            wrong = {domain_of(slot) for slot in wrong_slots(one, other)}
            rows = {"": not wrong} | {domain: domain not in wrong for domain in named}
            self._add("total", dict.fromkeys(rows, 1))
            self._add("right", {row: int(right) for row, right in rows.items()})

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """`joint_goal_accuracy` in [0, 1]."""
        return self._named("joint_goal_accuracy", self.right / self.total.clamp(min=1), self.total)


class SlotF1(_ByDomain):
    """Precision, recall and F1 of slots with their values, over all turns together.

    A wrong value is a false positive and a false negative, as in Wu et al. 2019's program, which takes the mean of
    turns' scores instead. Where there is nothing to find and nothing found, all three are 1.
    """

    true_positives: Int[Tensor, "domain"]
    predicted: Int[Tensor, "domain"]
    expected: Int[Tensor, "domain"]
    turns: Int[Tensor, "domain"]

    def __init__(self, **options: object) -> None:
        super().__init__(("true_positives", "predicted", "expected", "turns"), **options)

    def update(self, predicted: Sequence[State], expected: Sequence[State], domains: Sequence[Iterable[str]]) -> None:
        """Counts slots; only the dialogue's domains and those that are predicted have a row.

        Args:
            predicted: states that the system gave.
            expected: the labels.
            domains: those of each turn's dialogue.
        """
        for one, other, named in zip(predicted, expected, domains, strict=True):
            right = (one.keys() & other.keys()) - wrong_slots(one, other)
            self._add("true_positives", _counts(right))
            self._add("predicted", _counts(one))
            self._add("expected", _counts(other))
            self._add("turns", dict.fromkeys({"", *named, *map(domain_of, one)}, 1))

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """`slot_precision`, `slot_recall` and `slot_f1` in [0, 1]."""
        precision = _ratio(self.true_positives, self.predicted, self.expected)
        recall = _ratio(self.true_positives, self.expected, self.predicted)
        f1 = _ratio(2 * self.true_positives, self.predicted + self.expected, 0 * self.predicted)
        return {
            **self._named("slot_precision", precision, self.turns),
            **self._named("slot_recall", recall, self.turns),
            **self._named("slot_f1", f1, self.turns),
        }


class InformSuccess(_ByDomain):
    """The share of dialogues with Inform and with Success (see `success.py`).

    A domain's Success is that it is informed and all was told; in Nekvinda & Dušek 2021's program it is 0 where any
    other domain of the dialogue is not informed.
    """

    informed: Int[Tensor, "domain"]
    succeeded: Int[Tensor, "domain"]
    total: Int[Tensor, "domain"]

    def __init__(self, **options: object) -> None:
        super().__init__(("informed", "succeeded", "total"), **options)

    def update(self, judgements: Iterable[Judgement]) -> None:
        """Counts dialogues."""
        for each in judgements:
            self._add("informed", {"": int(each.inform)} | {name: int(right) for name, right in each.informed.items()})
            both = {name: int(right and each.told[name]) for name, right in each.informed.items()}
            self._add("succeeded", {"": int(each.success)} | both)
            self._add("total", dict.fromkeys(("", *each.informed), 1))

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """`inform` and `success` in [0, 1]."""
        total = self.total.clamp(min=1)
        return {
            **self._named("inform", self.informed / total, self.total),
            **self._named("success", self.succeeded / total, self.total),
        }


def _counts(slots: Iterable[str]) -> dict[str, int]:
    counts = {"": 0}
    for slot in slots:
        domain = domain_of(slot)
        if domain not in DOMAINS:
            raise DataError(f"{slot!r} is not a slot of a state", hint="read states with parse_state")
        counts[""] += 1
        counts[domain] = counts.get(domain, 0) + 1
    return counts


def _ratio(
    part: Int[Tensor, "domain"], whole: Int[Tensor, "domain"], other: Int[Tensor, "domain"]
) -> Float[Tensor, "domain"]:
    """`part / whole`; where `whole` is nothing, 1 if `other` is nothing too, else 0."""
    return torch.where(whole > 0, part / whole.clamp(min=1), (other == 0).float())
