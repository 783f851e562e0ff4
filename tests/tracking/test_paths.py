"""Places as users write them."""

from argparse import Namespace
from pathlib import Path

import pytest

from framework.tracking.paths import expand_path, expand_paths


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SCRATCH", "/scratch/a b")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/runs/x", "/home/ada/runs/x"),
        ("~", "/home/ada"),
        ("$SCRATCH/x", "/scratch/a b/x"),
        ("${SCRATCH}/x/$SCRATCH/~", "/scratch/a b/x/$SCRATCH/~"),
        # As they are.
        ("runs/~/x", "runs/~/x"),
        ("s3://bucket/~", "s3://bucket/~"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("~ about ten", "~ about ten"),
        ("$NOWHERE/x", "$NOWHERE/x"),
        ("$SCRATCH", "$SCRATCH"),
        ("$5/x", "$5/x"),
        ("", ""),
    ],
)
def test_what_a_path_means(written: str, meant: str):
    assert expand_path(written) == meant


def test_every_text_of_a_setting():
    given = Namespace(train={"~/a": 1.0}, callbacks=[Namespace(init_args=Namespace(dir=Path("~/b"), n=3))], no=None)
    expanded = expand_paths(given)
    assert expanded == Namespace(
        train={"/home/ada/a": 1.0}, callbacks=[Namespace(init_args=Namespace(dir=Path("/home/ada/b"), n=3))], no=None
    )
    assert given.train == {"~/a": 1.0}, "what was written is kept"
