"""Alpaca on aiohttp: equities and crypto, paper and live."""
