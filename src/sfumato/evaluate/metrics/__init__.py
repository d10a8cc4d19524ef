"""Metrics between two sets of features: one file a metric, one line each in `registry`."""
