"""Checkpoints that are either complete or absent; which one to go on from."""
