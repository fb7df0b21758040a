"""audit: see the modules; nothing is imported here, so that the layers stay apart."""
