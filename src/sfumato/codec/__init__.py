"""Codecs: stored values to the network's x_0 and back; x_0 is pixels in [-1, 1], or latents."""
