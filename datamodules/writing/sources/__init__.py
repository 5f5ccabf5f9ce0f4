"""Where samples come from: a folder, a manifest, a data set of Hugging Face, or tars. They are read when they are written."""

from multimodal.datamodules.writing.sources.folder import FolderRules, scan_folder
from multimodal.datamodules.writing.sources.huggingface import DatasetRow, scan_huggingface
from multimodal.datamodules.writing.sources.manifest import Columns, scan_manifest
from multimodal.datamodules.writing.sources.open_source import KINDS, Kind, SourceRules, recognise, scan_source
from multimodal.datamodules.writing.sources.samples import ByteRange, FileError, FileSample, InlineData, SourceFile, SourceSample
from multimodal.datamodules.writing.sources.scan import Scan, SplitRule, arrange
from multimodal.datamodules.writing.sources.tars import scan_tars

__all__ = [
    "KINDS",
    "ByteRange",
    "Columns",
    "DatasetRow",
    "FileError",
    "FileSample",
    "FolderRules",
    "InlineData",
    "Kind",
    "Scan",
    "SourceFile",
    "SourceRules",
    "SourceSample",
    "SplitRule",
    "arrange",
    "recognise",
    "scan_folder",
    "scan_huggingface",
    "scan_manifest",
    "scan_source",
    "scan_tars",
]
