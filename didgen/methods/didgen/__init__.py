"""The method of the paper: region-aware fine-tuning, guided pairs, annotated masks."""
