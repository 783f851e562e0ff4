"""A distributed training framework on PyTorch Lightning for pixel-space autoregressive images and agent graphs."""

__version__ = "0.1.0"
