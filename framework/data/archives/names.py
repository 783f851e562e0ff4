"""Names of files and members as they come: on their way into text, and out of archives."""


def printable(name: str) -> str:
    r"""A name that any text can hold: bytes that are not UTF-8, which Python keeps as surrogates, as `\xe9`."""
    if name.isascii():
        return name
    try:
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # Half of a pair, which is no byte: from JSON, or a name of another system.
        return name.encode(errors="backslashreplace").decode()


def inside(name: str) -> str | None:
    """A member's path without `.` and empty parts (`./a//b` is `a/b`); None where it points outside of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts else "/".join(parts)
