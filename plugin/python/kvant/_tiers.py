"""Tiers: where pages of a prefix cache go when their room on the device is needed."""
import ctypes as c
import os
import sys
import threading
from typing import Any, NamedTuple

from . import _abi_manager as _abi
from . import _arrays, _prefixes
from ._managed import Managed

KEY_BYTES = 32


class HostTier(NamedTuple):
    """Memory of this process."""
    capacity: int       # bytes

    def _args(self, name):
        return _abi.TierArgs(kind=_abi.TIER_HOST, capacity_bytes=_arrays.count(f"{name}.capacity", self.capacity, 64)), None


class DiskTier(NamedTuple):
    """Plain files; outlives the process."""
    folder: Any         # made if it is missing
    capacity: int = 0   # bytes; 0: no limit

    def _args(self, name):
        return _abi.TierArgs(kind=_abi.TIER_DISK, capacity_bytes=_arrays.count(f"{name}.capacity", self.capacity, 64),
                             location=os.fsencode(self.folder)), None


class RemoteTier(NamedTuple):
    """memcached servers; one that does not answer is a miss."""
    servers: str        # "host:port,host:port"
    timeout_ms: int = 0  # of connecting and transfers; 0: 200

    def _args(self, name):
        return _abi.TierArgs(kind=_abi.TIER_REMOTE, timeout_ms=_arrays.count(f"{name}.timeout_ms", self.timeout_ms),
                             location=self.servers.encode()), None


class CustomTier(NamedTuple):
    """A tier in Python. `entries` has put(key, value), which may return False: not stored, and get(key), which returns the value
    or None; optional are contains(key), erase(key) and clear(). Keys are 32 bytes, values bytes.

    They are called from any thread, also between calls of this binding, until the tiers are replaced or the cache is closed,
    and must not call back into the library. What they raise goes to threading.excepthook and is a miss, or an entry that was
    not stored; what they give back wrong is a miss as well, since entries are checked."""
    entries: Any
    name: str = "custom"  # in statistics

    def _args(self, name):
        for function in ("put", "get"):
            if not callable(getattr(self.entries, function, None)):
                raise TypeError(f"{name}.entries ({type(self.entries).__name__}) has no method {function}")
        functions = _functions(self.entries, self.name)
        return _abi.TierArgs(kind=_abi.TIER_CUSTOM, functions=c.pointer(functions)), functions


def _guarded(default, function):
    """What `function` raises must not leave a callback: it is told like what a thread raises, and `default` is returned."""
    def call(_, *arguments):
        try:
            return function(*arguments)
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            return default
    return call


def _functions(entries, name):
    def key_of(address):
        return c.string_at(address, KEY_BYTES)

    def put(key, value, size):
        return 0 if entries.put(key_of(key), c.string_at(value, size)) is False else 1

    def get(key, out, room):
        value = entries.get(key_of(key))
        if value is None:
            return 0
        value = bytes(value)
        if len(value) <= room:
            c.memmove(out, value, len(value))
        return len(value)

    functions = _abi.TierFunctions(name=name.encode(), put=_abi.TierPut(_guarded(0, put)), get=_abi.TierGet(_guarded(0, get)))
    if hasattr(entries, "contains"):
        functions.contains = _abi.TierContains(_guarded(0, lambda key: 1 if entries.contains(key_of(key)) else 0))
    if hasattr(entries, "erase"):
        functions.erase = _abi.TierErase(_guarded(None, lambda key: entries.erase(key_of(key))))
    if hasattr(entries, "clear"):
        functions.clear = _abi.TierClear(_guarded(None, lambda: entries.clear()))
    return functions


class Tiers(Managed):
    """The tiers of a Cache with a prefix cache; sequences that open() begins take from them what the device does not have."""

    def tiers_set(self, tiers, format_k=None, format_v=None, store_after_uses=0, min_tokens=0, queue_bytes=0, always_load=False):
        """Replaces the tiers by these, nearest first ([]: none); what waits for the old ones is stored first. format_k and
        format_v: names of narrower formats that the tiers keep; None: the cache's. store_after_uses: only pages that so many
        sequences began with are kept. min_tokens: fewer in a row are not worth a load. queue_bytes: what may wait to be stored,
        beyond it is dropped; 0: 256 MiB. always_load: also what would be computed quicker, by the rates measured so far."""
        made = [tier._args(f"tiers[{i}]") for i, tier in enumerate(tiers)]
        array = (_abi.TierArgs * len(made))(*[args for args, _ in made])
        counts = {"store_after_uses": _arrays.count("store_after_uses", store_after_uses),
                  "min_tokens": _arrays.count("min_tokens", min_tokens, 64),
                  "queue_bytes": _arrays.count("queue_bytes", queue_bytes, 64)}
        args = _abi.TiersArgs(tier_count=len(made), tiers=array, format_k=None if format_k is None else format_k.encode(),
                              format_v=None if format_v is None else format_v.encode(),
                              flags=_abi.TIERS_ALWAYS_LOAD if always_load else 0, **counts)
        self._ask("tiers_set", c.byref(args))
        # The library calls these until the next tiers_set, or while the cache's handle lives.
        self._callbacks[:] = [functions for _, functions in made]

    def tiers_store(self):
        """Hands every page of the prefix cache to the tiers."""
        self._ask("tiers_store")

    def tiers_prefetch(self, tokens, salt=b""):
        """Brings what farther tiers hold of the prompt to the nearest one, in the background, ahead of its open()."""
        args, kept = _prefixes.sequence_args(tokens, salt, 0, 0, 0)
        self._ask("tiers_prefetch", c.byref(args))
        del kept

    def tiers_wait(self):
        """Waits until all that was asked for has been done."""
        self._ask("tiers_wait")

    def tiers_clear(self, tier=None):
        """Empties a tier, 0 the nearest, or with None every one, after what waits has been stored: all that it holds, also what
        others have put there. The device keeps its pages."""
        self._ask("tiers_clear", _abi.TIERS_ALL if tier is None else _arrays.count("tier", tier))
