"""The records of a source's samples."""

import dataclasses

import pytest

from framework.data.shards.listing import Listing, SourceFile


def test_a_listing_is_frozen_and_hides_nothing_by_default():
    listing = Listing(classes=("a",), files=(SourceFile(path="a/x.png", label=0),), skipped=())
    assert (listing.num_hidden, listing.files[0].offset, listing.files[0].size) == (0, 0, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        listing.num_hidden = 1  # pyright: ignore[reportAttributeAccessIssue]
