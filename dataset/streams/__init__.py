"""Streams: from one stored record to one training sample, and from samples to a batch."""
