"""Parts of `framework steps`: what was measured at each number of steps, and the figure of it."""
