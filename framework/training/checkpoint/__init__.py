from framework.training.checkpoint.single import *  # noqa: F403 - for the move to directories, to be removed
from framework.training.checkpoint.single import AtomicCheckpointIO, Checkpoints, Resume, choose_checkpoint, read_checkpoint  # noqa: E501, F401
