"""Graph surgery: attention as exporters write it becomes ONNX Runtime's MultiHeadAttention.

Knows nodes and constants; knows no weights (a skeleton without them is enough), no files and no packs. What
it takes for attention is held to torch afterwards, number by number, by whoever calls it.

Source of the operator: onnxruntime, docs/ContribOperators.md, com.microsoft.MultiHeadAttention.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

DOMAIN = "com.microsoft"
BY_HEADS = [0, 2, 1, 3]  # (B, L, H, D) <-> (B, H, L, D)


class Nodes:
    """A graph's nodes by what they make and what they take."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._made = {name: node for node in graph.node for name in node.output}
        self._given = {tensor.name: tensor for tensor in graph.initializer}
        self._taken: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._taken[name].append(node)
        self._ends = {value.name for value in graph.output}

    def maker(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of a kind that makes a value, or None."""
        node = self._made.get(name)
        return node if node is not None and node.op_type == kind else None

    def only_taker(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of a kind that takes a value, where nothing else does."""
        takers = self._taken[name]
        return (
            takers[0] if len(takers) == 1 and takers[0].op_type == kind and name not in self._ends else None
        )

    def constant(self, name: str) -> np.ndarray | None:
        """A value that is known without the weights' file, or None."""
        tensor = self._given.get(name)
        if tensor is not None:
            return (
                None if tensor.data_location == onnx.TensorProto.EXTERNAL else numpy_helper.to_array(tensor)
            )
        node = self._made.get(name)
        if node is None or node.op_type not in {"Constant", "CastLike"}:
            return None
        if node.op_type == "CastLike":
            return self.constant(node.input[0])
        value = helper.get_attribute_value(node.attribute[0])
        return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)

    def scalar(self, name: str) -> float | None:
        """A constant of one number."""
        value = self.constant(name)
        return float(value.ravel()[0]) if value is not None and value.size == 1 else None


@dataclass(frozen=True)
class Attention:
    """softmax(scale * q k^T) v. q, k, v: (B, L, H * D) values' names; out: the (B, H, L, D) one's."""

    q: str
    k: str
    v: str
    out: str
    heads: int
    scale: float


def fuse_attention(model: onnx.ModelProto) -> int:
    """Replace each attention in place; gives how many. Masked and causal ones are left as they are."""
    nodes = Nodes(model.graph)
    found = {one.out: one for one in _attentions(model.graph, nodes)}
    made: dict[str, list[onnx.NodeProto]] = {}
    fused = 0
    for node in model.graph.node:
        rows = _merged(node, nodes, found)
        if rows is not None:
            made[node.output[0]] = rows
            fused += sum(one.op_type == "MultiHeadAttention" for one in rows)
    if not made:
        return 0
    kept = [one for node in model.graph.node for one in made.get(node.output[0], [node])]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    prune(model.graph)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return fused


def prune(graph: onnx.GraphProto) -> None:
    """Take out nodes and initializers that lead to no output."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # a node comes after what it takes
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)


def _attentions(graph: onnx.GraphProto, nodes: Nodes) -> Iterator[Attention]:
    for node in graph.node:
        scores = nodes.maker(node.input[0], "MatMul") if node.op_type == "Softmax" else None
        product = None if scores is None else nodes.only_taker(node.output[0], "MatMul")
        if scores is None or product is None or product.input[0] != node.output[0]:
            continue
        queries, keys = _unscaled(scores.input[0], nodes), _unscaled(scores.input[1], nodes)
        q, k, v = (
            _split(name, nodes) for name in (queries[0], _untransposed(keys[0], nodes), product.input[1])
        )
        if q is not None and k is not None and v is not None and q[1] == k[1] == v[1]:
            yield Attention(q[0], k[0], v[0], product.output[0], q[1], queries[1] * keys[1])


def _unscaled(name: str, nodes: Nodes) -> tuple[str, float]:
    node = nodes.maker(name, "Mul")
    factor = None if node is None else nodes.scalar(node.input[1])
    return (name, 1.0) if node is None or factor is None else (node.input[0], factor)


def _untransposed(name: str, nodes: Nodes) -> str:
    """Before the last two sides were exchanged: by the exporter's Reshape, Transpose, Reshape, or by one."""
    outer = nodes.maker(name, "Reshape")
    turned = nodes.maker(name if outer is None else outer.input[0], "Transpose")
    if turned is None:
        return name
    inner = nodes.maker(turned.input[0], "Reshape")
    if outer is not None and inner is not None and _perm(turned) == [0, 2, 1]:
        return str(inner.input[0])
    return str(turned.input[0]) if outer is None and _perm(turned) == [0, 1, 3, 2] else name


def _split(name: str, nodes: Nodes) -> tuple[str, int] | None:
    """(B, L, H * D) behind a (B, H, L, D) value, and H."""
    turned = nodes.maker(name, "Transpose")
    shaped = None if turned is None or _perm(turned) != BY_HEADS else nodes.maker(turned.input[0], "Reshape")
    if shaped is None:
        return None
    sides = nodes.maker(shaped.input[1], "Concat")
    if sides is not None and len(sides.input) == 4:
        heads = nodes.constant(sides.input[2])
    else:
        whole = nodes.constant(shaped.input[1])
        heads = None if whole is None or whole.size != 4 else whole[2:3]
    if heads is None or heads.size != 1 or int(heads.ravel()[0]) < 1:
        return None
    return shaped.input[0], int(heads.ravel()[0])


def _merged(node: onnx.NodeProto, nodes: Nodes, found: dict[str, Attention]) -> list[onnx.NodeProto] | None:
    """What takes the place of a Reshape that puts heads side by side again; None where it is none."""
    turned = nodes.maker(node.input[0], "Transpose") if node.op_type == "Reshape" else None
    if turned is None or _perm(turned) != BY_HEADS:
        return None
    rows = _by_rows(turned.input[0], nodes, found)
    if rows is not None:
        rows[-1].output[0] = node.output[0]
    return rows


def _by_rows(name: str, nodes: Nodes, found: dict[str, Attention]) -> list[onnx.NodeProto] | None:
    """Nodes that make a (B, H, L, D) value as (B, L, H * D): an attention, or sums and multiples of some.

    A face's branch is added to the text's before the heads are merged; numbers alone scale it, so the order
    does not matter.
    """
    attention = found.get(name)
    if attention is not None:
        inputs = [attention.q, attention.k, attention.v]
        return [
            helper.make_node(
                *("MultiHeadAttention", inputs, [f"{name}_rows"]),
                domain=DOMAIN,
                num_heads=attention.heads,
                scale=attention.scale,
            )
        ]
    product, total = nodes.maker(name, "Mul"), nodes.maker(name, "Add")
    if product is not None:
        for one, other in ((0, 1), (1, 0)):
            made = _by_rows(product.input[other], nodes, found)
            if made is not None:
                factor = product.input[one]
                return [*made, helper.make_node("Mul", [factor, made[-1].output[0]], [f"{name}_rows"])]
    elif total is not None:
        parts = [_by_rows(part, nodes, found) for part in total.input]
        if parts[0] is not None and parts[1] is not None:
            ends = [parts[0][-1].output[0], parts[1][-1].output[0]]
            return [*parts[0], *parts[1], helper.make_node("Add", ends, [f"{name}_rows"])]
    return None


def _perm(node: onnx.NodeProto) -> list[int]:
    return [int(axis) for attribute in node.attribute if attribute.name == "perm" for axis in attribute.ints]
