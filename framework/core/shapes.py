"""Shapes of images, and the legend of their axes; a method's own axes are in its own `shapes`.

| axis | meaning |
|---|---|
| batch | images of a micro-batch |
| channel, height, width | of an image, in [-1, 1] |
| sample, feature | images of a set, and the values that a network gives for one |
| inputs, outputs | values of a linear layer's input and output |
| axes | any axes, also none |
| place | values of a map of activations |
| stream | random numbers of one seed |
| block | the words of a stream that one count gives |
| _ | streams or blocks that broadcast |
"""

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, "batch"]
