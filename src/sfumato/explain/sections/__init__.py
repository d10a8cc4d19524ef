"""The sections of the page, one module each; `registry` lists them in order."""
