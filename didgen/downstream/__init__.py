"""Classifiers and segmenters that judge the synthetic data."""
