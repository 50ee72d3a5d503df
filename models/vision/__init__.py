"""Vision encoders behind one contract: images [B, 3, H, W] -> tokens [B, 1+N, D]."""
