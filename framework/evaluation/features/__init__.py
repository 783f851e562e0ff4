"""Networks whose features the distances are measured in; only Inception's distance may be called FID.

Each is a file of its own and a name here, under which the command line knows it (`--features PixelFeatures`). A network
from elsewhere is a subclass of `FeatureNetwork`, given by its class path.
"""

from framework.evaluation.features.any_network import NetworkFeatures
from framework.evaluation.features.classifier import ClassifierFeatures
from framework.evaluation.features.inception import InceptionFeatures
from framework.evaluation.features.network import FeatureNetwork, extract_features
from framework.evaluation.features.pixels import PixelFeatures
from framework.evaluation.features.timm_model import TimmFeatures

__all__ = [
    "ClassifierFeatures",
    "FeatureNetwork",
    "InceptionFeatures",
    "NetworkFeatures",
    "PixelFeatures",
    "TimmFeatures",
    "extract_features",
]
