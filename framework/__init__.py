"""A distributed training framework on PyTorch Lightning for pixel-space autoregressive images and agent graphs."""

from framework.core.process.allocator import keep_freed_memory
from framework.core.process.threads import prepare_threads

__version__ = "0.2.0"

# In every process that imports the framework, before torch is loaded: commands, ranks, workers of the loader, tests.
prepare_threads()
keep_freed_memory()
