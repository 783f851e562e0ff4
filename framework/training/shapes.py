"""The legend of axes for tensors of any model: parameters, and what a rank has of them.

| axis | meaning |
|---|---|
| *held | of a parameter as its module has it on this rank: whole, or sharded, or empty between its uses (ZeRO-3) |
| *part | of the values that this rank holds, perhaps padded |
| *whole | of the whole parameter |
| _ | one axis of any length: values without their order |
| row, *rest | the first axis, and the others |
| 1 | one number that the ranks vote by |
| word | numbers or bytes of a random generator's state |

`AnyTensor` and the tensors of a dictionary have axes of their own each.
"""

from jaxtyping import Float, Int, Integer, Shaped
from torch import Tensor

Held = Shaped[Tensor, "*held"]
Part = Shaped[Tensor, "*part"]
Whole = Shaped[Tensor, "*whole"]
Values = Shaped[Tensor, "_"]
Rows = Shaped[Tensor, "row *rest"]
Scalar = Float[Tensor, ""]
Flag = Int[Tensor, "1"]
RandomWords = Integer[Tensor, "word"]
AnyTensor = Shaped[Tensor, "..."]
NamedTensors = dict[str, AnyTensor]
