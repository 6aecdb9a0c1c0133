"""Metric formulas and statistics; only numpy, scipy and torch."""
