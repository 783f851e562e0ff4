"""Numbers and times in few characters, for the pages."""

from datetime import datetime


def short(value: float) -> str:
    """A number in few characters: 12.5k, 0.003, 2e-07."""
    size = abs(value)
    if size >= 1e15 or (value and size < 1e-4):
        return f"{value:.2g}"
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.4g}"


def moment(time: str) -> str:
    """A time in ISO 8601 to the minute: 2026-03-04 09:15."""
    return time[:16].replace("T", " ")


def seconds_between(begin: str, end: str) -> float:
    """Seconds from a time in ISO 8601 to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def duration(seconds: float) -> str:
    """A duration in its two largest units: 2 h 05 min, 3 min 20 s, 7 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
