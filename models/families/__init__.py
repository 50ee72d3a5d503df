"""What each paper composes from encoders, fusion and heads."""
