"""How the strategies save and load checkpoints."""


class DCPCheckpoints:
    """Checkpoints by torch.distributed.checkpoint, for the single process, DDP and FSDP2: one format."""


class DeepSpeedCheckpoints:
    """Checkpoints by DeepSpeed's own writer."""
