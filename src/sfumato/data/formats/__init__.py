"""Decoding of one picture, and its conversion to the size and depth of training."""
