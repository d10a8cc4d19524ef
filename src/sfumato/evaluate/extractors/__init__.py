"""The feature extractors, one file each; `sfumato.evaluate.open_extractor` opens them by name."""
