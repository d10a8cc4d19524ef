"""What a network sees in place of stored values: pixels in [-1, 1], or latents."""
