"""Imported by every Python process that has this folder in PYTHONPATH: it believes that it has GPUs from then on."""

import os
from importlib import import_module

if "PRETEND_CUDA_BUILD" in os.environ:
    # Read when torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import_module("pretend_device")
    if os.environ.get("PRETEND_NCCL") == "1":
        import_module("pretend_nccl")
