"""Manifests, sources, splits, images and phantoms: what every other room reads."""
