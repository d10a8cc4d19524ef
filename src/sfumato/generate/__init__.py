"""Samples: how they are drawn (`recipe`), the one loop (`sample`), and how they are written (`writers`)."""
