"""What a parser of command lines and recipes says about a mistake, in one line: where, what, and what would do.

jsonargparse tells of types and of keys as its code sees them; here its messages become the setting's whole name, the
file and line it stands in, and the choices or the nearest name that there is.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from framework.core.errors import ConfigError
from framework.core.settings.yaml_keys import Key, KeyPath

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
    "tuple": "a list",
    "ClosedUnitInterval": "a share from 0.0 to 1.0",
}
_UNKNOWN = (
    re.compile(r"Subcommand '[\w-]+' does not accept option '(?P<key>[^']+)'"),
    re.compile(r"Group '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"unrecognized arguments: --(?P<key>[^\s=]+)"),
)
_UNEXPECTED = re.compile(r"unrecognized arguments: (?P<word>[^-]\S*)")
_MISSING = re.compile(r"the following arguments are required: (?P<names>.*)")
_NO_VALUE = re.compile(r"argument (?:-\w/)?(?P<option>--\S+): expected one argument")
_NO_CONFIG = re.compile(r"Unexpected config: *(?P<value>.*)")
_NOT_A_FUNCTION = re.compile(r"expects a function or a callable class: (?P<reason>.*?)\. Got value: (?P<path>.*)")
_NOT_OF_KIND = re.compile(r"Import path (?P<path>\S+) does not correspond to a subclass")
_NO_IMPORT_PATH = re.compile(r"Expected a dot import path string: (?P<path>.*)")
_NOT_TEXT = re.compile(r"Key must be a string, got: (?P<key>.*?)\.?$")
_CLASS = re.compile(r"""'class_path': ['"]?(?P<path>[^'",}]*)""")
_VALUE = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<problem>.*)', re.DOTALL)
_LISTED = 12
"""So many names are listed at most."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was given to a command: the words of its line, and the keys of its recipes.

    Attributes:
        command: its name.
        words: after it.
        files: the keys of each recipe, in the order of reading.
        classes: class paths that a recipe or an option may name.
        reads_recipes: whether the command reads recipes.
        refused: by a setting's whole name, which of the choices that its type has are refused later.
    """

    command: str = ""
    words: tuple[str, ...] = ()
    files: Mapping[Path, Mapping[KeyPath, Key]] = field(default_factory=dict[Path, Mapping[KeyPath, Key]])
    classes: tuple[str, ...] = ()
    reads_recipes: bool = False
    refused: Mapping[str, Callable[[str], bool]] = field(default_factory=dict[str, Callable[[str], bool]])

    def where(self, name: str) -> str:
        """Where a recipe has a key of this last word; YAML may read the word as a number or as nothing."""
        words = {name, name.lower(), *(("null", "~") if name == "None" else ())}
        for file, keys in self.files.items():
            for path, key in keys.items():
                if path[-1] in words:
                    return f"{file}, line {key.line}: "
        return ""

    def is_beside_class(self, key: str) -> bool:
        """Whether a setting of this whole name, or one that it is in, stands beside a class_path."""
        parts = key.split(".")
        groups = [tuple(parts[:end]) for end in range(1, len(parts)) if parts[end] != "init_args"]
        paths = [(*group, "class_path") for group in groups]
        return parts[-1] == "class_path" or any(path in keys for keys in self.files.values() for path in paths)

    def find(self, key: str) -> tuple[str, str]:
        """A setting's whole name, and where it was given: `recipe.yaml, line 3: ` or nothing for the command line.

        Args:
            key: dotted, perhaps without what stands before it: parsers of classes know their own arguments alone.
        """
        for word in self.words:
            name = word.removeprefix("--").partition("=")[0]
            if word.startswith("--") and (name == key or name.endswith(f".{key}")):
                return f"--{name}", ""
        tail = tuple(key.split("."))
        for file, keys in reversed(list(self.files.items())):
            for path, each in keys.items():
                if path[-len(tail) :] == tail:
                    return ".".join(path), f"{file}, line {each.line}: "
        return key, ""


def describe_mistake(message: str, known: Iterable[str], given: Given) -> str:
    """One line for a parser's message.

    Args:
        message: of jsonargparse.
        known: the settings of the parser, dotted.
        given: what was given to the command.
    """
    for form in _UNKNOWN:
        if found := form.search(message):
            group = found.groupdict().get("group")
            key = f"{group}.{found['key']}" if group else found["key"]
            return _unknown(key, sorted(known), given)
    if found := _UNEXPECTED.search(message):
        word = found["word"]
        is_recipe = word.endswith((".yaml", ".yml"))
        return f"{word} stands alone: " + (f"give a recipe as --config {word}" if is_recipe else "leave it out")
    if told := _of_command_line(message, given):
        return told
    if found := _NOT_TEXT.search(message):
        where = given.where(found["key"])
        return f"{where}the key {found['key']} is not a name: settings are given by theirs"
    if found := _VALUE.search(message):
        return _wrong_value(found["key"], found["problem"], given)
    return _first_cause(message)


