"""Whisper's encoder -> ONNX: a script for the toolchain's own Python, which holds `onnx`.

    python -I export.py JOB.json

The job names a .npz of tensors under their published names, the part to export and the file to
write. Opset 17 and GELU as Erf, since the toolchain refuses opset 20's Gelu. The layers are the
ones of `model.Ops`, and `encoder` repeats `model.encode`, so the two read side by side.
Imports nothing of whisper_npu: it runs where whisper_npu is not installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17
PROTOBUF_LIMIT = 1 << 31  # bytes; larger models keep their weights in a second file


class Network:
    """ONNX nodes under construction; a value is known by its name."""

    def __init__(self, tensors: dict[str, Any], n_heads: int) -> None:
        self.tensors = tensors
        self.n_heads = n_heads
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, *shape: int) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, value: str, name: str, *shape: int) -> None:
        """Give a value its name in the graph's interface; outputs keep the order of the calls."""
        for node in self._nodes:
            node.output[:] = [name if o == value else o for o in node.output]
            node.input[:] = [name if i == value else i for i in node.input]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, value: Any) -> str:
        array = np.ascontiguousarray(value)
        if array.dtype != np.int64:
            array = array.astype(np.float32)
        self._constants[name] = array
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        result = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [result], result, **attributes))
        return result

    def gelu(self, x: str) -> str:
        """The very order of operations that the toolchain knows how to fuse."""
        erf = self.node("Erf", self.node("Div", x, self.constant("sqrt2", np.sqrt(2.0))))
        product = self.node("Mul", x, self.node("Add", erf, self.constant("one", 1.0)))
        return self.node("Mul", product, self.constant("half", 0.5))

    def conv_gelu(self, x: str, name: str, stride: int) -> str:
        """(1, K, T) -> (1, N, T / stride)."""
        weight = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"])
        bias = self.constant(f"{name}.bias", self.tensors[f"{name}.bias"])
        return self.gelu(
            self.node("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride])
        )

    def layer_norm(self, x: str, name: str) -> str:
        scale = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"])
        shift = self.constant(f"{name}.bias", self.tensors[f"{name}.bias"])
        return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def linear(
        self, x: str, name: str, *, gelu: bool = False, residual: str = "", scale: float = 1.0
    ) -> str:
        """(..., K) -> (..., N); `scale` is folded into the weights."""
        weight = np.asarray(self.tensors[f"{name}.weight"], np.float32).T * scale  # (K, N)
        y = self.node("MatMul", x, self.constant(f"{name}.weight", weight))
        if f"{name}.bias" in self.tensors:
            bias = np.asarray(self.tensors[f"{name}.bias"], np.float32) * scale
            y = self.node("Add", y, self.constant(f"{name}.bias", bias))
        if gelu:
            y = self.gelu(y)
        return self.node("Add", residual, y) if residual else y

    def attention(self, query: str, key: str, value: str) -> str:
        """Three of (1, C, D), the query scaled already -> (1, C, D)."""
        split = self.constant("split", np.array([0, 0, self.n_heads, -1], np.int64))
        merge = self.constant("merge", np.array([0, 0, -1], np.int64))

        def heads(x: str, *order: int) -> str:
            return self.node("Transpose", self.node("Reshape", x, split), perm=list(order))

        scores = self.node("MatMul", heads(query, 0, 2, 1, 3), heads(key, 0, 2, 3, 1))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), heads(value, 0, 2, 1, 3))
        return self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), merge)

    def save(self, path: Path, limit: int = PROTOBUF_LIMIT) -> None:
        """Write the file; from `limit` bytes on the weights go to x.weights beside x.onnx."""
        constants = [numpy_helper.from_array(v, n) for n, v in self._constants.items()]
        graph = helper.make_graph(self._nodes, "whisper", self._inputs, self._outputs, constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        large = sum(array.nbytes for array in self._constants.values()) >= limit
        weights = path.with_suffix(".weights")
        weights.unlink(missing_ok=True)  # onnx would append to it
        onnx.save_model(model, str(path), save_as_external_data=large, location=weights.name)
        onnx.checker.check_model(str(path))


def encoder(net: Network, job: dict[str, Any]) -> None:
    """Log-mel -> cross-attention keys and values of every decoder layer, and the echo.

    mel      (1, n_mels, F)  time last, as the convolution of ONNX wants it
    echo     (1, 1, E)       bits as -1 and 1
    key_i    (1, C, D)       C = F / 2, one pair for each decoder layer
    value_i  (1, C, D)
    echoed   (1, 1, 2 E)     the echo, then the beginning of the last value: the echo can only
                             come back after the last layer has run
    with `layers`: embedded, layer_i and features (1, C, D) as well
    """
    n_frames, n_echo = job["n_frames"], job["n_echo"]
    prefix = "model.encoder"
    width, n_mels, _ = net.tensors[f"{prefix}.conv1.weight"].shape
    n_positions = n_frames // 2
    x = net.input("mel", 1, n_mels, n_frames)
    echo = net.input("echo", 1, 1, n_echo)
    x = net.conv_gelu(x, f"{prefix}.conv1", 1)
    x = net.conv_gelu(x, f"{prefix}.conv2", 2)
    x = net.node("Transpose", x, perm=[0, 2, 1])  # (1, C, D)
    positions = net.tensors[f"{prefix}.embed_positions.weight"][:n_positions]
    x = net.node("Add", x, net.constant("positions", positions))
    shown = [("embedded", x)]
    for i in range(job["n_layers"]):
        x = encoder_layer(net, x, f"{prefix}.layers.{i}")
        shown.append((f"layer_{i}", x))
    x = net.layer_norm(x, f"{prefix}.layer_norm")
    shown.append(("features", x))
    outputs = cross_keys_values(net, x, job["n_decoder_layers"])
    last = outputs[-1][1]
    outputs.append(("echoed", echoed(net, echo, last, n_echo)))
    for name, value in outputs + (shown if job["layers"] else []):
        shape = (1, 1, 2 * n_echo) if name == "echoed" else (1, n_positions, width)
        net.output(value, name, *shape)


def encoder_layer(net: Network, x: str, name: str) -> str:
    heads = f"{name}.self_attn"
    y = net.layer_norm(x, f"{heads}_layer_norm")
    width = len(net.tensors[f"{heads}.q_proj.bias"])
    query = net.linear(y, f"{heads}.q_proj", scale=(width // net.n_heads) ** -0.5)
    key, value = net.linear(y, f"{heads}.k_proj"), net.linear(y, f"{heads}.v_proj")
    x = net.linear(net.attention(query, key, value), f"{heads}.out_proj", residual=x)
    y = net.layer_norm(x, f"{name}.final_layer_norm")
    return net.linear(net.linear(y, f"{name}.fc1", gelu=True), f"{name}.fc2", residual=x)


def cross_keys_values(net: Network, features: str, n_layers: int) -> list[tuple[str, str]]:
    outputs = []
    for i in range(n_layers):
        for part in ("key", "value"):
            name = f"model.decoder.layers.{i}.encoder_attn.{part[0]}_proj"
            outputs.append((f"{part}_{i}", net.linear(features, name)))
    return outputs


def echoed(net: Network, echo: str, last: str, n_echo: int) -> str:
    """(1, 1, E) and (1, C, D) -> (1, 1, 2 E)."""
    starts, ends = (np.array(v, np.int64) for v in ([0, 0, 0], [1, 1, n_echo]))
    corner = net.node("Slice", last, net.constant("starts", starts), net.constant("ends", ends))
    return net.node("Concat", echo, corner, axis=-1)


def single_layer(net: Network, job: dict[str, Any]) -> None:
    """One layer of `model.Ops` alone: `kind` over inputs of the given shapes, as output "y"."""
    x, *others = [net.input(f"x{i}", *shape) for i, shape in enumerate(job["inputs"])]
    layers = {
        "conv_gelu": lambda: net.conv_gelu(x, "layer", job["stride"]),
        "layer_norm": lambda: net.layer_norm(x, "layer"),
        "linear": lambda: net.linear(x, "layer"),
        "linear_gelu": lambda: net.linear(x, "layer", gelu=True),
        "linear_residual": lambda: net.linear(x, "layer", residual=others[0]),
        "attention": lambda: net.attention(x, *others),
    }
    net.output(layers[job["kind"]](), "y", *job["output"])


def main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    with np.load(job["tensors"]) as stored:
        net = Network({name: stored[name] for name in stored.files}, job["n_heads"])
    (encoder if job["kind"] == "encoder" else single_layer)(net, job)
    net.save(Path(job["onnx"]), job.get("protobuf_limit", PROTOBUF_LIMIT))


if __name__ == "__main__":
    main(sys.argv[1])
