"""MediaPipe's selfie segmentation as an ONNX graph: the cut-out of packs that bring none of their own.

`python -m faceavatar_export.selfie_segmentation selfie_segmentation.tflite OUT.onnx`. The file lies in the
package mediapipe 0.10.21 (modules/selfie_segmentation, Apache-2.0); reading it needs the package `tflite`.
Operators are taken over one by one, weights stay float16 in the file; the custom transposed convolution of
2x2 pixels a step is a plain one with a bias. Input `image` (batch, 3, 256, 256) RGB in 0..1, output `alpha`
(batch, 1, 256, 256).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 18, 9
SIDE = 256
_PLAIN = {"RELU": "Relu", "HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid", "ADD": "Add", "MUL": "Mul"}
_ACTIVATIONS = {0: None, 1: "Relu"}
_TYPES = {0: np.float32, 1: np.float16, 2: np.int32}


class Converter:
    """One TFLite graph on its way to ONNX; channels go first."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self._tflite: Any = tflite
        self._model = tflite.Model.GetRootAsModel(data, 0)
        self._graph = self._model.Subgraphs(0)
        self._kinds = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._names: dict[int, str] = {self._graph.Inputs(0): "image"}
        self._weights: dict[int, np.ndarray] = {}

    def convert(self) -> onnx.ModelProto:
        """The whole graph. Raises ValueError for an operator that this net has not."""
        for index in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(index)
            inputs, outputs = list(operator.InputsAsNumpy()), list(operator.OutputsAsNumpy())
            kind = self._kind(operator)
            if kind == "DEQUANTIZE":
                self._weights[outputs[0]] = self._constant(inputs[0])
            else:
                self._names[outputs[0]] = self._operator(kind, operator, inputs)
        last = self._names[self._graph.Outputs(0)]
        self._nodes.append(helper.make_node("Identity", [last], ["alpha"]))
        graph = helper.make_graph(
            self._nodes, "selfie_segmentation", [_info("image", 3)], [_info("alpha", 1)], self._constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _kind(self, operator: Any) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = self._kinds[code.BuiltinCode()]
        return str(code.CustomCode().decode()) if kind == "CUSTOM" else kind

    def _operator(self, kind: str, operator: Any, inputs: list[int]) -> str:
        if kind in _PLAIN:
            return self._add(_PLAIN[kind], [self._names[i] for i in inputs])
        one = {
            "CONV_2D": self._conv,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "AVERAGE_POOL_2D": self._pool,
            "RESIZE_BILINEAR": self._resize,
            "Convolution2DTransposeBias": self._transposed,
        }.get(kind)
        if one is None:
            raise ValueError(
                f"the operator {kind} is not one of the selfie segmentation of mediapipe 0.10.21"
            )
        return one(operator, inputs)

    def _conv(self, operator: Any, inputs: list[int]) -> str:
        options = self._options(operator, self._tflite.Conv2DOptions)
        weight = self._weights[inputs[1]].transpose(0, 3, 1, 2)  # (out, h, w, in)
        return self._convolution(options, inputs, weight, 1)

    def _depthwise(self, operator: Any, inputs: list[int]) -> str:
        options = self._options(operator, self._tflite.DepthwiseConv2DOptions)
        weight = self._weights[inputs[1]].transpose(3, 0, 1, 2)  # (1, h, w, out)
        return self._convolution(options, inputs, weight, len(weight))

    def _convolution(self, options: Any, inputs: list[int], weight: np.ndarray, groups: int) -> str:
        out = self._add(
            "Conv",
            [self._names[inputs[0]], self._weight(weight), self._weight(self._weights[inputs[2]])],
            strides=[options.StrideH(), options.StrideW()],
            kernel_shape=list(weight.shape[2:]),
            group=groups,
            auto_pad="SAME_UPPER" if options.Padding() == 0 else "VALID",
        )
        activation = _ACTIVATIONS[options.FusedActivationFunction()]
        return out if activation is None else self._add(activation, [out])

    def _pool(self, operator: Any, inputs: list[int]) -> str:
        """Pools of the whole grid alone, so that no padding is averaged."""
        options = self._options(operator, self._tflite.Pool2DOptions)
        shape = list(self._graph.Tensors(inputs[0]).ShapeAsNumpy())
        if [options.FilterHeight(), options.FilterWidth()] != shape[1:3]:
            raise ValueError(
                f"a pool of {options.FilterHeight()} of {shape[1]} cells; only whole ones are known"
            )
        return self._add("GlobalAveragePool", [self._names[inputs[0]]])

    def _resize(self, operator: Any, inputs: list[int]) -> str:
        options = self._options(operator, self._tflite.ResizeBilinearOptions)
        height, width = self._constant(inputs[1])
        before = self._graph.Tensors(inputs[0]).ShapeAsNumpy()
        scales = np.array([1, 1, height / before[1], width / before[2]], np.float32)
        mode = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
        if options.AlignCorners():
            mode = "align_corners"
        return self._add(
            "Resize",
            [self._names[inputs[0]], "", self._named(scales)],
            mode="linear",
            coordinate_transformation_mode=mode,
        )

    def _transposed(self, operator: Any, inputs: list[int]) -> str:
        weight = self._weights[inputs[1]].transpose(3, 0, 1, 2)  # (out, h, w, in) -> (in, out, h, w)
        names = [self._names[inputs[0]], self._weight(weight), self._weight(self._weights[inputs[2]])]
        return self._add("ConvTranspose", names, strides=list(weight.shape[2:]))

    def _options(self, operator: Any, kind: Callable[[], Any]) -> Any:
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _constant(self, index: int) -> np.ndarray:
        tensor = self._graph.Tensors(index)
        raw = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(raw.tobytes(), _TYPES[tensor.Type()]).reshape(tensor.ShapeAsNumpy())

    def _weight(self, value: np.ndarray) -> str:
        """float16 in the file, float32 when it is computed with, as TFLite does."""
        half = self._named(np.ascontiguousarray(value))
        return self._add("Cast", [half], to=TensorProto.FLOAT)

    def _named(self, value: np.ndarray) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def _add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def _info(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, SIDE, SIDE])


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tflite", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    onnx.save(Converter(args.tflite.read_bytes()).convert(), args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
