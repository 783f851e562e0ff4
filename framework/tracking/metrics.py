"""Names of the metrics that every method logs; the unit is in the name."""

LEARNING_RATE = "optimizer/learning_rate"
GRADIENT_NORM = "optimizer/gradient_norm"
IMAGES_PER_SECOND = "throughput/images_per_second"
BATCH_SECONDS = "time/batch_seconds"
DATA_WAIT_SECONDS = "time/data_wait_seconds"
MEMORY_PEAK_GIB = "memory/peak_gib"
BAD_SAMPLES = "data/bad_samples"
