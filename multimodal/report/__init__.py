"""One HTML page about a run."""

from multimodal.report.page import write_report

__all__ = ["write_report"]
