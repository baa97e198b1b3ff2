"""kvant from Python: the plugin by ctypes, tensors as numpy arrays of float32, float16 or uint16 (bfloat16 bits).

    with kvant.Context("libkvant.so") as context, context.open() as device:
        cache = device.cache(layers=[kvant.Layer(2, 64, "q8_0", "q4_0")], capacity=4096)
        sequence = cache.sequence()
        with cache.step([(sequence, len(k), len(q))]) as step:
            out = step.run(0, k=k, v=v, q=q)

Context loads the library; Device is an opened GPU; Cache keeps sequences and their page tables, PagedCache leaves the page tables
to the caller; Step is planned once, run per layer, then committed. What the library refuses is a KvantError; arguments of a wrong
shape, type or range are a ValueError or TypeError, raised before the library is called.
"""
from ._arrays import from_bf16, to_bf16
from ._cache import Cache, Entry
from ._context import Context, Format, LogLevel
from ._device import Device, Profile
from ._drafts import tree_depths, tree_mask, tree_places
from ._object import ErrorCode, KvantError
from ._paged import PagedCache
from ._pool import Layer, Protection, Stats
from ._presets import PRESETS, plan_layers, preset
from ._prefixes import Policy, Prefixes, PrefixStats
from ._step import Step
from ._store import StoreStats
from ._tiers import CustomTier, DiskTier, HostTier, RemoteTier
from ._tokens import Rotation
from ._watching import Event, EventKind

__all__ = ["Cache", "Context", "CustomTier", "Device", "DiskTier", "Entry", "ErrorCode", "Event", "EventKind", "Format",
           "HostTier", "KvantError", "Layer", "LogLevel", "PRESETS", "PagedCache", "Policy", "Prefixes", "PrefixStats", "Profile", "Protection",
           "RemoteTier", "Rotation", "Stats", "Step", "StoreStats", "from_bf16", "plan_layers", "preset", "to_bf16", "tree_depths", "tree_mask",
           "tree_places"]
