"""GBC as the general code sees it."""

from framework.core.method import Command, Method

_AGENTS = "framework.gbc.commands.agents"
_SHARDS = "framework.gbc.commands.shards"

METHOD = Method(
    name="gbc",
    description="systems of language-model agents, blamed and improved (arXiv 2606.28187)",
    modules=("framework.gbc.training.module:GBCModule",),
    sample_unit="task",
    loss="loss/verbal",
    validation_loss="validation/loss",
    commands={
        "agents": Command(
            help="graphs of language-model agents: run (on tasks, to traces), check, track, microworld and realworld "
            "(examples), score-multiwoz (any system's predictions), compare-multiwoz (a team and one agent, trained)",
            function={name: f"{_AGENTS}:{name}" for name in ("run", "check", "track", "microworld", "realworld")}
            | {
                "score-multiwoz": "framework.gbc.commands.score_multiwoz:score_multiwoz",
                "compare-multiwoz": "framework.gbc.commands.compare_multiwoz:compare_multiwoz",
            },
        ),
        "attribute": Command(
            help="blame: which agents made the errors of recorded runs",
            function="framework.gbc.commands.attribute:attribute",
        ),
        "attribute-logs": Command(
            help="blame for logs that other frameworks wrote, read by a local model in place of their own",
            function="framework.gbc.commands.attribute_logs:attribute_logs",
        ),
        "optimize": Command(
            help="better prompts for the agents of a graph", function="framework.gbc.commands.optimize:optimize"
        ),
    },
    subcommands={
        "shards": {
            "multiwoz": f"{_SHARDS}:multiwoz",
            "multiwoz-examples": f"{_SHARDS}:multiwoz_examples",
            "microworld": f"{_SHARDS}:microworld",
        }
    },
    plan="framework.gbc.execution.planning:plan_recipe",
    report="framework.gbc.tracking.report_section:sections",
)
