"""The terminal: what is going on is told on stderr, results are printed on stdout."""

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""For messages and bars of progress."""
