"""Manifests, sources, splits, images and phantoms: what the other parts read."""
