"""A model as one HTML page that samples in a browser: `plan` what it needs to know, `write` the page."""
