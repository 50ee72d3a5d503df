"""From files to batches: record sources, the order of records, streams, tokenizers and the data sets of the tasks."""
