"""Pictures and pages that explain a run."""
