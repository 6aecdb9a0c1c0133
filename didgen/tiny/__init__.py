"""The tiny backbone: its weights, and how they were made."""
