"""What the adapter is asked to be: its options, checked before anything is connected."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from execkit.errors import ConfigurationError

LIVE_PORTS = (7496, 4001)
"""Where TWS and the gateway listen by default for accounts with real money."""


def refuse_live_port(port: int) -> None:
    """Raise `ConfigurationError` for a port behind which real money is."""
    if port in LIVE_PORTS:
        raise ConfigurationError(
            f"port: {port} is where accounts with real money are; pass live=True if you mean it, or use 7497 (TWS) or "
            "4002 (gateway) for paper"
        )


def check(*, port: int, client_id: int, messages_per_second: int) -> None:
    """Raise `ConfigurationError` for options that cannot be meant."""
    if not 0 < port < 65536:
        raise ConfigurationError(f"port: {port} is no port; paper is 7497 (TWS) or 4002 (gateway)")
    if client_id < 0:
        raise ConfigurationError(f"client_id: {client_id} must not be negative")
    if not 20 <= messages_per_second <= 50:
        raise ConfigurationError(
            f"messages_per_second: {messages_per_second} must lie between 20 and 50, which is what TWS takes"
        )


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the zone of a name such as `America/New_York`."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"time_zone: {name!r} is unknown; write it like 'America/New_York'"
        ) from None


def choose_account(wanted: str | None, accounts: list[str], *, live: bool, data_only: bool) -> str:
    """Return the account to use; raise `ConfigurationError` when it is not there, not clear, or not to be touched."""
    named = ", ".join(accounts)
    if wanted is None:
        if len(accounts) != 1:
            raise ConfigurationError(
                f"account: this login has {named}; name one of them: IBKRAdapter(account=...)"
            )
        wanted = accounts[0]
    if wanted not in accounts:
        raise ConfigurationError(
            f"account: {wanted!r} is not among the accounts of this login: {named}"
        )
    if not (live or data_only or wanted.startswith("D")):
        raise ConfigurationError(
            f"account: {wanted} holds real money (paper accounts begin with D); pass live=True if you mean it, or use "
            "the port of the paper login: 7497 for TWS, 4002 for the gateway"
        )
    return wanted
