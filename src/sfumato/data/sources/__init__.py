"""Where images come from: folders, archives, arrays, tables, built-in sets."""
