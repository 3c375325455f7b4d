"""The formats that data sets are read from: one module each, listed in `registry.SOURCES`."""
