"""Which addresses a host has, and whether they are public."""

import socket
import time
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from core.errors import ImageError, StorageError
from core.verdicts import Status

#: How long a look-up is good for, in seconds, and how many addresses of a host are worth a try.
_LOOK_UP, _TRIED = 30, 3
#: Not public, whatever `ipaddress` of one version or another says: special purposes, 6to4 and its relays (their ends
#: may be private), and Azure's agent, which answers every machine there.
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2002::/16")))
_UNICAST = ip_network("2000::/3")
#: IPv4 addresses in the last four bytes, for networks that have IPv6 alone.
_NAT64 = ip_network("64:ff9b::/96")


def addresses_of(host: str, port: int, *, is_trusted: bool) -> tuple[str, ...]:
    """Look up a host, however it is spelled (``2130706433`` is 127.0.0.1).

    Args:
        host: a name or an address, without brackets.
        port: the look-up wants one.
        is_trusted: whether its addresses need not be public.

    Returns:
        Addresses to connect to as they are; looking up again could give others.

    Raises:
        ImageError: there is no such host, or one of its addresses is not public.
        StorageError: nobody could be asked.
    """
    try:
        addresses = _look_up(host, port, int(time.monotonic() // _LOOK_UP))
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
            raise ImageError(Status.NOT_FOUND, f"there is no host {host}") from error
        raise StorageError(f"host {host} cannot be looked up: {error.strerror}") from error
    except (OSError, ValueError) as error:  # labels that are empty or too long
        raise ImageError(Status.UNSUPPORTED, "the web address names no host") from error
    closed = () if is_trusted else [address for address in addresses if not is_public(address)]
    if closed:
        reason = f"host {host} has the address {closed[0]}, which is not public; a root that names the host allows it"
        raise ImageError(Status.UNREADABLE, reason)
    return addresses[:_TRIED]


def is_public(address: str) -> bool:
    """Tell whether an IPv4 or IPv6 address is one of the public internet, and of one machine."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if found in _NAT64:
        found = IPv4Address(int(found) & 0xFFFF_FFFF)
    if found.version == 6 and found not in _UNICAST:  # among them IPv4 addresses in all their other disguises
        return False
    return found.is_global and not found.is_multicast and not any(found in network for network in _SPECIAL)


@lru_cache(maxsize=1024)
def _look_up(host: str, port: int, _half_minute: int) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
