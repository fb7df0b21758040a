"""Venues on loopback: servers that speak a real venue's protocol to an unmodified client, and fail on demand."""
