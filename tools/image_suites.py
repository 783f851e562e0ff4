"""How images are read, against Pillow's own reading, over folders of test images: counts, and each difference.

    tools/image_suites.py compare FOLDER...      public suites, such as python-pillow's Tests/images and PngSuite
    tools/image_suites.py damage FOLDER...       sound JPEGs: how many are refused once they are damaged

Pillow's own reading: `ImageOps.exif_transpose`, integers scaled by the depth that the file states, transparency over
white in float. Equal means no pixel further than 1 of 255 apart, which is the rounding.
"""

import io
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from framework.data.images.complaints import listen_to_libtiff
from framework.data.images.decoding import read_image
from framework.data.images.options import DEFAULT, ReadOptions, UnreadableImage

_NOT_IMAGES = (".gpl", ".ggr", ".json", ".lut", ".md", ".pdf", ".pkl", ".py", ".rs", ".toml", ".txt", ".yml", "")
_NUM_DAMAGED = 60
_ZEROS = 512
_END = b"\xff\xd9"


class NoRange(Exception):
    """Pixels that Pillow opens, of a range that the file does not state."""


def by_pillow(data: bytes) -> np.ndarray:
    """Pixels 0..255 as float, RGB or gray; raises NoRange, or whatever Pillow raises."""
    image = Image.open(io.BytesIO(data))
    image.load()
    tags = getattr(image, "tag_v2", None)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or (tags and 2 in np.atleast_1d(tags.get(339, 1))):
        raise NoRange("float or signed")
    if image.mode.startswith("I"):
        if tags is None and image.format not in ("PNG", "PPM", "JPEG2000", None):
            raise NoRange("integers of a format without a depth")
        bits = 16 if tags is None else int(np.max(tags.get(258, 1)))
        values = np.asarray(image).astype(np.float64) % 2.0**bits * 255 / (2.0**bits - 1)
        values = 255 - values if tags is not None and tags.get(262) == 0 else values
        if isinstance(image.info.get("transparency"), int):
            values[np.asarray(image) == image.info["transparency"]] = 255
        return values[..., None]
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")).astype(np.float64)
    if image.mode == "La":
        image = image.convert("LA")
    pixels = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


def outcome(data: bytes) -> tuple[str, str]:
    """What became of one image, in a few words, and the reason."""
    expected, pillows = None, ""
    with listen_to_libtiff():  # Off the terminal.
        try:
            expected = by_pillow(data)
        except NoRange as error:
            pillows = str(error)
        except Exception as error:  # Whatever a decoder raises.
            pillows = f"Pillow: {error or type(error).__name__}"
    try:
        pixels = read_image(data).pixels.astype(np.float64)
    except UnreadableImage as error:
        return ("refused by both" if pillows.startswith("Pillow") else "refused, opened by Pillow"), str(error)
    if expected is None:
        return "read, not by Pillow", pillows
    if pixels.shape[:2] != expected.shape[:2]:
        return "of another size", f"{pixels.shape} {expected.shape}"
    furthest = np.abs(pixels - expected).max()
    return ("equal", "") if furthest <= 1 else ("different", f"{furthest:.0f} of 255 apart")


def files(folder: str) -> Iterator[Path]:
    """The files that may be images."""
    return (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.suffix not in _NOT_IMAGES)


def compare(folders: list[str]) -> None:
    """Prints a line for each folder, then each image that is neither equal nor refused by both."""
    told: list[str] = []
    for folder in folders:
        counts: Counter[str] = Counter()
        for path in files(folder):
            what, reason = outcome(path.read_bytes())
            counts[what] += 1
            if reason and what != "refused by both":
                told.append(f"{what}: {path.name}: {reason}")
        print(
            f"{folder}: {counts.total()} files; " + ", ".join(f"{count} {what}" for what, count in counts.most_common())
        )
    print("\n".join(told))


def damage(folders: list[str]) -> None:
    """Prints how many sound JPEGs are refused as they are, and of the first ones once they are damaged."""
    for folder in folders:
        photos = [path.read_bytes() for path in files(folder) if path.suffix.lower() in (".jpg", ".jpeg")]
        print(f"{folder}: {len(photos)} JPEGs, {sum(map(is_refused, photos))} refused as they are")
        chosen = photos[:_NUM_DAMAGED]
        for name, change in (
            ("cut in half, with an end", lambda data: data[: len(data) // 2] + _END),
            ("second half zeroed, with an end", lambda data: data[: len(data) // 2] + bytes(len(data) // 2) + _END),
            (f"{_ZEROS} bytes zeroed in the middle", zeroed),
        ):
            changed = [change(data) for data in chosen]
            kept = sum(not is_refused(data, ReadOptions(damaged="keep")) for data in changed)
            print(
                f"  {name}: {sum(map(is_refused, changed))} of {len(changed)} refused, {kept} read with --damaged keep"
            )


def zeroed(data: bytes) -> bytes:
    """The file with some bytes in the middle zeroed."""
    middle = len(data) // 2
    return data[:middle] + bytes(_ZEROS) + data[middle + _ZEROS :]


def is_refused(data: bytes, options: ReadOptions = DEFAULT) -> bool:
    """Whether an image cannot be read."""
    try:
        read_image(data, options=options)
    except UnreadableImage:
        return True
    return False


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    commands = {"compare": compare, "damage": damage}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2:])
