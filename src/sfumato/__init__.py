"""Sfumato: the complete denoising-diffusion system, from a folder of images to samples, measured and explained."""

__version__ = "0.1.0"
