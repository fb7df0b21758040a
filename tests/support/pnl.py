"""Profit and loss computed a second time, in fractions and by the book of cost: nothing here is shared with execkit."""

from fractions import Fraction


class Account:
    """Average-cost positions of one symbol. Sums are exact. What is less than *lot* is no position."""

    def __init__(self, base, quote, lot=0):
        self.base, self.quote = base, quote
        self.lot = Fraction(lot)
        self.is_open = False
        self.held = Fraction(0)
        self.paid = Fraction(0)
        """What the open quantity cost, signed like it."""
        self.realised = Fraction(0)
        self.fees = {}
        self.ended = []
        """(realised, fees) of each position that has ended."""
        self.cash = {}

    def add(self, side, quantity, price, fee=0, fee_asset=""):
        """Take one execution."""
        quantity, price, fee = Fraction(quantity), Fraction(price), Fraction(fee)
        sign = 1 if side == "buy" else -1
        self._flow(self.base, sign * quantity)
        self._flow(self.quote, -sign * quantity * price)
        self._flow(fee_asset or self.quote, -fee)
        change = sign * quantity
        cost = Fraction(0)
        if fee_asset == self.base:
            change -= fee
            cost = fee * price
        elif fee_asset in (self.quote, ""):
            cost = fee
        closing = Fraction(0)
        if self.held * change < 0:
            closing = -self.held if abs(change) > abs(self.held) else change
        share = closing / change if change else Fraction(1)
        if closing:
            mean = self.paid / self.held
            self.realised += (price - mean) * -closing
            self.paid += mean * closing
            self.held += closing
            self._charge(cost * share, fee * share, fee_asset)
            if self.is_open and (not self.held or abs(self.held) < self.lot):
                self._end()
        if change != closing or not change:
            self.held += change - closing
            self.paid += (change - closing) * price
            if abs(self.held) >= self.lot:
                self.is_open = True
            self._charge(
                cost * (1 - share) if closing else cost,
                fee * (1 - share) if closing else fee,
                fee_asset,
            )

    def _flow(self, asset, amount):
        self.cash[asset] = self.cash.get(asset, 0) + amount

    def _charge(self, cost, fee, asset):
        self.realised -= cost
        if fee:
            self.fees[asset] = self.fees.get(asset, 0) + fee

    def _end(self):
        self.is_open = False
        self.ended.append((self.realised, self.fees))
        self.realised, self.fees = Fraction(0), {}

    @property
    def mean(self):
        """Average entry price of what is open."""
        return self.paid / self.held if self.held else Fraction(0)

    def worth(self, mark):
        """Gain since the beginning by cash flow alone: what was received, less what was paid, plus what is held."""
        return self.cash.get(self.quote, 0) + self.cash.get(self.base, 0) * Fraction(mark)
