"""Models to and from other libraries: `formats` lists both directions, `export` writes, `imports` reads."""
