"""Who is calling: the peer's address, or the one a trusted proxy forwards, and the network that counts as one caller.
Used for limits, fairness and the access log.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from nllbd import log
from nllbd.principal import Principal, anonymous

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_MAX_HOPS = 20
#: What one IPv6 subscriber has at least (RFC 6177): whoever has one address of it has 2^64.
_IPV6_PREFIX = 64

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
        if "X-Forwarded-For" not in request.headers:
            return peer
        forwarded = request.headers.getall("X-Forwarded-For")
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


@lru_cache(maxsize=16_384)
def network_of(client: str) -> str:
    """What counts as one caller: an IPv4 address, an IPv6 network of 64 bits, `unix`."""
    address = _parse(client)
    if not isinstance(address, IPv6Address):
        return client if address is None else str(address)
    return str(IPv6Network((int(address) >> _IPV6_PREFIX << _IPV6_PREFIX, _IPV6_PREFIX)))


@lru_cache(maxsize=16_384)
def stranger(client: str) -> Principal:
    """The sender without credentials from this address."""
    return anonymous(network_of(client))


def _peer(request: web.BaseRequest) -> str:
    peername = request.transport.get_extra_info("peername") if request.transport else None
    if isinstance(peername, tuple) and peername:
        return _plain(str(peername[0]))
    return "unix"


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    """A socket of both families calls an IPv4 address `::ffff:192.0.2.1`."""
    parsed = _parse(address)
    return address if parsed is None else str(parsed)


def _parse(text: str) -> _Address | None:
    """An address as proxies write it: bare, `[v6]`, with or without a port or an interface. Of an IPv4 address in an
    IPv6 one, the IPv4 address.
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def _in_any(address: str, networks: tuple[_Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)
