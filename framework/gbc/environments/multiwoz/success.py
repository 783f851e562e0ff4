"""Inform and Success of a dialogue: whether the offers fit the goal, and whether all that it asks for is told.

Introduced by Budzianowski et al. 2018; the rules are those of the standardised evaluation of Nekvinda & Dušek
2021 (Shades of BLEU, Flavours of Success), but where "ours" is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.database import SEARCHED, Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Goal, State, success_requests
from framework.gbc.environments.multiwoz.dataset.mentions import Mention, MentionReader
from framework.gbc.environments.multiwoz.dataset.slots import domain_of


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A turn as it is judged.

    Attributes:
        text: what the system says, with placeholders or plain.
        state: the belief state that it answers to: predicted, or the label.
        booked: domains with a booking after it, by the labels: only there a reference number could be known.
        active_domains: what it is about, where the system says so; None: estimated from what changes in the states.
    """

    text: str
    state: State
    booked: tuple[str, ...] = ()
    active_domains: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """By domain of the goal.

    Attributes:
        informed: what was offered last fits the goal.
        told: all that the goal asks for was told, of what `success_requests` counts.
    """

    informed: dict[str, bool]
    told: dict[str, bool]

    @property
    def inform(self) -> bool:
        """Whether the offers of all domains fit."""
        return all(self.informed.values())

    @property
    def success(self) -> bool:
        """Whether, besides, everything was told in all domains."""
        return self.inform and all(self.told.values())


class Judge:
    """Judges dialogues.

    Args:
        database: of the release.
        plain: read plain words too; otherwise placeholders only, which count for the domains that a turn is about,
            whatever domain they name, as in the standardised evaluation.
    """

    def __init__(self, database: Database, *, plain: bool = True) -> None:
        self.database, self.plain = database, plain
        self.reader = MentionReader(database, plain=plain)

    def judge(self, goal: Mapping[str, Goal], answers: Sequence[Answer]) -> Judgement:
        """Whether the answers of a whole dialogue meet its goal.

        Raises:
            DataError: there is no goal.
        """
        if not goal:
            raise DataError("a dialogue without a goal has neither Inform nor Success", hint="use a release's dialogue")
        offered: dict[str, frozenset[str]] = {domain: frozenset() for domain in goal}
        told: dict[str, set[str]] = {domain: set() for domain in goal}
        estimated = active_domains([answer.state for answer in answers])
        for answer, estimate in zip(answers, estimated, strict=True):
            mentions = self.reader.read(answer.text)
            active = (estimate,) if answer.active_domains is None else answer.active_domains
            for domain in goal:
                spoken = [each for each in mentions if self._is_about(each, domain, active)]
                offered[domain] = self._offer(domain, answer.state, spoken, offered[domain])
                told[domain] |= {
                    each.attribute for each in spoken if each.attribute != "reference" or domain in answer.booked
                }
        return Judgement(
            informed={domain: self._fits(domain, goal[domain], offered[domain]) for domain in goal},
            told={domain: success_requests(goal[domain]) <= told[domain] for domain in goal},
        )

    def _is_about(self, mention: Mention, domain: str, active: Sequence[str]) -> bool:
        if self.plain and mention.domain:
            return mention.domain == domain
        return domain in active

    def _offer(self, domain: str, state: State, spoken: list[Mention], before: frozenset[str]) -> frozenset[str]:
        """The entities on offer after an answer.

        A placeholder of a name, or of a train's number, offers all that the state finds; an offer of before stays
        where it is still among them. A plain name offers what it names (ours).
        """
        key = "trainid" if domain == "train" else "name"
        naming = [each for each in spoken if each.attribute == key]
        if domain not in SEARCHED or not naming:
            return before
        named = frozenset(id for each in naming for id in each.entities)
        if named:
            return named
        found = frozenset(entity.id for entity in self.database.query_state(domain, state))
        return before if before and before <= found else found

    def _fits(self, domain: str, goal: Goal, offered: frozenset[str]) -> bool:
        """Whether an offer fits: nothing else is on offer than what the goal's constraints find.

        Without an offer fit: a domain that the user was told the name of, a taxi, and a train whose number nobody
        asked for.
        """
        if domain not in SEARCHED or "name" in goal.inform:
            return True
        if domain == "train" and not offered and "trainid" not in goal.request:
            return True
        wanted = {entity.id for entity in self.database.query(domain, goal.inform)}
        return bool(offered) and offered <= wanted


def active_domains(states: Sequence[State]) -> list[str]:
    """The domain that each turn is about, estimated from what changes in the state; empty before anything did.

    Of several that change, the one of before stays, or else that with the most slots comes; when nothing changes after
    several did, another of those comes (Nekvinda & Dušek 2021, their program).
    """
    found: list[str] = []
    current, several = "", list[str]()
    before: State = {}
    for state in states:
        changed = {domain_of(slot) for slot, value in state.items() if before.get(slot) != value}
        ordered = [domain for domain in dict.fromkeys(map(domain_of, state)) if domain in changed]
        if not ordered:
            others = [domain for domain in several if domain != current and domain in map(domain_of, state)]
            current = others[0] if others and len(several) > 1 else current
        elif current not in ordered:
            sizes = {domain: sum(domain_of(slot) == domain for slot in state) for domain in ordered}
            current = max(ordered, key=sizes.__getitem__)
        several = ordered
        before = state
        found.append(current)
    return found
