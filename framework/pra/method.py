"""PRA as the general code sees it."""

from framework.core.method import Command, Export, Method

METHOD = Method(
    name="pra",
    description="pixel-space autoregressive images (arXiv 2606.27978)",
    modules=("framework.pra.module:PRAModule",),
    sample_unit="image",
    commands={
        "sample": Command(help="images from a checkpoint", function="framework.pra.commands.sample:sample"),
        "evaluate": Command(
            help="distances between samples and real images", function="framework.pra.commands.evaluate:evaluate"
        ),
        "probe": Command(
            help="what a model's features know of classes: linear probes", function="framework.pra.commands.probe:probe"
        ),
        "steps": Command(
            help="distances over the steps of the head: which sampler needs how many",
            function="framework.pra.commands.steps:steps",
        ),
        "compare": Command(
            help="the method against the rows it is compared with", function="framework.pra.commands.compare:compare"
        ),
    },
    plan="framework.pra.planning.memory:plan_recipe",
    sizes="framework.pra.planning.sizes:sizes_of",
    exports=(Export(key="objective", function="framework.pra.commands.export:write_export"),),
)
