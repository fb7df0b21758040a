"""Which hosts an adapter may speak to: the venue's own, or the one the user named; nothing else.

Live trading has to be spelled out. Under sandbox settings only the venue's own sandboxes and this machine are taken,
and another host when it is called a proxy of one's own; never a host of the live venue's domain, because a key then
meets the wrong venue. Under live settings its sandboxes are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from execkit.errors import ConfigurationError

_SECURE: Final = ("https", "wss")
_SANDBOXES: Final = {"testnet": "test", "demo": "demo"}


def environment(venue: str, *, sandbox: bool | str | None, live: bool, default: str) -> str:
    """Return `live`, `testnet` or `demo`. *default* is the sandbox that `sandbox=True` means."""
    if live:
        if sandbox:
            raise ConfigurationError(
                f"live: live=True and sandbox={sandbox!r} contradict each other; leave one of them out"
            )
        return "live"
    if sandbox is False:
        raise ConfigurationError(
            f"live: orders with real money at {venue} need live=True spelled out; sandbox=False alone is not enough"
        )
    if sandbox in (None, True):
        return default
    if sandbox not in _SANDBOXES:
        raise ConfigurationError(f"sandbox: {sandbox!r} is unknown; use True, 'testnet' or 'demo'")
    return str(sandbox)


def choose(client: Any, env: str, *, elsewhere: bool) -> None:
    """Point a ccxt client at the environment; *elsewhere*: all its addresses will be replaced."""
    offered = bool(client.urls.get(_SANDBOXES.get(env, "")))
    if env == "live" or (elsewhere and not offered):
        return
    if not offered:
        raise ConfigurationError(
            f"sandbox: {client.id} has no {env} environment that ccxt knows; "
            "pass rest_url= and stream_url= of one, with own_proxy=True, or live=True"
        )
    if env == "testnet":
        client.set_sandbox_mode(True)
    else:
        client.enable_demo_trading(True)


def redirect(
    client: Any, env: str, *, rest_url: str | None, stream_url: str | None, own_proxy: bool
) -> None:
    """Send REST requests and streams to other hosts; paths stay as they are."""
    known = {name: _hosts(client, client.urls.get(name)) for name in ("test", "demo")}
    if env != "live" and client.urls.get(_SANDBOXES[env]):
        known["demo"] |= allowed(client)  # where `choose` has sent its streams, too
    for name in ("apiBackup", "apiBackupDemoTrading", "api"):
        if name in client.urls:
            known["live"] = _hosts(client, client.urls[name])
            break
    for field, value, schemes in (
        ("rest_url", rest_url, ("http", "https")),
        ("stream_url", stream_url, ("ws", "wss")),
    ):
        if value is not None:
            _check(field, value, schemes, env, known, own_proxy=own_proxy)
    if (rest_url is None) is not (stream_url is None) and env != "live":
        missing = "stream_url" if stream_url is None else "rest_url"
        raise ConfigurationError(
            f"{missing}: give both rest_url and stream_url, or neither: orders and their news must be of one venue"
        )
    api = client.urls["api"]
    if isinstance(api, str):
        api = client.urls["api"] = {"rest": api}
    for name in api:
        if name == "ws":
            api[name] = _moved(client, api[name], stream_url)
        else:
            api[name] = _moved(client, api[name], rest_url)


def _moved(client: Any, urls: Any, to: str | None) -> Any:
    if isinstance(urls, dict):
        return {name: _moved(client, url, to) for name, url in urls.items()}
    if not isinstance(urls, str) or to is None:
        return urls
    parts = urlsplit(client.implode_hostname(urls))
    return to.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def allowed(client: Any) -> frozenset[str]:
    """Return the hosts that the client's addresses name now."""
    return frozenset(_hosts(client, client.urls["api"]))


def _check(
    field: str,
    value: str,
    schemes: tuple[str, str],
    env: str,
    known: dict[str, set[str]],
    *,
    own_proxy: bool,
) -> None:
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.hostname:
        raise ConfigurationError(
            f"{field}: {value!r} is no {schemes[1]} address such as {schemes[1]}://host"
        )
    if parts.username or parts.password or parts.query:
        raise ConfigurationError(
            f"{field}: an address carries no user, password or query; pass keys as api_key= and secret="
        )
    if parts.scheme not in _SECURE and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{field}: {parts.scheme}:// sends keys in the clear, so it is taken for this machine only; "
            f"use {schemes[1]}://"
        )
    of_sandboxes = known["test"] | known["demo"]
    host = parts.hostname.rstrip(".")
    if env == "live":
        if host in of_sandboxes - known["live"]:
            raise ConfigurationError(
                f"{field}: {host} is a sandbox, but the settings say live; leave live=True out"
            )
    elif host not in of_sandboxes and not is_loopback(host):
        if any(host == domain or host.endswith(f".{domain}") for domain in _domains(known["live"])):
            raise ConfigurationError(
                f"{field}: {host} is the live venue, but the settings say {env}; "
                "pass live=True to trade with real money, or leave the address out"
            )
        if not own_proxy:
            raise ConfigurationError(
                f"{field}: {host} is no {env} host of the venue; pass own_proxy=True if it is a proxy of yours that "
                "leads to one, live=True to trade with real money, or leave the address out"
            )


def _domains(names: set[str]) -> set[str]:
    """Return the domains of hosts: `binance.com` of `api.binance.com`."""
    return {name if name.count(".") < 2 else name.partition(".")[2] for name in names}


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _urls(urls: Any) -> Iterator[str]:
    if isinstance(urls, str):
        yield urls
    elif isinstance(urls, dict):
        for value in urls.values():
            yield from _urls(value)


def _hosts(client: Any, urls: Any) -> set[str]:
    found = (urlsplit(client.implode_hostname(url)).hostname for url in _urls(urls))
    return {host for host in found if host}
