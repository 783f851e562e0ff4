"""The axis-letter legend: every shape in a signature uses these words.

| axis | meaning |
|---|---|
| batch | images of a micro-batch |
| channel, height, width | of an image, in [-1, 1] |
| token | position in the raster of patches, `(image_size / patch_size) ** 2` of them |
| pixel | values of one pixel token, `channels * patch_size ** 2` |
| state | values of one intermediate state |
| target | values that the diffusion head generates: `pixel` or `state` |
| hidden | width of the causal transformer |
| repeat | independent noise levels drawn for one token |
| sample, feature | images of a set, and the values that a network gives for one |
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, "batch"]
ClassMask = Bool[Tensor, "batch"]
PixelTokens = Float[Tensor, "batch token pixel"]
States = Float[Tensor, "batch token state"]
Targets = Float[Tensor, "batch token target"]
Hidden = Float[Tensor, "batch token hidden"]
