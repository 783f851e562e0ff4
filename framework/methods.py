"""The table of methods: an import path for each record. A new method of this repository is a line here.

The last two are not methods of a paper but what methods need: small language models for worlds of agents, and the
classifier that evaluation takes features from. They are trained, exported and listed like the others.
"""

METHODS = (
    "framework.pra.method:METHOD",
    "framework.gbc.method:METHOD",
    "framework.language_model.method:METHOD",
    "framework.evaluation.method:METHOD",
)
