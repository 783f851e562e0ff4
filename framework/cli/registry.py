"""The commands: a line of help for each, and where its function is; a module is imported when it is asked for."""

COMMANDS = {
    "fit": "train from a recipe, or go on with a run",
    "validate": "losses of a run's newest checkpoint on the validation set",
    "sample": "images from a checkpoint",
    "export": "a checkpoint's weights as safetensors, for sampling, sharing or a new run",
    "evaluate": "distances between samples and real images",
    "compare": "the method against the rows it is compared with",
    "plan": "memory, operations and communication of a recipe on given devices, before anything is started",
    "runs": "the runs in a folder: ls, show, sync (sends W&B's offline files)",
    "report": "one HTML page of a run: curves, samples, speed, restarts, recipe",
    "agents": "graphs of language-model agents: run (on tasks, to traces), check, track, microworld (an example)",
    "attribute": "blame: which agents made the errors of recorded runs",
    "attribute-logs": "blame for logs that other frameworks wrote, read by a local model in place of their own",
    "optimize": "better prompts for the agents of a graph",
    "bench": "speed of loader, training and attribution against bare ones; blame and repair of planted faults",
    "shards": "make, index, check and show shards: images, imagenet, jsonl, hf, ...",
}
FUNCTIONS: dict[str, str | dict[str, str]] = {
    "sample": "framework.pra.commands.sample:sample",
    "export": "framework.cli.export:export",
    "evaluate": "framework.pra.commands.sample:evaluate",
    "compare": "framework.pra.commands.compare:compare",
    "runs": {name: f"framework.cli.runs:{name}" for name in ("ls", "show", "sync")},
    "report": "framework.cli.report:report",
    "agents": {name: f"framework.gbc.commands.agents:{name}" for name in ("run", "check", "track", "microworld")},
    "attribute": "framework.gbc.commands.attribute:attribute",
    "attribute-logs": "framework.gbc.commands.attribute_logs:attribute_logs",
    "optimize": "framework.gbc.commands.optimize:optimize",
    "bench": {
        "busy": "framework.bench.busy_machine:bench_busy",
        "data": "framework.bench.data:bench_data",
        "training": "framework.bench.training:bench_training",
        "attribution": "framework.bench.attribution:bench_attribution",
        "episodes": "framework.bench.episodes:bench_episodes",
        "blame": "framework.bench.fault_localization:bench_fault_localization",
        "repair": "framework.bench.prompt_repair:bench_repair",
    },
    "shards": {
        name: f"framework.cli.shards:{name}"
        for name in (
            *("images", "imagenet", "jsonl", "hf", "multiwoz", "digits"),
            *("index", "check", "stats", "peek"),
        )
    }
    | {
        "microworld": "framework.gbc.commands.shards:microworld",
        "multiwoz-examples": "framework.gbc.commands.shards:multiwoz_examples",
    },
}
"""Of the commands that are functions, as `module:function`; `fit`, `validate` and `plan` read recipes."""
BY_OPTION: dict[tuple[str, str], str] = {}
"""Other functions of a command, for those who give an option that only they have."""
DESCRIPTION = (
    "Train pixel-space autoregressive image generators, sample from them and measure them; run systems of "
    "language-model agents, blame them and improve their prompts."
)
