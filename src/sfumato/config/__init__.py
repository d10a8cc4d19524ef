"""The configuration: a tree of frozen dataclasses, the presets, and how they are read and written."""
