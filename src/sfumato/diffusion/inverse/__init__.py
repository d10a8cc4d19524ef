"""Inverse problems: sampling the images that explain a measurement.

Read in this order: `operators` (linear measurements), `posterior` (denoisers corrected by it), `repaint` (a sampler
that puts the known part in); `solvers` solves their linear systems.
"""
