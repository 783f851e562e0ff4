"""Images in class folders, in a directory or a zip archive, to shards."""

from pathlib import Path

from framework.core.errors import DataError
from framework.data.convert.source_files import list_images, open_source
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.manifest import Manifest
from framework.data.shards.writer import WriteOptions, write_listing


def write_image_shards(
    source: str | Path,
    dest: str | Path,
    *,
    folder: str = "",
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    read: ReadOptions = DEFAULT,
) -> Manifest:
    """Writes the images of class folders as WebDataset shards, an index and a manifest.

    Every image is decoded once to see that it can be, and stored as the bytes that it was. The bytes written depend
    on the images, `folder` and `samples_per_shard` alone.

    Args:
        source: a directory, or a zip archive of one.
        dest: folder of the shard set; made if it is missing.
        folder: folder inside `source` that holds the class folders, such as `train`.
        samples_per_shard: images in a shard, at most.
        strict: refuse the source when a file in it would be skipped.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        overwrite: replace a finished shard set at `dest`.
        read: how images are read, and which are refused.

    Returns:
        What was written, with the files that were skipped and why.

    Raises:
        DataError: nothing to read, `dest` holds something else, the disk is full, or (strict) files would be skipped.
        ConfigError: a number that is out of range.
    """
    source, dest = Path(source), Path(dest)
    options = WriteOptions(
        samples_per_shard=samples_per_shard, strict=strict, workers=workers, overwrite=overwrite, read=read
    )
    listing = list_images(source, folder=folder)
    if source.is_dir() and dest.resolve().is_relative_to((source / folder.strip("/")).resolve()):
        raise DataError(f"{dest} lies inside the images at {source}", hint="choose a folder outside of them")
    with open_source(source) as read_file:
        return write_listing(dest, listing, lambda file: read_file(file.path), kind="images", options=options)
