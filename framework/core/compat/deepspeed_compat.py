"""Private parts of DeepSpeed (0.19)."""

from typing import Any


def set_universal_loading(engine: Any, universal: bool) -> None:
    """Whether the engine's next `load_checkpoint` reads the universal format; else the one its configuration names."""
    assert hasattr(engine._config, "load_universal_checkpoint")
    engine._config.load_universal_checkpoint = universal
