"""Which files are images by their names: those of every format whose pixels Pillow reads."""

from functools import cache

from PIL import Image, ImageFile

# EPS is a program that Pillow hands to Ghostscript, MPEG is known by its header alone, IPTC wraps other files.
_NOT_READ = frozenset({"EPS", "MPEG", "IPTC"})
# Pillow opens them by the plugin of another format.
_ALIASES = {"MPO": "JPEG"}
# Names that WebDataset's users ask for.
_USUAL = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff", "apng": "png"}


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of image files, in lower case, without the dot: of each format that Pillow has a decoder for."""
    Image.init()
    return frozenset(
        suffix.removeprefix(".")
        for suffix, name in Image.registered_extensions().items()
        if _is_read(_ALIASES.get(name, name))
    )


def suffix_of(path: str) -> str:
    """The suffix of a file's name in lower case, without the dot."""
    # A tenth of pathlib's time: a listing asks a million times.
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem else ""


def is_image_name(path: str) -> bool:
    """Whether a file is an image by its name."""
    return suffix_of(path) in image_suffixes()


def member_suffix(path: str, *, actual: str) -> str:
    """The suffix of an image's member in a shard.

    Args:
        path: of the image's file.
        actual: the suffix that its bytes would have, for a name that is none of an image.
    """
    suffix = suffix_of(path)
    suffix = suffix if suffix in image_suffixes() else actual
    return _USUAL.get(suffix, suffix)


def usual_suffix(name: str) -> str:
    """The suffix of a format by Pillow's name of it, without the dot: "jpg" of "JPEG", "jp2" of "JPEG2000"."""
    suffix = _ALIASES.get(name, name).lower()
    if suffix not in image_suffixes():
        of_format = (each for each, owner in Image.registered_extensions().items() if owner == name)
        suffix = next(of_format, suffix).removeprefix(".")
    return _USUAL.get(suffix, suffix)


def _is_read(name: str) -> bool:
    factory = Image.OPEN.get(name, (None,))[0]
    if factory is None or name in _NOT_READ:
        return False
    # Stubs know the header of a format, and leave its pixels to a handler that nobody has installed.
    return not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