def _of_command_line(message: str, given: Given) -> str | None:
    """A mistake in how options are given at all."""
    if found := _MISSING.search(message):
        before = f"{given.command.replace(' ', '.')}."
        names = [name.removeprefix(before) for name in found["names"].split(", ")]
        told = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
        return f"{told}: give a recipe with --config" if given.reads_recipes and not given.files else told
    if found := _NO_VALUE.search(message):
        return f"{found['option']} has no value: give one behind it"
    if found := _NO_CONFIG.search(message):
        return f"--config is {found['value'].strip()!r}: give the path of a recipe"
    return None


def _unknown(key: str, known: Sequence[str], given: Given) -> str:
    if any(word.partition("=")[0].startswith(f"--{key} ") for word in given.words):
        return f"--{key} and its value are one word: give them as two, or as --{key}=VALUE"
    full, where = given.find(key)
    if given.is_beside_class(full):
        return f"{where}{full}: a class is given by class_path and init_args, and by no other key beside them"
    before = full[: -len(key)]
    if near := nearest(key, known):
        return f"{where}{full} is not a setting: did you mean {before}{near}?"
    return f"{where}{full} is not a setting" + _known_here(key, known)


def find_misfit(defaults: Mapping[str, object], given: Given, *, below: KeyPath = ()) -> ConfigError | None:
    """A group of settings that is a plain value, or a list, or empty in a recipe.

    Args:
        defaults: of the settings that there are, dotted.
        given: what was given to the command.
        below: the keys under which they stand in a recipe.
    """
    groups = {name.rsplit(".", count)[0] for name in defaults for count in range(1, name.count(".") + 1)}
    for name, where, key in _below(given, below):
        if name in groups and key.holds != "mapping":
            return ConfigError(
                f"{where} is {key.text or key.holds}",
                hint="it is a group of settings: give them by name, or leave it out",
            )
    return None


def find_empty(defaults: Mapping[str, object], given: Given, *, below: KeyPath = ()) -> ConfigError | None:
    """A setting that is there without a value in a recipe, and by default has one.

    Args:
        defaults: of the settings that there are, dotted.
        given: what was given to the command.
        below: the keys under which they stand in a recipe.
    """
    for name, where, key in _below(given, below):
        if key.holds == "null" and defaults.get(name) is not None:
            return ConfigError(f"{where} is null", hint="give a value, or leave it out")
    return None


