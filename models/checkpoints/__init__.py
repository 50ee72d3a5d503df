"""Weights that other code wrote: reading them safely, naming them as this project does, and back."""
