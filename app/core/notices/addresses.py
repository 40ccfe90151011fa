"""Which addresses a notification may go to; asked of the very address that is connected to."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from app.core.errors import InvalidInput

Address = IPv4Address | IPv6Address

SETTING = "LORADECK_NOTIFY_HOSTS"
_METADATA = frozenset(map(ip_address, ("169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


class AddressRefused(InvalidInput):
    """Notifications do not go to this address."""

    code = "address_refused"


def resolve(host: str, port: int, named: Collection[str]) -> list[tuple[socket.AddressFamily, str]]:
    """The host's addresses, each of which may be connected to. Raises: AddressRefused, OSError."""
    addresses: list[tuple[socket.AddressFamily, str]] = []
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        addresses.append((family, str(place[0])))
    for _, address in addresses:  # one that is refused refuses the name: it may be another one's next time
        check_address(host, address, named)
    return addresses


def check_address(host: str, address: str, named: Collection[str]) -> None:
    """Raises: AddressRefused for an address that is not public, unless `named` has the host.

    Link-local addresses and those of cloud metadata are refused even then: no receiver of notices is there.
    """
    meant = _inner(ip_address(address.partition("%")[0]))
    if meant in _METADATA or meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        raise AddressRefused(f"{host} is at {meant}, where no receiver of notifications can be.", field="url")
    if _is_public(meant) or host.lower() in {each.lower() for each in named}:
        return
    raise AddressRefused(
        f"{host} is at {meant}, which is not a public address. If that is your own receiver, start Loradeck with "
        f"{SETTING}='[\"{host}\"]'.",
        field="url",
    )


def _is_public(address: Address) -> bool:
    """Python calls some IPv6 addresses global that are not: IPv4 ones in `::/8`, and site-local ones."""
    odd = address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local)
    return address.is_global and not odd


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
