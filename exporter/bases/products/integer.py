"""Products of integers, as ONNX Runtime's dynamic quantizer writes them.

    q, s, z = DynamicQuantizeLinear(x)
    y = Mul(Cast(MatMulInteger(q, W, z, zero point)), Mul(s, scale))

W [in, out] holds 8 bits, its scale and zero point are one number or one for each output feature. The last node, which
gives y, stands for the product; the first may serve several products that read one x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class IntegerProduct:
    """Where everything of one product is.

    Attributes:
        first: the DynamicQuantizeLinear.
        product: the MatMulInteger.
        scales: the Mul of the activation's scale and the weight's.
        scale: which input of that is the weight's.
    """

    first: ir.Node
    product: ir.Node
    scales: ir.Node
    scale: int

    @property
    def x(self) -> ir.Value:
        """The activation, ``[..., in]``."""
        value = self.first.inputs[0]
        assert value is not None
        return value

    @property
    def weight(self) -> ir.Value:
        """The initializer ``[in, out]``, int8 or uint8."""
        value = self.product.inputs[1]
        assert value is not None
        return value

    def scale_array(self) -> np.ndarray | None:
        """float32 [1] or [out]; None where the graph does not hold it."""
        array = _array(self.scales.inputs[self.scale])
        return None if array is None else np.atleast_1d(array.astype(np.float32))

    def zero_array(self) -> np.ndarray:
        """float32 [1] or [out]."""
        array = _array(self.product.inputs[3]) if len(self.product.inputs) > 3 else None
        return np.zeros(1, np.float32) if array is None else np.atleast_1d(array.astype(np.float32))

    def dequantize(self) -> np.ndarray | None:
        """The weight that it multiplies by, float32 [out, in]; None where the graph does not hold it."""
        stored, scale = _array(self.weight), self.scale_array()
        if stored is None or scale is None:
            return None
        return np.asarray(((stored.astype(np.float32) - self.zero_array()) * scale).T)

    def step(self) -> np.ndarray | None:
        """What one step of each value is worth, float32 [out, 1] or [1, 1]; None where the graph does not hold it."""
        scale = self.scale_array()
        return None if scale is None else np.abs(scale)[:, None]

    def feed(self, x: ir.Value) -> None:
        """Has this product, and no other, read another activation."""
        own = (self.product, self.scales)
        if all(user in own for output in self.first.outputs for user in output.consumers()):
            self.first.replace_input_with(0, x)
            return
        graph = self.first.graph
        assert isinstance(graph, ir.Graph)
        first = ir.node(self.first.op_type, [x], num_outputs=3, name=f"{self.product.name}/{self.first.op_type}")
        graph.insert_before(self.product, first)
        for old, new in zip(self.first.outputs, first.outputs, strict=True):
            new.name, new.type, new.shape = f"{self.product.name}.{old.name}", old.type, old.shape
            for user, index in list(old.uses()):
                if user in own:
                    user.replace_input_with(index, new)


def integer_product(node: ir.Node) -> IntegerProduct | None:
    """The product whose last node this is, if it is one."""
    if not _is(node, "Mul"):
        return None
    for cast, scales in (node.inputs, node.inputs[::-1]):
        product = _maker(_maker(cast, "Cast"), "MatMulInteger")
        both = _maker(scales, "Mul")
        if product is None or both is None:
            continue
        first = _maker(product.inputs[0], "DynamicQuantizeLinear")
        weight = product.inputs[1]
        if first is None or weight is None or not weight.is_initializer() or _rank(weight) != 2:
            continue
        own = [index for index, value in enumerate(both.inputs) if value is not first.outputs[1]]
        if len(own) == 1 and product.inputs[2] is first.outputs[2]:
            return IntegerProduct(first, product, both, own[0])
    return None


def _maker(value: ir.Value | ir.Node | None, op_type: str) -> ir.Node | None:
    """The node that gives a value, or what a node reads first, if it is of a type."""
    if isinstance(value, ir.Node):
        value = value.inputs[0]
    node = None if value is None else value.producer()
    return node if node is not None and _is(node, op_type) else None


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in _STANDARD


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _array(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()
