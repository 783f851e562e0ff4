"""The features of a model of timm."""

from typing import Any, cast

from torch import nn

from framework.core.errors import ConfigError
from framework.evaluation.features.any_network import NetworkFeatures
from framework.evaluation.features.network import FeatureNetwork
from framework.evaluation.vision_network import Preprocessing, load_weights


class TimmFeatures(NetworkFeatures):
    """Any model of timm (extra `timm`), with the sizes and the normalisation that timm knows of it.

    Args:
        model: its name in timm, such as `resnet50.a1_in1k`.
        weights: file of its weights; None lets timm fetch them, once.
        size: side in pixels that images are resized to; None takes the model's.
        class_names: text file with a name a line, in the order of the logits; None where its classes are those of the
            images, in their order.

    Raises:
        ConfigError: the extra is not installed, timm does not know the model, or the weights cannot be fetched.
        CheckpointError: the file is missing, damaged or of another model.
    """

    def __init__(
        self, model: str, weights: str | None = None, *, size: int | None = None, class_names: str | None = None
    ) -> None:
        FeatureNetwork.__init__(self)
        try:
            import timm  # pyright: ignore[reportMissingImports]
            from timm.data.config import resolve_data_config  # pyright: ignore[reportMissingImports]
        # torchvision built for another torch fails on import with a RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"timm cannot be imported ({error})",
                hint="pip install 'framework[timm]' (torchvision must match torch), or choose another network",
            ) from error
        try:
            made = cast(nn.Module, timm.create_model(model, pretrained=weights is None))
        except (RuntimeError, ValueError, OSError, LookupError) as error:
            hint = (
                "see timm.list_models() for names; without a network, fetch the weights elsewhere and give their path"
            )
            said = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(f"timm gives no model {model} ({said})", hint=hint) from error
        if weights is not None:
            load_weights(made, weights)
        known = cast("dict[str, Any]", resolve_data_config({}, model=made))
        own_size = int(known["input_size"][-1])
        self.name = model
        preprocessing = Preprocessing(size=size or own_size, mean=tuple(known["mean"]), std=tuple(known["std"]))
        self._open(made, preprocessing, None, class_names)
