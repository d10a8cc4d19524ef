"""diffusers' folders: `names` and `settings` convert between its network and ours, `read` and `write` the files."""
