"""What a parser's message becomes: the setting, where it stands, and what would do."""

from pathlib import Path

import pytest

from framework.core.settings.mistakes import Given, describe_mistake, find_empty, find_misfit, nearest
from framework.core.settings.yaml_keys import read_keys

FILE = Path("r.yaml")
KNOWN = ["data.train", "data.images.size", "data.images.crop", "trainer.max_steps", "trainer.precision", "run.dir"]


def given(text: str = "", *words: str) -> Given:
    return Given(words=words, files={FILE: read_keys(text)}, classes=("framework.pra.module.PRAModule",))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("trainer.max_stepz", "trainer.max_steps"),
        ("data.size", "data.images.size"),
        ("trianer.max_steps", "trainer.max_steps"),
        ("trianer", "trainer"),
        ("data.image", "data.images"),
        ("data.images.krop", "data.images.crop"),
        ("colour", None),
    ],
)
def test_the_nearest_setting(key: str, expected: str | None):
    assert nearest(key, KNOWN) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Subcommand 'fit' does not accept option 'trainer.max_stepz'",
            "r.yaml, line 2: trainer.max_stepz is not a setting: did you mean trainer.max_steps?",
        ),
        (
            "Group 'data' does not accept option 'siez'",
            "r.yaml, line 1: data.siez is not a setting: use one of images, train",
        ),
        ("Option 'colour' is not accepted", "colour is not a setting: use one of data, run, trainer"),
        (
            'Parser key "trainer.precision":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
            "[typing.Literal[64, 32], typing.Literal['bf16-mixed', '32-true'], <class 'NoneType'>]\n  Errors:\n"
            "    - Expected a <class 'int'>\n  Given value type: <class 'str'>\n  Given value: bf16mixed",
            "r.yaml, line 3: trainer.precision is bf16mixed: use one of 64, 32, bf16-mixed, 32-true, or null; "
            "did you mean bf16-mixed?",
        ),
        (
            'Parser key "trainer.limit":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
            "[<class 'int'>, <class 'float'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
            "  Given value type: <class 'str'>\n  Given value: many",
            "trainer.limit is many: give a number, or null",
        ),
        (
            "Parser key \"data.train\":\n  Expected a <class 'float'>. Got value: x",
            "r.yaml, line 1: data.train is x: give a number",
        ),
        (
            'Parser key "betas":\n  Expected a tuple with 2 elements. Got value: [1]',
            "betas is [1]: give a list of 2",
        ),
        (
            'Parser key "data":\nUnable to load config \'3\'\n  - Parser key "data": Unable to load config "3"',
            "r.yaml, line 1: data is 3: it is a group of settings, give them by name",
        ),
        (
            "Parser key \"model\":\n  Errors:\n    - Problem with given class_path 'framework.pra.modul.PRAModule':\n"
            "        No module named x\n    - Expected a <class 'NoneType'>\n  Given value: {}",
            "model: framework.pra.modul.PRAModule cannot be used (No module named x): "
            "did you mean framework.pra.module.PRAModule?",
        ),
        (
            'Parser key "model":\n  Errors:\n    - Expected a dot import path string: Missing\n  Given value: Missing',
            "model is Missing, which is not a class: use one of framework.pra.module.PRAModule, or the import path of "
            "another",
        ),
        (
            "Parser key \"model\":\n  Not a valid subclass of LightningModule. Got value: {'class_path': "
            "'torch.nn.Linear', 'init_args': {'a': 1}}\n",
            "model is torch.nn.Linear, which is not a class of the kind that belongs here: use one of "
            "framework.pra.module.PRAModule, or the import path of another",
        ),
        ("unrecognized arguments: r.yaml", "r.yaml stands alone: give a recipe as --config r.yaml"),
        ("Key must be a string, got: 3.", "the key 3 is not a name: settings are given by theirs"),
        ("the following arguments are required: run.dir", "run.dir is missing"),
        ("unrecognized arguments: c", "c stands alone: leave it out"),
        ("argument --num: expected one argument", "--num has no value: give one behind it"),
        ("argument -c/--config: expected one argument", "--config has no value: give one behind it"),
        ("Unexpected config: ", "--config is '': give the path of a recipe"),
        (
            'Parser key "function":\n  Type Callable[[str], str] expects a function or a callable class: '
            "No module named 'x'. Got value: x.f",
            "function: 'x.f' cannot be imported (No module named 'x'): give the import path of a function, such as "
            "package.module.function",
        ),
        (
            'Parser key "model":\n  - Import path json.JSONDecoder does not correspond to a subclass of X',
            "model is json.JSONDecoder, which is not a class of the kind that belongs here: use one of "
            "framework.pra.module.PRAModule, or the import path of another",
        ),
        (
            'Parser key "model":\n  Expected a dot import path string: pra',
            "model is pra, which is not a class: did you mean framework.pra.module.PRAModule?",
        ),
        (
            'Parser key "model":\n  Expected an instantiatable class, but a.B is abstract',
            "model has arguments but no class: use one of framework.pra.module.PRAModule, or the import path of "
            "another",
        ),
    ],
)
def test_a_message_in_one_line(message: str, expected: str):
    recipe = "data: {siez: 3, train: x}\ntrainer: {max_stepz: 3,\n precision: bf16mixed}\n"
    assert describe_mistake(message, KNOWN, given(recipe, "--data.images.krop", "x")) == expected


