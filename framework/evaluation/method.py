"""The classifier of evaluation as the general code sees it: trained and listed like a method."""

from framework.core.method import Method

METHOD = Method(
    name="classifier",
    description="image classifiers, whose features measure samples",
    modules=("framework.evaluation.classifier:ClassifierModule",),
    sample_unit="image",
    loss="loss/cross_entropy_nats",
)
