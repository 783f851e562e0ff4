"""What the general code knows of a method: one frozen record, with import paths in place of code.

A method is a folder whose `method.py` holds a `Method`, and an entry that names it: a line in `framework/methods.py`,
or an entry point of another distribution in the group `framework.methods`. Commands, plans, exports, the list of runs,
their reports and the measure of speed ask the record; they name no method. What a record names is imported when it is
needed, so `framework --help` waits for none of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from framework.core.errors import ConfigError
from framework.core.imports import import_object

ENTRY_POINTS = "framework.methods"
"""The group in which other distributions name their methods."""
_OTHERS = "sample"
"""Unit of modules that no method names."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `framework`.

    Attributes:
        help: its line in `framework --help`.
        function: import path (`module:function`) of the function whose arguments are its options; of a group, an import
            path for each command of it.
    """

    help: str
    function: str | Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What `framework export` writes of a checkpoint.

    Attributes:
        key: the key by which the state in a checkpoint is recognised; the module's `on_save_checkpoint` sets it.
        function: import path of what writes it: a function of the checkpoint (a verified folder), the target and
            `framework.training.export.ExportOptions` that returns what to tell the user.
    """

    key: str
    function: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method as the general code sees it; code is named by import paths, `module:name`.

    Attributes:
        name: in a word.
        description: in a line, for `framework --help`.
        modules: LightningModules that recipes name as `model.class_path`.
        sample_unit: what a sample is, such as image: speed is measured in it.
        loss: the training loss that `runs` and `report` show first, as the module logs it.
        validation_loss: such a validation loss.
        commands: by name, besides the general ones.
        subcommands: by the name of a general group of commands, such as shards, further commands of it.
        plan: a function of the recipe's `model.init_args` and a `framework.training.planning.PlannedRun` that returns
            the `Plan`; None where `framework plan` cannot tell.
        sizes: a function of the recipe's `model.init_args` that returns settings of its `architecture` for each size of
            the model, the largest first; None where there is one size.
        exports: what can be exported.
        report: a function of a run's folder, its metrics (values by step, by name) and the steps at which later starts
            took over, that returns the `framework.report.section.Section`s of the run's page; none of a run that holds
            nothing of this method.
    """

    name: str
    description: str
    modules: tuple[str, ...] = ()
    sample_unit: str = _OTHERS
    loss: str = "loss/total"
    validation_loss: str = "validation/total"
    commands: Mapping[str, Command] = field(default_factory=dict[str, Command])
    subcommands: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    plan: str | None = None
    sizes: str | None = None
    exports: tuple[Export, ...] = ()
    report: str | None = None

    @property
    def class_paths(self) -> tuple[str, ...]:
        """The modules as recipes name them: `package.module.Class`."""
        return tuple(path.replace(":", ".") for path in self.modules)


def load_methods(table: Sequence[str]) -> tuple[Method, ...]:
    """The methods of a table, and after them those of other distributions.

    Args:
        table: an import path for each record.

    Raises:
        ConfigError: an entry that leads to no record, or two methods of one name.
    """
    found: dict[str, Method] = {}
    others = entry_points(group=ENTRY_POINTS)
    for path in (*table, *(entry.value for entry in others)):
        method = import_object(path)
        if not isinstance(method, Method):
            raise ConfigError(f"{path} is not a Method", hint=f"name a record in the group {ENTRY_POINTS}")
        if found.setdefault(method.name, method) is not method:
            raise ConfigError(f"{path} is a second method {method.name!r}", hint="remove one of the distributions")
    return tuple(found.values())


def method_of(module: type | str | None, methods: Sequence[Method]) -> Method | None:
    """The method that a LightningModule belongs to: its class, or the class path of a recipe.

    Args:
        module: a class, of which also the bases are looked for; or a class path; None for what is not known.
        methods: to choose from.
    """
    if isinstance(module, type):
        paths = [f"{each.__module__}.{each.__qualname__}" for each in module.__mro__]
    else:
        paths = [module]
    return next((method for path in paths for method in methods if path in method.class_paths), None)


def sample_unit_of(module: type, methods: Sequence[Method]) -> str:
    """What a sample of a LightningModule is called; `sample` where no method knows it."""
    method = method_of(module, methods)
    return _OTHERS if method is None else method.sample_unit
