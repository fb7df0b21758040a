"""Every venue that ccxt knows."""
