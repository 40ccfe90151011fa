"""How many logins may fail: counted in memory for each peer and each name, and forgotten after a while."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from threading import Lock

from app.core.errors import TooManyRequests

WINDOW_SECONDS = 300.0
_MOST_KEYS = 10_000  # the oldest is forgotten first


class Throttle:
    """Counts tries by key. A try counts before its outcome is known, so that many at once are no way around."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tries: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = Lock()

    def count(self, key: str) -> None:
        """Raises: TooManyRequests beyond the limit."""
        now = time.monotonic()
        with self._lock:
            since, tries = self._tries.pop(key, (now, 0))
            if now - since >= WINDOW_SECONDS:
                since, tries = now, 0
            self._tries[key] = (since, tries + 1)
            if len(self._tries) > _MOST_KEYS:
                self._tries.popitem(last=False)
        if tries >= self._limit:
            wait = max(1, round(since + WINDOW_SECONDS - now))
            raise TooManyRequests(f"Too many logins failed. Try again in {wait} seconds.", retry_seconds=wait)

    def forgive(self, key: str) -> None:
        """A login that worked wipes the slate."""
        with self._lock:
            self._tries.pop(key, None)


class LoginThrottle:
    """Ten failed logins from one address, or thirty for one name, in five minutes; then that one waits."""

    def __init__(self) -> None:
        self._by_peer, self._by_name = Throttle(10), Throttle(30)

    def count(self, peer: str, name: str) -> None:
        """Raises: TooManyRequests."""
        self._by_peer.count(_network(peer))
        self._by_name.count(name.strip().lower()[:64])

    def forgive(self, peer: str, name: str) -> None:
        """The login worked."""
        self._by_peer.forgive(_network(peer))
        self._by_name.forgive(name.strip().lower()[:64])


def _network(peer: str) -> str:
    """An IPv6 host has a whole /64 to send from, so that counts as one."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer[:64]
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
