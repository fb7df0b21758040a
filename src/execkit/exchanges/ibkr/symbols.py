"""How execkit spells contracts of Interactive Brokers: one spelling for each.

=================  ==========================================================================================
`AAPL`             a stock in USD, routed by SMART; a blank in its ticker is written `_`: `BRK_B`
`SAP/EUR`          a stock in another currency
`SAP/EUR:IBIS`     the same, its primary exchange named, where the short form means several stocks
`ESZ6:CME`         a future by its local symbol and exchange; `FDAXZ6/EUR:EUREX` in another currency than USD
`EUR/USD`          forex on IDEALPRO, where both are currencies
`BTC/USD:PAXOS`    crypto
=================  ==========================================================================================
"""

from __future__ import annotations

from typing import Any, Final

from ib_async.contract import Contract

from execkit.model.instrument import check_symbol

FUTURES_EXCHANGES: Final = frozenset(
    {
        *(
            "CME",
            "CBOT",
            "NYMEX",
            "COMEX",
            "CFE",
            "NYBOT",
            "IPE",
            "ICEEU",
            "ICEEUSOFT",
            "EUREX",
            "ENDEX",
        ),
        *(
            "HKFE",
            "SGX",
            "OSE.JPN",
            "TSE.JPN.FUT",
            "SNFE",
            "MONEP",
            "FTA",
            "BELFOX",
            "IDEM",
            "MEFFRV",
            "CDE",
        ),
    }
)
CRYPTO_EXCHANGES: Final = frozenset({"PAXOS", "ZEROHASH"})
CURRENCIES: Final = frozenset(
    {
        *(
            "USD",
            "EUR",
            "GBP",
            "CHF",
            "JPY",
            "AUD",
            "CAD",
            "NZD",
            "HKD",
            "SGD",
            "SEK",
            "NOK",
            "DKK",
        ),
        *("CNH", "MXN", "PLN", "CZK", "HUF", "ILS", "TRY", "KRW", "INR", "RUB"),
        "ZAR",  # codespell:ignore zar
    }
)


def parse(symbol: str) -> Any:
    """Return the contract, not yet looked up, that a symbol names; raise `ConfigurationError` for no symbol at all."""
    check_symbol("symbol", symbol)
    name, _, exchange = symbol.partition(":")
    base, _, quote = name.partition("/")
    currency, ticker = quote or "USD", base.replace("_", " ")
    if exchange in FUTURES_EXCHANGES:
        return Contract(secType="FUT", localSymbol=ticker, exchange=exchange, currency=currency)
    if exchange in CRYPTO_EXCHANGES:
        return Contract(secType="CRYPTO", symbol=ticker, exchange=exchange, currency=currency)
    if quote and not exchange and base in CURRENCIES and quote in CURRENCIES:
        return Contract(secType="CASH", symbol=base, exchange="IDEALPRO", currency=quote)
    return Contract(
        secType="STK", symbol=ticker, exchange="SMART", primaryExchange=exchange, currency=currency
    )


def spell(contract: Any, *, with_exchange: bool = False) -> str:
    """Return the symbol of a contract as TWS describes it; *with_exchange* tells same-named stocks apart."""
    kind, currency = contract.secType, contract.currency
    local = (contract.localSymbol or contract.symbol).replace(" ", "_")
    ticker = contract.symbol.replace(" ", "_")
    priced = "" if currency == "USD" else f"/{currency}"
    match kind:
        case "CASH":
            return f"{ticker}/{currency}"
        case "CRYPTO":
            return f"{ticker}/{currency}:{contract.exchange or 'PAXOS'}"
        case "FUT":
            return f"{local}{priced}:{contract.exchange}"
        case "STK":
            exchange = contract.primaryExchange if with_exchange else ""
            return f"{ticker}{priced}{':' if exchange else ''}{exchange}"
        case _:
            # Held or ordered by somebody else; execkit does not trade it, but counts it.
            return f"{kind}-{contract.conId}"
