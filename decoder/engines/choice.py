"""The engines by name, as data, because nodes without torch read them too."""

from collections.abc import Mapping
from typing import Literal

EngineName = Literal["torch", "cuda_graph", "onnx", "tensorrt", "compiled"]
EngineChoice = Literal["auto", EngineName]
Precision = Literal["fp32", "fp16"]

PASSES: Mapping[EngineName, str] = {
    "torch": "decoder.engines.torch_engines:torch_pass",
    "cuda_graph": "decoder.engines.torch_engines:cuda_graph_pass",
    "onnx": "decoder.engines.onnx_engines:onnx_pass",
    "tensorrt": "decoder.engines.onnx_engines:tensorrt_pass",
    "compiled": "decoder.engines.compiled:compiled_pass",
}
"""The function from `Wanted` to `Pass` that is each engine's."""
# One thread, one trial at a time, medians of both in one run: the head of MBP takes 0.12 ms with
# ONNX Runtime and 0.24 ms with torch, all of MBP with 17 channels 1.1 and 1.7 ms; with 63 channels
# the reading of the weights decides, and they differ little. Of the other encoders only NICE, with
# its long averages, is slower with ONNX Runtime: 4.2 and 2.6 ms. After a rest of 20 ms the head
# takes 0.21 ms compiled and 0.41 with ONNX Runtime.
ON_CPU: tuple[EngineName, ...] = ("compiled", "onnx", "torch")
"""In the order in which they are tried where there is no GPU."""
# A captured graph opens within a second, where TensorRT first builds an engine, and one trial
# through two matrix products leaves TensorRT nothing to gain but the launches that both save.
ON_GPU: tuple[EngineName, ...] = ("cuda_graph", "tensorrt", "torch", "onnx")
"""The same where there is one."""
