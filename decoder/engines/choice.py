"""The names of the engines, apart from the engines because nodes without torch read them too."""

from typing import Literal

EngineName = Literal["torch", "cuda_graph", "onnx", "tensorrt"]
EngineChoice = Literal["auto", "torch", "cuda_graph", "onnx", "tensorrt"]
Precision = Literal["fp32", "fp16"]
