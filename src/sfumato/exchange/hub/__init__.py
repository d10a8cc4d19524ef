"""Models in the layout of model hubs: `layout` the files, `card` the README.md, `push` the folder and the upload."""
