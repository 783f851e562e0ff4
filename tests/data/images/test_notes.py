"""Notes are counted by what they say, and name the first image."""

from framework.data.images.notes import CONSTANT, TURNED, ImageNote, Note, NoteCounter


def test_counts_and_the_first_image():
    first, second = NoteCounter(), NoteCounter()
    first.add([TURNED, Note(what="damaged", detail="bad code")], source="a.jpg")
    first.add([TURNED], source="b.jpg")
    second.add([CONSTANT, TURNED], source="c.jpg")
    first.merge(second.notes())
    assert first.notes() == (
        ImageNote(what=TURNED.what, count=3, first="a.jpg"),
        ImageNote(what="damaged", count=1, first="a.jpg (bad code)"),
        ImageNote(what=CONSTANT.what, count=1, first="c.jpg"),
    )
