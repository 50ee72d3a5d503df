"""The page at the end of every run: numbers, curves and pictures in one HTML file that opens offline."""

from evaluation.report.page import write_report
from evaluation.report.panels import (
    AnswerPanel,
    AttentionPanel,
    BoxPanel,
    CaptionPanel,
    LabelPanel,
    RankedImage,
    ReportPanels,
    RetrievalPanel,
)

__all__ = [
    "AnswerPanel",
    "AttentionPanel",
    "BoxPanel",
    "CaptionPanel",
    "LabelPanel",
    "RankedImage",
    "ReportPanels",
    "RetrievalPanel",
    "write_report",
]
