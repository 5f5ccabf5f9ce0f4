"""Models as ONNX files, and those with 8-bit weights.

Needs the extra ``multimodal[onnx]``.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal.pretrained.exporting.program import DenseModel

INPUTS = ("values", "valid")
NEEDED = "ONNX needs more packages: pip install 'multimodal[onnx]'."


def export_onnx(dense: DenseModel, path: str | Path, max_length: int = 512, opset: int = 20) -> None:
    """Write a model as one ONNX file, its inputs named ``values`` and, for sequences, ``valid``, its output ``output``.

    Args:
        dense: the model.
        path: of the file.
        max_length: most tokens of a sequence.
        opset: version of ONNX's operators.

    Raises:
        ValueError: the packages of the extra ``onnx`` are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(NEEDED) from error
    example = dense.example()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter, about its own calls
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            dense,
            example,
            str(path),
            input_names=list(INPUTS[: len(example)]),
            output_names=["output"],
            dynamic_shapes=dense.dynamic_shapes(max_length),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def quantize_onnx(path: str | Path, to: str | Path) -> None:
    """Write an ONNX model with the weights of its products as 8-bit integers; activations are quantized as they come ("dynamic").

    Args:
        path: of the model.
        to: of the file to write.

    Raises:
        ValueError: the packages of the extra ``onnx`` are not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ValueError(NEEDED) from error
    model = onnx.load(str(path))
    del model.graph.value_info[:]  # the exporter's shapes of transposed weights contradict those that are inferred of quantized ones
    prepared = Path(to).with_suffix(".prepared.onnx")
    try:
        onnx.save(model, str(prepared))
        quantize_dynamic(str(prepared), str(to), op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True)
    finally:
        prepared.unlink(missing_ok=True)


class OnnxModel:
    """Runs an ONNX file on tensors, to compare it with what it was made of.

    Args:
        path: of the file.

    Raises:
        ValueError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(NEEDED) from error
        self.session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the output."""
        names = [entry.name for entry in self.session.get_inputs()]
        fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(self.session.run(None, fed)[0])
