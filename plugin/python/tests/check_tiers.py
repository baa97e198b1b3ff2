"""Tiers: host memory, disk, a dead server, and one in Python."""
import pathlib
import tempfile
import threading

from served import PREFIXES, holds, layers, prompt, serve
from support import refused

import kvant
from kvant import ErrorCode


class Entries:
    """A tier in Python that remembers which threads called it."""

    def __init__(self):
        self.held, self.threads, self.failing = {}, set(), False

    def put(self, key, value):
        self.threads.add(threading.get_ident())
        assert isinstance(key, bytes) and len(key) == 32 and isinstance(value, bytes)
        self.held[key] = value

    def get(self, key):
        if self.failing:
            raise LookupError("no answer")
        return self.held.get(key)

    def contains(self, key):
        return key in self.held

    def erase(self, key):
        self.held.pop(key, None)


def small(device):
    """Room for one prompt of 48 tokens."""
    return device.cache(layers(), capacity=64, prefixes=PREFIXES)


def alternate(cache, turns=4):
    """Two prompts that drive each other out; what of each turn's was there."""
    reused = []
    for turn in range(turns):
        sequence, there = serve(cache, prompt(turn % 2))
        holds(cache, sequence, prompt(turn % 2))
        cache.destroy(sequence)
        cache.tiers_wait()  # so that what is found does not depend on the speed of the background
        reused.append(there)
    return reused


def check_places(device):
    """Host memory keeps what the device has no room for; a folder outlives its cache."""
    with tempfile.TemporaryDirectory() as folder:
        with small(device) as cache:
            cache.tiers_set([kvant.HostTier(1 << 20), kvant.DiskTier(pathlib.Path(folder) / "tier", 1 << 24)], always_load=True)
            assert alternate(cache) == [0, 0, 48, 48]
            cache.tiers_store()
            cache.tiers_wait()
            assert [tier["name"] for tier in cache.statistics()["tiers"]] == ["host", "disk"]
        with small(device) as cache:
            cache.tiers_set([kvant.DiskTier(folder + "/tier")], always_load=True)
            assert alternate(cache, 2) == [48, 48]
            cache.tiers_set([])
            assert cache.clear_prefixes() == 4 and cache.open(prompt(0))[1] == 0
    with small(device) as cache:
        # Nobody listens on port 1: a miss, no error.
        cache.tiers_set([kvant.RemoteTier("127.0.0.1:1", 50)], always_load=True)
        assert alternate(cache, 2) == [0, 0]


def check_prefetch(device):
    """What the far tier has comes to the near one; a narrower format there costs precision."""
    entries = Entries()
    with small(device) as cache:
        cache.tiers_set([kvant.CustomTier(entries)], format_k="q8_0", format_v="q8_0", always_load=True)
        alternate(cache, 2)
        cache.tiers_store()
        cache.tiers_wait()
    assert len(entries.held) == 6  # three pages each
    with small(device) as cache:
        cache.tiers_set([kvant.HostTier(1 << 20), kvant.CustomTier(entries)], always_load=True)
        cache.tiers_clear(1)  # it has no method clear: its entries stay
        assert len(entries.held) == 6
        alternate(cache, 2)
        cache.tiers_store()
        cache.tiers_wait()
        assert cache.statistics()["tiers"][0]["entries"] > 0
        cache.tiers_clear(0)
        assert cache.statistics()["tiers"][0]["entries"] == 0
        cache.tiers_clear()
        refused(ErrorCode.INVALID_ARGUMENT, "tier (2)", cache.tiers_clear, 2)
    with small(device) as cache:
        cache.tiers_set([kvant.HostTier(1 << 20), kvant.CustomTier(entries)], "q8_0", "q8_0", always_load=True)
        cache.tiers_prefetch(prompt(0))
        cache.tiers_wait()
        assert cache.statistics()["tiers"][0]["entries"] > 0
        sequence, reused = cache.open(prompt(0), near_tiers=True)
        assert reused == 48
        holds(cache, sequence, prompt(0), bound=0.03)


def check_custom(device):
    entries, said = Entries(), []
    with small(device) as cache:
        cache.tiers_set([kvant.CustomTier(entries, "python")], always_load=True)
        assert alternate(cache) == [0, 0, 48, 48]
        assert cache.statistics()["tiers"][0]["name"] == "python" and len(entries.held) >= 3
        assert entries.threads - {threading.get_ident()}, "the background works on another thread"
        cache.tiers_store()
        cache.tiers_wait()
        # An exception is a miss that is told; wrong bytes are a miss that is counted.
        entries.failing, hook = True, threading.excepthook
        threading.excepthook = lambda failure: said.append(failure.exc_type)
        try:
            cache.clear_prefixes()
            assert alternate(cache, 1) == [0]
        finally:
            threading.excepthook, entries.failing = hook, False
        assert said and set(said) == {LookupError}
        entries.held = {key: value[:-1] + bytes([value[-1] ^ 1]) for key, value in entries.held.items()}
        cache.clear_prefixes()
        assert alternate(cache, 1) == [0]
        assert cache.statistics()["tiers"][0]["corrupt"] > 0
        # A refused replacement leaves the old tiers in force.
        refused(ErrorCode.INVALID_ARGUMENT, "args.tiers[0].capacity_bytes (0)", cache.tiers_set, [kvant.HostTier(0)])
        before = len(entries.held)
        serve(cache, prompt(5))
        cache.tiers_store()
        cache.tiers_wait()
        assert len(entries.held) > before


def check_tiers(device):
    check_places(device)
    check_prefetch(device)
    check_custom(device)
    with small(device) as cache:
        refused(TypeError, "tiers[0].entries (int) has no method put", cache.tiers_set, [kvant.CustomTier(7)])
        refused(ValueError, "tiers[0].capacity (-1)", cache.tiers_set, [kvant.HostTier(-1)])
        refused(ErrorCode.INVALID_ARGUMENT, 'args.format_k ("q9_9")', cache.tiers_set, [], "q9_9")
        refused(ErrorCode.UNAVAILABLE, "/dev/null/tier", cache.tiers_set, [kvant.DiskTier("/dev/null/tier")])
    with device.cache(layers(), capacity=64) as plain:
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_PREFIXES", plain.tiers_set, [])
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_PREFIXES", plain.tiers_wait)
