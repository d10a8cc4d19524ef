"""Inverse problems: sampling the images that explain a measurement.

Read in this order: `operators` (what a measurement sees), `posterior` (denoisers corrected by it), `repaint` (a sampler
that puts the known part in); `solvers` stands beside them.
"""
