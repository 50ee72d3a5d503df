"""From public data sets as they are published to shards, retrieval lists and a tokenizer."""
