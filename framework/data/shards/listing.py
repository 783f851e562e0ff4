"""What a shard set is written from: the samples of a source, not read yet."""

from dataclasses import dataclass

from framework.data.shards.manifest import Skipped


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A sample that has not been read yet.

    Attributes:
        path: name inside the source, with forward slashes; its suffix is that of the sample's member, if it has one.
        label: class number; None for an episode.
        offset: where the sample begins, for a source that is one file; in bytes.
        size: of the sample there, in bytes.
    """

    path: str
    label: int | None
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The samples of a source.

    Attributes:
        classes: class names.
        files: the samples, in the order in which they are written.
        skipped: parts of the source that are no samples by their name, place or form.
        num_hidden: files that were ignored because a part of their path starts with a dot (or is `__MACOSX`).
    """

    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    skipped: tuple[Skipped, ...]
    num_hidden: int = 0
