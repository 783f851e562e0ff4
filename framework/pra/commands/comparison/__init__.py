"""The parts of `framework compare`: which there are, how each is measured, table and figure of their results."""
