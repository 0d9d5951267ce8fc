"""The presets' documents, one JSON file each, and the portfolios that `dpme margin compare` values."""
