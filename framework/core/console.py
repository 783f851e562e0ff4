"""The terminal: what is going on is told on stderr, results are printed on stdout, and names are shown as they are.

Names, paths and messages come from outside. `[pad]` is a class and no markup, `:cat:` no emoji, and a name with line
breaks, signs that cannot be seen, the escape sequences of terminals, or one that is not UTF-8, is shown with those
escaped: a message is a line, whatever it names. Style is an argument of
`print` or a `rich.text.Text` of our own words; no other Console is made in the package (ruff holds it).
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TypeVar, cast

from rich.console import Console, JustifyMethod, OverflowMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.style import Style
from rich.table import Column
from rich.text import Text

Item = TypeVar("Item")
_PATIENCE_SECONDS = 10.0
"""What takes no longer says nothing where no bar can be shown."""
_SELDOM_SECONDS = 300.0
"""The most time between two such lines."""
_REDRAW_SECONDS = 0.1
_ROUND_RATE = 100
"""Images a second from which on parts of one are not told."""
_SLOW_SECONDS = 1800.0
"""Of so long the speed is taken that tells the time that is left."""

_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters and line breaks, what has no width or turns the direction of writing, and halves of characters.

Not the joiners, which emoji and several scripts are written with.
"""


_ROOMY = 60
"""Columns of a terminal on which a bar tells the time that has passed too."""
_WIDE = 200
"""Columns of what is not a terminal."""


def visible(text: str) -> str:
    r"""A text with characters that are no signs escaped: `\x1b` for what begins a terminal's commands."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LiteralConsole(Console):
    """A console that shows every text as it is, in lines and in tables.

    Args:
        stderr: write there instead of on stdout.
        soft_wrap: leave long lines to the terminal.
        width: in characters; by default the terminal's.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False)

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: Callable[[str | Text], Text] | None = None,
    ) -> Text:
        """A string as a line or a cell shows it, whatever was asked for.

        Args:
            text: the string.
            style: of all of it.
            justify: where it stands in its line.
            overflow: what becomes of a line that is too long.
            emoji: not regarded.
            markup: not regarded.
            highlight: not regarded.
            highlighter: not regarded.
        """
        # Rich cuts a cell's long words by default; a name goes on in the next line instead.
        overflow = overflow or (None if self.soft_wrap else "fold")
        return Text(visible(text), style=style, justify=justify, overflow=overflow)


console = LiteralConsole(stderr=True, soft_wrap=True)
"""For messages and bars of progress."""


def results(*, soft_wrap: bool = False, min_width: int = 0) -> LiteralConsole:
    """A console for results, on stdout; what is not a terminal gets wide lines, so that no name is cut.

    Args:
        soft_wrap: leave long lines to the terminal.
        min_width: in characters, where a narrow terminal would leave nothing to read.
    """
    out = LiteralConsole(soft_wrap=soft_wrap)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        min_width = max(min_width, _WIDE)
    out.width = max(min_width, out.width)
    return out


def escape_unencodable() -> None:
    """Characters that stdout's encoding does not have become escapes there, as on stderr, and no error."""
    stdout: object = sys.stdout
    if isinstance(stdout, TextIOWrapper):
        with suppress(OSError, ValueError):
            cast("TextIOWrapper[Any]", stdout).reconfigure(errors="backslashreplace")


