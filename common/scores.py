"""Names of the scores of labels and numbers."""

from typing import Literal

Score = Literal["acc", "mean_per_class", "f1", "matthews", "pearson", "spearman"]
"""Share of right labels; its mean over classes; F1 and Matthews' correlation of two classes; correlations of numbers and of their ranks."""
