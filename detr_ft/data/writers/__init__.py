"""The formats that labels are written in: one module each, listed in `registry.LABEL_FORMATS`."""
