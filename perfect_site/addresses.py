"""Whom a connection or request is from: its peer, or whom trusted proxies say that they speak for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_of(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address of the client. ``forwarded_for`` (``X-Forwarded-For``) is read from the right, through trusted hops.

    Each proxy adds at the right whom it speaks to, so only what trusted proxies added counts; the rest the client may
    have written itself.
    """
    client = _plain(peer)
    for hop in reversed(forwarded_for.split(",") if forwarded_for else []):
        if not is_among(client, trusted):
            break
        if parsed(hop.strip()) is None:
            break
        client = _plain(hop.strip())
    return client


def shared_by(address: str, trusted: Sequence[Network]) -> str:
    """What counts as one client: an address that speaks for many by itself, another IPv4 address, or the /64 that one
    connection to the internet gets of IPv6."""
    found = parsed(address)
    if not isinstance(found, ipaddress.IPv6Address) or speaks_for_many(address, trusted):
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))


def speaks_for_many(address: str, trusted: Sequence[Network]) -> bool:
    """A proxy that does not say for whom, or one on this machine that is not set as trusted."""
    return is_loopback(address) or is_among(address, trusted)


def is_among(address: str, networks: Sequence[Network]) -> bool:
    found = parsed(address)
    return found is not None and any(found in network for network in networks)


def is_loopback(host: str) -> bool:
    """Whether an address, as in a URL or without brackets, or the name ``localhost`` means this machine alone."""
    found = parsed(host.strip("[]"))
    return host == "localhost" or (found is not None and found.is_loopback)


@lru_cache(1_000)
def parsed(address: str) -> Address | None:
    """An IPv4 address that is written as one of IPv6 is the IPv4 address; None for what is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _plain(address: str) -> str:
    found = parsed(address)
    return str(found) if found is not None else address
