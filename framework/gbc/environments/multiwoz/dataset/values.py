"""One spelling for every value of a slot; each rule names where the field has it from.

- [B18] Budzianowski et al. 2018, MultiWOZ: the scripts of the release.
- [W19] Wu et al. 2019, TRADE: its correction of labels.
- [E20] Eric et al. 2020, MultiWOZ 2.1.
- [N21] Nekvinda & Dušek 2021, Shades of BLEU, Flavours of Success: the standardised evaluation.
- [Y22] Ye et al. 2022, MultiWOZ 2.4: the script that reads the release.
- [H22] Hu et al. 2022, IC-DST: its correction of predictions, and its metrics.

Rules are applied to labels and to predictions alike, so that a rule can hide no error of one kind only.
"""

import re
from functools import lru_cache

from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS

DONTCARE = "dontcare"
UNKNOWN = "?"
"""What a database does not know."""

# [B18], [W19]: a slot that nobody has spoken of; [W19] reads a label of "none" so too.
_NOT_MENTIONED = frozenset({"", "none", "not mentioned", "not"})
# [B18] and [N21] have the first ones, [W19] the last two.
_DONTCARE = frozenset({"dontcare", "dont care", "do nt care", "do not care", "does not care", "any"})

_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_AREAS = ("north", "east", "south", "west", "centre")

# [N21]: words for a time of day.
_TIMES = {"morning": "08:00", "noon": "12:00", "lunch": "12:00", "midday": "12:00", "afternoon": "13:00"}
_TIME = re.compile(r"(\d{1,2})(?::?(\d{2}))?(am|pm)?")

# Misspelt or differently spelt words inside names, towns, foods and types: [H22], but for those marked.
_WORDS = {
    "guesthouse": "guest house",  # [B18]
    "guesthouses": "guest house",  # [W19]
    "center": "centre",
    "theater": "theatre",  # the release's own ontology has both
    "archaelogy": "archaeology",
    "fenditton": "fen ditton",
    "shaddia": "shaddai",
    "steveage": "stevenage",
    "stantsted": "stansted",
    "storthford": "stortford",
    "shortford": "stortford",
    "bringham": "birmingham",
    "liverpoool": "liverpool",
    "petersborough": "peterborough",
    "graffton": "grafton",
    "weish": "welsh",
    "brazliian": "brazilian",
    "portugese": "portuguese",
    "intalian": "italian",  # [N21]
    "italain": "italian",  # [N21]
    "europeon": "european",  # [N21]
    "mutliple": "multiple",  # [W19]; the database has it so
    "mutiple": "multiple",  # [W19]
    "musuem": "museum",  # [W19]
}
# Whole values: [H22] and [N21] for names and foods, [W19] for types.
_NAMES = {
    "caffee uno": "caffe uno",
    "cafe uno": "caffe uno",
    "christ college": "christs college",
    "churchills college": "churchill college",
    "saint johns chop shop house": "saint johns chop house",
    "gallery at 12": "gallery at twelve a high street",
    "gallery at 12 a high street": "gallery at twelve a high street",
    "cityrooms": "cityroomz",
    "restaurant 17": "restaurant one seven",
    "restaurant 2 2": "restaurant two two",
    "whale of time": "whale of a time",
}
_FOODS = {
    "asian": "asian oriental",
    "asian or oriental": "asian oriental",
    "asian and oriental": "asian oriental",
    "sea food": "seafood",
    "americas": "north american",
    "modern american": "north american",
}
_TYPES = {
    "concert": "concert hall",
    "sports": "multiple sports",
    "pool": "swimming pool",
    "colleges": "college",
    "churches": "church",
    "architectural": "architecture",
}
# [H22]: words at the ends of names that some labels have and others leave out.
_KINDS = ("hotel", "restaurant", "cinema", "guest house", "theatre", "airport", "street", "gallery", "museum")


@lru_cache(maxsize=1 << 16)
def normalise(slot: str, value: str) -> str:
    """The value of a slot in one spelling; empty where the slot is not mentioned.

    Alternatives stay, with `|` between them: the labels of 2.1 put `|`, `<` or `>` there ([E20]), which [Y22] reads as
    one and the same.

    Args:
        slot: such as `hotel-type`; a column of a database counts as one (`hotel-address`).
        value: of a label, a prediction or a database.
    """
    found = [_normalise_one(slot.partition("-")[2] or slot, part) for part in re.split(r"[|<>]", value)]
    return "|".join(dict.fromkeys(part for part in found if part))


def alternatives(value: str) -> tuple[str, ...]:
    """The values of which any is right."""
    return tuple(value.split("|"))


