"""Commands as a user calls them, for tests."""

import pytest

from framework.cli.main import main


def error_of(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 2) -> str:
    """The one line that a failing command prints last.

    Args:
        capsys: what it prints.
        *argv: the command and its options.
        code: its exit code.
    """
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert stopped.value.code == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert captured.err.rstrip().splitlines()[-1] == errors[0]
    return errors[0]
