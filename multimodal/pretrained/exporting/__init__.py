"""Models leave: as folders of ours, in the layouts of timm, transformers and the originals, as programs and as ONNX."""

from multimodal.pretrained.exporting.layouts import Exported, export_layout, layouts_for
from multimodal.pretrained.exporting.onnx import export_onnx, quantize_onnx
from multimodal.pretrained.exporting.program import DenseModel, export_program

__all__ = ["DenseModel", "Exported", "export_layout", "export_onnx", "export_program", "layouts_for", "quantize_onnx"]