def test_a_parser_of_a_class_knows_its_own_arguments_alone():
    told = describe_mistake("unrecognized arguments: --images.krop=x", ["images.crop"], given("", "--data.images.krop"))
    assert told == "--data.images.krop is not a setting: did you mean --data.images.crop?"


def test_an_option_and_its_value_in_one_word():
    told = describe_mistake("unrecognized arguments: --data.images.size 3", KNOWN, given("", "--data.images.size 3"))
    assert told == "--data.images.size and its value are one word: give them as two, or as --data.images.size=VALUE"


def test_a_value_of_the_command_line_is_named_as_its_option():
    message = "Parser key \"optimizer.learning_rate\":\n  Expected a <class 'float'>. Got value: fast"
    told = describe_mistake(message, KNOWN, given("a: 1", "--model.optimizer.learning_rate=fast"))
    assert told == "--model.optimizer.learning_rate is fast: give a number"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("data: [1]", "r.yaml, line 1: data is a list"),
        ("data:\n  images: 3", "r.yaml, line 2: data.images is 3"),
        ("data:", "r.yaml, line 1: data is null"),
    ],
)
def test_groups_that_are_no_groups(recipe: str, words: str):
    found = find_misfit(dict.fromkeys(KNOWN), given(recipe))
    assert found is not None
    assert words in str(found)


def test_groups_below_a_class_and_what_is_not_a_group():
    recipe = "model: {init_args: {images: 3}}\ndata: {train: [1]}"
    assert find_misfit({"images.size": 3}, given(recipe), below=("model", "init_args")) is not None
    assert find_misfit(dict.fromkeys(KNOWN), given(recipe)) is None


def test_a_setting_without_a_value():
    found = find_empty({"run.dir": "x", "run.name": None}, given("run: {name: , dir: }"))
    assert found is not None
    assert "r.yaml, line 1: run.dir is null: give a value" in str(found)
    assert find_empty({"run.name": None}, given("run: {name: }")) is None


def test_the_line_of_a_key_that_is_not_a_name():
    for text, name in (("a: 1\n3: 4", "3"), ("a: 1\n~: 4", "None"), ("a: 1\ntrue: 4", "True")):
        told = describe_mistake(f"Key must be a string, got: {name}.", KNOWN, given(text))
        assert told == f"r.yaml, line 2: the key {name} is not a name: settings are given by theirs"


@pytest.mark.parametrize("key", ["model.init_arg.width", "model.args"])
def test_a_key_beside_a_class(key: str):
    recipe = given("model: {class_path: a.B, init_arg: {width: 1}, args: 2, init_args: {width: 1}}")
    told = describe_mistake(f"Option '{key}' is not accepted", KNOWN, recipe)
    assert (
        told == f"r.yaml, line 1: {key}: a class is given by class_path and init_args, and by no other key beside them"
    )
    assert not recipe.is_beside_class("model.init_args.width")


def test_choices_that_would_be_refused_later_are_not_offered():
    message = (
        "Parser key \"trainer.precision\":\n  Subtypes: [typing.Literal[64, 32], typing.Literal['bf16-true', "
        "'32-true'], <class 'NoneType'>]\n  Errors:\n  - Expected a <class 'int'>\n  Given value: x"
    )
    refused = {"trainer.precision": lambda choice: choice in ("64", "bf16-true")}
    told = describe_mistake(message, KNOWN, Given(refused=refused))
    assert told == "trainer.precision is x: use one of 32, 32-true, or null"
