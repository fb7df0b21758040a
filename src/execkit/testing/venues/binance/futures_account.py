"""The account on Binance USD-M futures: its wallet, positions and settings."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from execkit.exchanges.accounts import Holding
from execkit.model.instrument import Instrument
from execkit.numbers import MONEY, ZERO
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import refuse
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.words import ms, short
from execkit.testing.venues.calls import Call, Handler

CENTS: Final = Decimal("1e-8")


class FuturesAccount:
    """Wallet and positions. Margin is counted as at leverage 1."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self.leverage: dict[str, int] = {}
        self.is_hedged = False

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about the account."""
        for version in ("v1", "v2", "v3"):
            yield "GET", f"/fapi/{version}/account", "balances", self.account
            yield "GET", f"/fapi/{version}/balance", "balances", self.balance
            yield "GET", f"/fapi/{version}/positionRisk", "positions", self.risk
        one = "/fapi/v1"
        yield "GET", "/sapi/v1/account/apiRestrictions", "permissions", self.restrictions
        yield "GET", f"{one}/positionSide/dual", "mode", self.mode
        yield "POST", f"{one}/positionSide/dual", "set_mode", self.set_mode
        yield "GET", f"{one}/multiAssetsMargin", "mode", lambda _: {"multiAssetsMargin": False}
        yield "POST", f"{one}/leverage", "leverage", self.set_leverage
        yield "GET", f"{one}/leverageBracket", "leverage", self.brackets
        yield "POST", f"{one}/marginType", "leverage", lambda _: {"code": 200, "msg": "success"}
        yield "GET", f"{one}/commissionRate", "fees", self.commission

    # --- money and positions ----------------------------------------------------------------------

    def account(self, call: Call) -> Any:
        """Show the wallet and all positions."""
        assets = [self._asset(each) for each in sorted(self._margins())]
        total = {
            f"total{name[0].upper()}{name[1:]}": short(
                sum((Decimal(row[name]) for row in assets), ZERO)
            )
            for name in (
                "walletBalance",
                "unrealizedProfit",
                "marginBalance",
                "initialMargin",
                "maintMargin",
            )
        }
        return {
            "feeTier": 0,
            "canTrade": self.venue.can_trade,
            "canDeposit": True,
            "canWithdraw": bool(self.venue.permissions["enableWithdrawals"]),
            "multiAssetsMargin": False,
            **total,
            "totalUnrealizedProfit": total["totalUnrealizedProfit"],
            "availableBalance": short(
                sum((Decimal(row["availableBalance"]) for row in assets), ZERO)
            ),
            "maxWithdrawAmount": "0",
            "assets": assets,
            "positions": [self._position(each) for each in self._listed()],
        }

    def balance(self, call: Call) -> Any:
        """Show the wallet."""
        return [
            {
                "accountAlias": "SgsR",
                "asset": row["asset"],
                "balance": row["walletBalance"],
                "crossWalletBalance": row["crossWalletBalance"],
                "crossUnPnl": row["unrealizedProfit"],
                "availableBalance": row["availableBalance"],
                "maxWithdrawAmount": row["availableBalance"],
                "marginAvailable": True,
                "updateTime": row["updateTime"],
            }
            for row in (self._asset(each) for each in sorted(self._margins()))
        ]

    def risk(self, call: Call) -> Any:
        """Show positions: all of version 2, those that are not flat of version 3."""
        params = Params(call.params, self.venue.core)
        only = params.instrument().symbol if "symbol" in params else None
        rows = [self._position(each) for each in self._listed() if only in (None, each.symbol)]
        return rows if "/v2/" in call.path else [row for row in rows if Decimal(row["positionAmt"])]

    def _listed(self) -> Iterable[Instrument]:
        return self.venue.core.instruments.values()

    def _margins(self) -> set[str]:
        """Return the assets that positions are margined in, and whatever else is owned."""
        core = self.venue.core
        bases = {each.base for each in self._listed()}
        return {each.quote for each in self._listed()} | (core.account.totals.keys() - bases)

    def wallet(self, asset: str) -> Decimal:
        """Return a wallet's balance: the core's cash as if no position had been paid for."""
        core = self.venue.core
        paid = [
            holding.cost.copy_sign(holding.quantity)
            for symbol, holding in core.account.holdings.items()
            if core.instruments[symbol].quote == asset
        ]
        return MONEY.add(core.account.totals.get(asset, ZERO), sum(paid, ZERO))

    def _mark(self, symbol: str) -> Decimal:
        quote = self.venue.core.quote(symbol)
        return quote.last or quote.mid

    def _unrealized(self, symbol: str) -> Decimal:
        holding = self.venue.core.account.holdings[symbol]
        value = MONEY.multiply(holding.quantity, self._mark(symbol))
        return MONEY.subtract(value, holding.cost.copy_sign(holding.quantity))

    def _asset(self, asset: str) -> dict[str, Any]:
        core = self.venue.core
        mine = [
            each.symbol
            for each in self._listed()
            if each.quote == asset and each.symbol in core.books
        ]
        profit = sum((self._unrealized(symbol) for symbol in mine), ZERO)
        margin = sum((core.account.holdings[symbol].cost for symbol in mine), ZERO)
        wallet, balance = self.wallet(asset), core.balances().get(asset)
        free = ZERO if balance is None else balance.free
        return {
            "asset": asset,
            "walletBalance": short(wallet),
            "unrealizedProfit": short(profit),
            "marginBalance": short(wallet + profit),
            "maintMargin": "0",
            "initialMargin": short(margin),
            "positionInitialMargin": short(margin),
            "openOrderInitialMargin": "0",
            "crossWalletBalance": short(wallet),
            "crossUnPnl": short(profit),
            "availableBalance": short(max(free, ZERO)),
            "maxWithdrawAmount": short(max(free, ZERO)),
            "marginAvailable": True,
            "updateTime": ms(core.now),
        }

    def _position(self, instrument: Instrument) -> dict[str, Any]:
        symbol, core = instrument.symbol, self.venue.core
        holding = core.account.holdings[symbol]
        mark = self._mark(symbol) if symbol in core.books else ZERO
        notional = holding.quantity * mark
        entry = short(entry_of(holding))
        profit = self._unrealized(symbol) if symbol in core.books else ZERO
        return {
            "symbol": instrument.venue_symbol,
            "positionSide": "BOTH",
            "positionAmt": short(holding.quantity),
            "entryPrice": entry,
            "breakEvenPrice": entry,
            "markPrice": short(mark),
            "unRealizedProfit": short(profit),
            "unrealizedProfit": short(profit),
            "liquidationPrice": "0",
            "isolatedMargin": "0",
            "isolatedWallet": "0",
            "isolated": False,
            "isAutoAddMargin": "false",
            "marginType": "cross",
            "leverage": str(self.leverage.get(symbol, 1)),
            "maxNotionalValue": "100000000",
            "notional": short(notional),
            "marginAsset": instrument.quote,
            "initialMargin": short(abs(notional)),
            "maintMargin": "0",
            "positionInitialMargin": short(abs(notional)),
            "openOrderInitialMargin": "0",
            "adl": 0,
            "bidNotional": "0",
            "askNotional": "0",
            "updateTime": ms(core.now),
        }

    # --- settings ---------------------------------------------------------------------------------

    def restrictions(self, call: Call) -> Any:
        """Show what the key may do."""
        return {"ipRestrict": False, "createTime": 1_600_000_000_000, **self.venue.permissions}

    def mode(self, call: Call) -> Any:
        """Show whether long and short are kept apart."""
        return {"dualSidePosition": self.is_hedged}

    def set_mode(self, call: Call) -> Any:
        """Refuse to change the position mode to what it is."""
        wanted = Params(call.params, self.venue.core).flag("dualSidePosition")
        if wanted == self.is_hedged:
            refuse(-4059, "No need to change position side.")
        self.is_hedged = wanted
        return {"code": 200, "msg": "success"}

    def set_leverage(self, call: Call) -> Any:
        """Keep a symbol's leverage, which is only shown."""
        params = Params(call.params, self.venue.core)
        instrument, leverage = params.instrument(), params.integer("leverage") or 1
        if leverage > 125:
            refuse(-4028, f"Leverage {leverage} is not valid")
        self.leverage[instrument.symbol] = leverage
        return {
            "leverage": leverage,
            "maxNotionalValue": "100000000",
            "symbol": instrument.venue_symbol,
        }

    def brackets(self, call: Call) -> Any:
        """Show one bracket for every symbol."""
        bracket = {
            "bracket": 1,
            "initialLeverage": 125,
            "notionalCap": 100_000_000,
            "notionalFloor": 0,
            "maintMarginRatio": 0.004,
            "cum": 0,
        }
        return [{"symbol": each.venue_symbol, "brackets": [bracket]} for each in self._listed()]

    def commission(self, call: Call) -> Any:
        """Show the fees of a symbol."""
        each = Params(call.params, self.venue.core).instrument()
        return {
            "symbol": each.venue_symbol,
            "makerCommissionRate": short(each.maker_fee),
            "takerCommissionRate": short(each.taker_fee),
        }


def entry_of(holding: Holding) -> Decimal:
    """Return the average price of a position, to eight places; zero for none."""
    if not holding.quantity:
        return ZERO
    return MONEY.divide(holding.cost, abs(holding.quantity)).quantize(CENTS, context=MONEY)
