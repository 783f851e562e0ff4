"""Images of a folder or an archive to shards: classes by their folders, by a file of labels, or none."""

from pathlib import Path

from framework.core.console import working
from framework.core.errors import DataError
from framework.data.convert.containers import open_container
from framework.data.convert.find import FindOptions, find_images
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.manifest import Manifest
from framework.data.shards.writer import WriteOptions, write_listing


def write_image_shards(
    source: str | Path,
    dest: str | Path,
    *,
    find: FindOptions = FindOptions(),
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    read: ReadOptions = DEFAULT,
) -> Manifest:
    """Writes images as WebDataset shards, an index and a manifest.

    Every image is decoded once to see that it can be, and stored as the bytes that it was. The bytes written depend
    on the images, their paths and classes, and `samples_per_shard` alone. Interrupted, the same call goes on.

    Args:
        source: a directory, or a zip, a tar or a packed tar of one.
        dest: folder of the shard set; made if it is missing.
        find: where its images are, and their classes.
        samples_per_shard: images in a shard, at most.
        strict: refuse the source when a file in it would be skipped.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        overwrite: replace a finished shard set at `dest`.
        read: how images are read, and which are refused.

    Returns:
        What was written, with the files that were skipped and why.

    Raises:
        DataError: nothing to read, `dest` holds something else, the disk is full, or (strict) files would be skipped.
        ConfigError: a number that is out of range, or a column that is not there.
    """
    source, dest = Path(source), Path(dest)
    options = WriteOptions(
        samples_per_shard=samples_per_shard, strict=strict, workers=workers, overwrite=overwrite, read=read
    )
    with open_container(source) as container:
        try:
            # A packed tar is decompressed for it, which may take minutes.
            with working(f"listing {source}"):
                contents = container.contents(folder=find.folder, follow_links=find.follow_links)
        except OSError as error:
            problem = f"cannot read {error.filename or source} ({error.strerror})"
            raise DataError(problem, hint="check the path") from None
        listing = find_images(contents, find, where=str(source))
        if source.is_dir() and dest.resolve().is_relative_to((source / find.folder.strip("/")).resolve()):
            raise DataError(f"{dest} lies inside the images at {source}", hint="choose a folder outside of them")
        return write_listing(dest, listing, container.read, kind="images", options=options)
