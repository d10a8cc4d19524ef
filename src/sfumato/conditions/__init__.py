"""Conditions: what samples can be conditioned on, and batches of conditions as values."""
