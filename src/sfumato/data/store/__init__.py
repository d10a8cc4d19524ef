"""Decoded images on the disk: built once, checked, read by memory map."""
