"""The JSON layouts of the fine-tuning data sets."""