@lru_cache(maxsize=1 << 16)
def same_value(slot: str, predicted: str, expected: str) -> bool:
    """Whether a prediction is right: it is one of the label's alternatives ([H22]), or all of them.

    Names are compared as `name_key` has them. Both values are normalised first.

    Args:
        slot: such as `hotel-area`.
        predicted: a value, in any writing.
        expected: the label; `|` between alternatives.
    """
    first, second = (
        {_comparable(slot, part) for part in alternatives(normalise(slot, value))} for value in (predicted, expected)
    )
    return first == second or (len(first) == 1 and first <= second)


def name_key(name: str) -> str:
    """A normalised name without a leading "the" and a kind of place at its end: [H22] takes either for the other."""
    name = name.removeprefix("the ")
    for kind in _KINDS:
        if name.endswith(f" {kind}"):
            return name.removesuffix(f" {kind}")
    return name


def plain_text(text: str) -> str:
    """Lower case, one space between words, no punctuation inside names: the common ground of the rules ([B18]).

    A possessive is one word, however it was split: `king 's college`, `kings' college`, `king s college` ([H22]).
    """
    text = text.lower().replace("&", " and ").replace("-", " ")
    text = re.sub(r"\s*['’‘]\s*s\b", "s", text)
    text = re.sub(r"['’‘`]", "", text)
    text = re.sub(r"\bb and b\b", "bed and breakfast", text)
    text = re.sub(r"[,;!?\"()]|\.(?!\d)", " ", text)
    text = re.sub(r"(?<=\w) s(?= |$)", "s", " ".join(text.split()))
    return " ".join(_WORDS.get(word, word) for word in text.split())


def minutes(time: str) -> int | None:
    """Minutes since midnight of `HH:MM`, where a train may arrive at 24:08; None for anything else."""
    match = re.fullmatch(r"(\d\d):(\d\d)", time)
    return None if match is None else int(match[1]) * 60 + int(match[2])


def _normalise_one(slot: str, value: str) -> str:
    if value.strip() == UNKNOWN:
        return UNKNOWN
    bare = plain_text(value)
    if bare in _NOT_MENTIONED:
        return ""
    if bare in _DONTCARE:
        return DONTCARE
    if slot in ("arriveby", "leaveat", "book time"):
        return _time(value)
    if slot in ("stars", "book people", "book stay"):
        return _number(bare)
    if slot in ("day", "book day"):
        return _day(bare)
    if slot == "area":
        return _area(bare)
    if slot in ("parking", "internet"):
        return {"y": "yes", "n": "no", "free": "yes"}.get(bare.removesuffix(f" {slot}"), bare)  # [W19], [N21]
    if slot == "type":
        # The database writes guesthouse, swimmingpool, concerthall and nightclub; labels have both spellings
        # ([W19], [N21]): spaces do not count.
        return _TYPES.get(bare, bare).replace(" ", "")
    if slot == "pricerange":
        return "moderate" if bare.startswith("moderate") else bare  # [W19]
    return _FOODS.get(bare, bare) if slot == "food" else _NAMES.get(bare, bare)


def _time(value: str) -> str:
    """`HH:MM` of `9:00` ([H22]), `1500`, `5:45pm`, `after 15:45`, `9` and words such as `noon` ([N21])."""
    text = re.sub(r"\b(by|after|before|at|around|about)\b|[.,?]", " ", value.lower())
    text = re.sub(r"\s+", "", text)
    if text in _TIMES:
        return _TIMES[text]
    match = _TIME.fullmatch(text)
    if match is None:
        return " ".join(value.lower().split())
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    if half is not None and hour <= 12:
        hour = hour % 12 + 12 * (half == "pm")
    return f"{hour:02d}:{minute:02d}"


def _number(text: str) -> str:
    """Digits of `4 star` ([W19]) and of words (ours)."""
    digits = re.match(r"\d+", text)
    if digits is not None:
        return str(int(digits[0]))
    return _NUMBERS.get(text.partition(" ")[0], text)


def _day(text: str) -> str:
    """A day from its first three letters ([H22] has `sat`), the last word of `next friday` ([W19])."""
    last = text.split()[-1]
    if last.startswith("wend"):  # [H22]
        return "wednesday"
    return next((day for day in _DAYS if last.startswith(day[:3])), text)


def _area(text: str) -> str:
    """The one area that is named: `city centre`, `in the north`, `east side` ([W19])."""
    named = [area for area in _AREAS if area in text.split()]
    return named[0] if len(named) == 1 else text


def _comparable(slot: str, value: str) -> str:
    is_name = slot in (f"{domain}-{part}" for domain in DOMAINS for part in ("name", "departure", "destination"))
    return name_key(value) if is_name else value
