"""Names of the metrics that every method logs; the unit is in the name."""

LEARNING_RATE = "optimizer/learning_rate"
GRADIENT_NORM = "optimizer/gradient_norm"
BATCH_SECONDS = "time/batch_seconds"
DATA_WAIT_SECONDS = "time/data_wait_seconds"
MEMORY_PEAK_GIB = "memory/peak_gib"
BAD_SAMPLES = "data/bad_samples"
SKIPPED_STEPS = "guards/skipped_steps"
LOSS_SPIKES = "guards/loss_spikes"
MODEL_FLOPS_UTILISATION = "throughput/model_flops_utilisation"
CHECKPOINT_STALL_SECONDS = "checkpoint/stall_seconds"
TOKENS_PER_SECOND = "throughput/tokens_per_second"


def is_loss(name: str) -> bool:
    """Whether a metric is a loss of training."""
    return name.startswith("loss/")


def samples_per_second(unit: str) -> str:
    """The speed in a method's unit of samples, such as image."""
    return f"throughput/{unit}s_per_second"
