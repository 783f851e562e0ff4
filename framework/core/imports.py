"""Code that is named by its import path, and imported when it is asked for."""

import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from framework.core.errors import ConfigError, FrameworkError
from framework.core.moved.import_paths import current_path


def import_object(path: str) -> Any:
    """What is at `package.module:name`, such as `package.module:Class.method`, or `package.module.name`.

    Raises:
        ConfigError: no such module or name, or a module that fails when it is imported; of a path of before a move,
            the hint is the new one.
    """
    module, _, name = path.rpartition(":" if ":" in path else ".")
    try:
        return attrgetter(name)(import_module(module))
    except FrameworkError:
        raise
    except (Exception, SystemExit) as error:
        moved = current_path(path)
        hint = f"it has moved, use {moved}" if moved != path else "give an import path such as package.module:function"
        raise ConfigError(f"{path!r} cannot be imported ({type(error).__name__}: {error})", hint=hint) from error


def look_in_folder(folder: Path) -> None:
    """Lets modules be imported from a folder, after all others."""
    if (path := str(folder.resolve())) not in sys.path:
        sys.path.append(path)


def look_in_current_folder() -> None:
    """Lets modules be imported from the current folder, after all others, as `python -m` does."""
    look_in_folder(Path.cwd())
