"""Who is calling: the peer's address, or the one a trusted proxy forwards. Used for fairness and the access log."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from nllbd import log

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_MAX_HOPS = 20

logger = log.get_logger(__name__)


class ClientAddresses:
    """Finds a request's client.

    `X-Forwarded-For` counts only when the peer is a trusted proxy (one of `trusted`, or a unix socket); it is read
    from the right, past further trusted proxies. From anyone else it is ignored, and that is logged once.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in trusted)
        self._has_warned = False

    def find(self, request: web.BaseRequest) -> str:
        """The client's address as text; `unix` for an unnamed peer of a unix socket."""
        peer = _peer(request)
        forwarded = request.headers.getall("X-Forwarded-For", [])
        if not forwarded:
            return peer
        if not self._trusts(peer):
            self._warn_once()
            return peer
        hops = [hop.strip() for hop in ",".join(forwarded).split(",")][-_MAX_HOPS:]
        client = peer
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:
                return client
            client = str(address)
            if not self._trusts(client):
                return client
        return client

    def _trusts(self, address: str) -> bool:
        if address == "unix":
            return True
        return _in_any(address, self._networks)

    def _warn_once(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("ignored X-Forwarded-For from a peer that is not in trusted_proxies; said only once")


def _peer(request: web.BaseRequest) -> str:
    peername = request.transport.get_extra_info("peername") if request.transport else None
    if isinstance(peername, tuple) and peername:
        return str(peername[0])
    return "unix"


def _parse(text: str) -> _Address | None:
    """An address as proxies write it: bare, `[v6]`, with or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _in_any(address: str, networks: tuple[_Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)
