"""Settings that users write: where they stand, and what is wrong with one, in a line."""
