"""What is worth telling about images that can be used: noted for each, counted for a set."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something to be told about an image.

    Attributes:
        what: the kind of thing, the same words for each image that has it.
        detail: more about this image; may be empty.
    """

    what: str
    detail: str = ""


TURNED = Note(what="turned upright by the EXIF orientation")
NOT_TURNED = Note(what="EXIF orientation ignored")
TRANSPARENT = Note(what="fully transparent, so all white")
CONSTANT = Note(what="nearly one colour")
DAMAGED = "damaged, but kept"
WARNING = "warning of the decoder"


@dataclass(frozen=True, kw_only=True)
class ImageNote:
    """The same note about several images of a set.

    Attributes:
        what: is told.
        count: images of which it holds.
        first: one of them, by its path in the source, and perhaps more about it.
    """

    what: str
    count: int
    first: str


class NoteCounter:
    """Counts notes by what they say, and keeps the first image of each."""

    def __init__(self) -> None:
        self._notes: dict[str, ImageNote] = {}

    def add(self, notes: Iterable[Note], *, source: str) -> None:
        """The notes about one image, which is called `source`."""
        for note in notes:
            first = f"{source} ({note.detail})" if note.detail else source
            self.merge([ImageNote(what=note.what, count=1, first=first)])

    def merge(self, notes: Iterable[ImageNote]) -> None:
        """The notes about images that come behind the others."""
        for note in notes:
            known = self._notes.get(note.what)
            self._notes[note.what] = note if known is None else replace(known, count=known.count + note.count)

    def notes(self) -> tuple[ImageNote, ...]:
        """What was counted, the most frequent first."""
        return tuple(sorted(self._notes.values(), key=lambda note: (-note.count, note.what)))
