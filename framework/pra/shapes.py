"""Shapes of PRA (arXiv 2606.27978), and the legend of their axes; those of images are in `framework.core.shapes`.

| axis | meaning | in the paper |
|---|---|---|
| token | position in the raster of patches, `(image_size / patch_size) ** 2` of them | N |
| pixel | values of one pixel token, `channels * patch_size ** 2` | D |
| state | values of one intermediate state | 16 |
| moment | what the encoder puts out for a token: mean and log variance of a state, or a state | |
| target | values that the diffusion head generates: `pixel` or `state` | |
| hidden | width of the causal transformer | |
| stream | images with their class, and under guidance the same images without; of noise, one with its own seed | |
| block | the words of a stream that one count gives | |
| _ | streams or blocks of words that broadcast | |
| repeat | independent noise levels drawn for one token | |
| step | steps of the sampler's flow that add noise | |
| layer | of the causal transformer | |
| head | of an attention layer | |
| position | in the transformer's sequence: class tokens, then pixel tokens | |
| value | of a query, key or value of an attention head | |
| pair | two values of a head that a rotary position turns together | |
| width, context | values between a layer's input and its output, and of what it is conditioned on | |
| new | positions of a sequence that a cache gets | |
| uniform, normal | random numbers of a sample, by their distribution |
| axes, context_axes, target_axes, time_axes, scale_axes, shape | any axes, also none | |

Symbols in the mathematics: x_i is a pixel token, z_i its intermediate state, h_i the hidden state that predicts it,
t the time of the flow, from noise (0) to data (1), v its velocity, K the number of passes of the rollout.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Scalar = Float[Tensor, ""]
ClassMask = Bool[Tensor, "batch"]
PixelTokens = Float[Tensor, "batch token pixel"]
States = Float[Tensor, "batch token state"]
Moments = Float[Tensor, "batch token moment"]
Targets = Float[Tensor, "batch token target"]
Hidden = Float[Tensor, "batch token hidden"]
RepeatedHidden = Float[Tensor, "batch token _ hidden"]
TokenErrors = Float[Tensor, "batch token"]
Times = Float[Tensor, "batch token repeat"]
ImageTimes = Float[Tensor, "batch"]
HeadNoise = Float[Tensor, "batch token repeat target"]
ResidualStream = Float[Tensor, "batch position width"]
AttentionHeads = Float[Tensor, "batch head position value"]
Positions = Int[Tensor, "new"]