def tracked(
    items: Iterable[Item],
    description: str,
    *,
    total: int | None = None,
    bar: bool = True,
    images: Callable[[Item], int] | None = None,
) -> Iterator[Item]:
    """Yields the items, and shows how many are done: a bar on a terminal, elsewhere now and then a line.

    Args:
        items: to be worked on, one after the other.
        description: of the work, for people.
        total: number of the items, where they do not tell; with `images`, of the images in them.
        bar: show one on a terminal; not where time is measured, which drawing it takes.
        images: how many images an item is. They are counted then, those of a second are shown, and a line at the end
            tells both.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    pace = _Pace(total=total, of_images=images is not None)
    with _drawn_bar(description, pace) if bar and console.is_interactive else _told_lines(description, pace):
        for item in items:
            yield item
            pace.advance(1 if images is None else images(item))
    if images is not None and pace.done:
        console.print(f"{description}: {pace.done:,} images in {pace.seconds:,.1f} s, {pace.rate()}")


class _Pace:
    """How far a loop is.

    Args:
        total: of what is counted, where it is known.
        of_images: whether that is images.
    """

    def __init__(self, *, total: int | None, of_images: bool) -> None:
        self.total, self.of_images = total, of_images
        self.done, self.seconds = 0, 0.0
        self.draw: Callable[[], None] = lambda: None
        self._start = time.monotonic()
        self._drawn = 0.0

    def advance(self, count: int) -> None:
        """So many more are done; what shows it is drawn anew, at most ten times a second."""
        self.done += count
        self.seconds = time.monotonic() - self._start
        if self.seconds - self._drawn >= _REDRAW_SECONDS:
            self._drawn = self.seconds
            self.draw()

    def rate(self) -> str:
        """Images a second of those that are done; nothing before the first, or where no images are counted."""
        if not (self.of_images and self.seconds):
            return ""
        rate = self.done / self.seconds
        return f"{rate:,.0f} images/s" if rate >= _ROUND_RATE else f"{rate:.3g} images/s"


@contextmanager
def _drawn_bar(description: str, pace: _Pace) -> Generator[None, None, None]:
    """A bar of progress, which the loop's pace draws.

    Args:
        description: of the work, for people.
        pace: of the loop.
    """
    roomy = console.width >= _ROOMY
    share = 2 / 5 if not pace.of_images else 1 / 4 if roomy else 1 / 7
    columns: list[ProgressColumn] = [_description_column(share), MofNCompleteColumn()]
    if pace.of_images:
        columns.append(TextColumn("{task.fields[rate]}", markup=False, table_column=Column(no_wrap=True)))
    if roomy or not pace.of_images:
        columns.append(BarColumn(min(40, console.width // 6)))
    if roomy and (console.width >= 2 * _ROOMY or not pace.of_images):
        columns.append(TimeElapsedColumn())
    columns.append(TimeRemainingColumn())
    # Of batches that take minutes each there are too few in Rich's 30 seconds to tell the time that is left.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_SLOW_SECONDS) as progress:
        task = progress.add_task(visible(description), total=pace.total, rate="")
        pace.draw = lambda: progress.update(task, completed=pace.done, rate=pace.rate())
        yield
        pace.draw()
        progress.refresh()


@contextmanager
def _told_lines(description: str, pace: _Pace) -> Generator[None, None, None]:
    """A line of progress after a while, and then ever more seldom.

    Args:
        description: of the work, for people.
        pace: of the loop.
    """
    of_all = f" of {pace.total:,}" if pace.total else ""

    def line(seconds: float) -> str:
        rate = f", {pace.rate()}" if pace.rate() else ""
        return f"{description}: {pace.done:,}{of_all} after {seconds:.0f} s{rate}"

    with _signs_of_life(line):
        yield


@contextmanager
def working(description: str, *, bar: bool = True) -> Generator[None, None, None]:
    """Shows that something is being worked on that cannot say how far it is, and for how long already.

    Args:
        description: of the work, for people.
        bar: as of `tracked`.
    """
    if bar and console.is_interactive:
        columns = (SpinnerColumn(), _description_column(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(visible(description), total=None)
            yield
        return
    with _signs_of_life(lambda seconds: f"{description}: {seconds:.0f} s so far"):
        yield


def _description_column(share: float = 2 / 5) -> TextColumn:
    """What is worked on, in a part of a line: the end of a long path gives way to the numbers."""
    column = Column(no_wrap=True, overflow="ellipsis", max_width=int(console.width * share))
    return TextColumn("{task.description}", markup=False, table_column=column)


@contextmanager
def _signs_of_life(line: Callable[[float], str]) -> Generator[None, None, None]:
    """Prints a line after a while, and then ever more seldom.

    Args:
        line: what to say after so many seconds.
    """
    done, start = threading.Event(), time.monotonic()

    def tell() -> None:
        wait = _PATIENCE_SECONDS
        while not done.wait(wait):
            console.print(line(time.monotonic() - start))
            wait = min(2 * wait, _SELDOM_SECONDS)

    thread = threading.Thread(target=tell, name="sign of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
