"""A wire-level Trader Workstation: a TCP server that the unmodified ib_async client talks to."""
