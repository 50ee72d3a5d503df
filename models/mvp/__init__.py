"""MVP (MVPTR, arXiv 2201.12596): words and phrases on one side, tags and regions on the other, met in one stream."""