def _below(given: Given, below: KeyPath) -> Iterator[tuple[str, str, Key]]:
    """The keys of all recipes under some: their names from there, where they stand, and what they hold."""
    for file, keys in given.files.items():
        for path, key in keys.items():
            if path[: len(below)] == below and len(path) > len(below):
                yield ".".join(path[len(below) :]), f"{file}, line {key.line}: {'.'.join(path)}", key


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The known setting that a key was meant to be: of the same last word in another group, or spelt like it."""
    group, _, name = key.rpartition(".")
    same = [each for each in known if each.rpartition(".")[2] == name]
    if len(same) == 1:
        return same[0]
    beside = {each.rpartition(".")[2]: each for each in known if each.rpartition(".")[0] == group}
    # Of groups that are misspelt themselves.
    groups = {each.rsplit(".", count)[0] for each in known for count in range(1, each.count(".") + 1)}
    beside |= {each.rpartition(".")[2]: each for each in groups if each.rpartition(".")[0] == group}
    for names, cutoff in ((beside, 0.6), ({each: each for each in known}, 0.8)):
        wanted = name if names is beside else key
        if close := get_close_matches(wanted, names, n=1, cutoff=cutoff):
            return names[close[0]]
    return None


def _known_here(key: str, known: Sequence[str]) -> str:
    """The settings that stand beside one that does not exist, if they are few."""
    group = key.rpartition(".")[0]
    start = f"{group}." if group else ""
    names = sorted({each.removeprefix(start).partition(".")[0] for each in known if each.startswith(start)})
    if not names or len(names) > _LISTED:
        return ""
    return f": use one of {', '.join(names)}"


def _wrong_value(key: str, problem: str, given: Given) -> str:
    full, where = given.find(key)
    value, expected = _value_of(problem), _expected(problem)
    if "Problem with given class_path" in problem:
        return f"{where}{full}: {_class_problem(problem, given.classes)}"
    if value and (named := _CLASS.search(value)):
        if named["path"] in given.classes:
            return f"{where}{full}: a class is given by class_path and init_args, and by no other key beside them"
        told = f"{where}{full} is {named['path']}, which is not a class of the kind that belongs here"
        return f"{told}: {_near_class(named['path'], given.classes)}"
    if found := _NOT_A_FUNCTION.search(problem):
        told = f"{where}{full}: {found['path']!r} cannot be imported ({found['reason']})"
        return f"{told}: give the import path of a function, such as package.module.function"
    if found := _NOT_OF_KIND.search(problem):
        told = f"{where}{full} is {found['path']}, which is not a class of the kind that belongs here"
        return f"{told}: {_near_class(found['path'], given.classes)}"
    if "is abstract" in problem and given.classes:
        return f"{where}{full} has arguments but no class: {_near_class('', given.classes)}"
    if (found := _NO_IMPORT_PATH.search(problem)) and given.classes:
        told = f"{where}{full} is {found['path'] or 'empty'}, which is not a class"
        return f"{told}: {_near_class(found['path'], given.classes)}"
    if "Not a valid subclass" in problem or "dot import path" in problem:
        return f"{where}{full} is not a class: give class_path, and its arguments as init_args"
    if found := re.search(r"Expected a tuple with (\d+) elements", problem):
        return f"{where}{full} is {value}: give a list of {found[1]}"
    if found := re.search(r"Unable to load config (?:'(.*?)'|\"(.*?)\")", problem, re.DOTALL):
        return f"{where}{full} is {found[1] or found[2]}: it is a group of settings, give them by name"
    if value is None or not expected:
        return f"{where}{full}: {_first_cause(problem)}"
    refused = given.refused.get(full.removeprefix("--"), lambda choice: False)
    choices = [each for each in dict.fromkeys(expected) if each not in _TYPES.values() and not refused(each)]
    others = [each for each in dict.fromkeys(expected) if each in _TYPES.values()]
    if _TYPES["float"] in others and _TYPES["int"] in others:
        others.remove(_TYPES["int"])
    close = get_close_matches(value, choices, n=1)
    wanted = f"use one of {', '.join(choices)}" if choices else f"give {others.pop(0)}"
    wanted += "".join(f", or {each}" for each in others)
    return f"{where}{full} is {value}: {wanted}" + (f"; did you mean {close[0]}?" if close else "")


def _value_of(problem: str) -> str | None:
    """The value that was refused: within a list or a mapping the one in it."""
    found = re.search(r"Got value: (.*)", problem) or re.search(r"Given value: (.*)", problem)
    return None if found is None else found[1].strip()


def _expected(problem: str) -> list[str]:
    """What a value may be: names of types, and the choices of a literal type."""
    inner = re.search(r"Expected a ([^\n]*?)\. Got value", problem)
    listed = re.search(r"Subtypes: \[(.*)\]", problem)
    text = inner[1] if inner else listed[1] if listed else ""
    found: list[str] = []
    for literal in re.findall(r"Literal\[(.*?)\]", text):
        found += [str(each) for each in ast.literal_eval(f"({literal},)")]
    text = re.sub(r"typing\.Literal\[.*?\]", "", text)
    for name in re.findall(r"<class '(?:[\w.]+\.)?(\w+)'>|^(\w+)|, (\w+)\[", text):
        found += [_TYPES[each] for each in name if each in _TYPES]
    return found


def _class_problem(problem: str, classes: Sequence[str]) -> str:
    found = re.search(r"Problem with given class_path '([^']+)':\s*(.*)", problem, re.DOTALL)
    assert found is not None
    reason = found[2].partition("\n- Expected")[0].partition("\n    - ")[0]
    told = f"{found[1]} cannot be used ({' '.join(reason.split())})"
    close = get_close_matches(found[1], classes, n=1, cutoff=0.5)
    return f"{told}: did you mean {close[0]}?" if close else told


def _near_class(path: str, classes: Sequence[str]) -> str:
    short = {each.rpartition(".")[2].lower(): each for each in reversed(classes)}
    if path and (close := get_close_matches(path, classes, n=1, cutoff=0.5)):
        return f"did you mean {close[0]}?"
    if path and (close := get_close_matches(path.rpartition(".")[2].lower(), short, n=1, cutoff=0.45)):
        return f"did you mean {short[close[0]]}?"
    if 0 < len(classes) <= _LISTED:
        return f"use one of {', '.join(classes)}, or the import path of another"
    return "framework fit --help lists those that there are"


def _first_cause(message: str) -> str:
    """One line of a parser's message: where it lists a cause for each type that a value could have, the first."""
    message = message.partition("Given value type:")[0]
    _, listed, causes = message.partition("Errors:")
    if listed:
        message = re.split(r"\n\s*- ", causes.strip().removeprefix("- "))[0]
    return " ".join(message.split())
