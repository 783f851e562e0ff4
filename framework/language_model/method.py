"""The small language models as the general code sees them: trained, exported and listed like a method."""

from framework.core.method import Export, Method

METHOD = Method(
    name="language_model",
    description="small language models for worlds of agents",
    modules=("framework.language_model.module:LanguageModelModule",),
    sample_unit="task",
    loss="loss/cross_entropy_nats",
    validation_loss="validation/cross_entropy_nats",
    exports=(Export(key="language_model", function="framework.language_model.export:write_export"),),
)
