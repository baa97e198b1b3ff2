"""What the prefix cache takes and tells: Prefixes, Policy, PrefixStats."""
import ctypes as c
from typing import NamedTuple

import numpy as np

from . import _abi, _arrays

_KINDS = {"lru": _abi.POLICY_LRU, "none": _abi.POLICY_NONE, "window": _abi.POLICY_WINDOW, "adaptive": _abi.POLICY_ADAPTIVE}


class Policy(NamedTuple):
    """Which pages leave first when their room is needed."""
    kind: str = "lru"       # "lru", "none", "window", "adaptive"
    sink_pages: int = 0     # of "window": pages at the beginning of each prefix that leave last
    ttl_ms: int = 0         # pages unused for so long leave; 0: never


class Prefixes(NamedTuple):
    """A prefix cache. model_id and rope: all that K and V depend on besides tokens, layers and formats."""
    model_id: str
    rope: str = ""
    policy: Policy = Policy()


class PrefixStats(NamedTuple):
    """Counts since the cache was made; see kvant_prefix_stats in kvant.h."""
    lookups: int
    lookup_tokens: int
    hits: int
    hit_tokens: int
    published_pages: int
    merged_pages: int
    evicted_capacity: int
    evicted_expired: int
    evicted_cleared: int
    evicted_limit: int
    pages: int
    unshared_pages: int


def policy_args(policy):
    if policy.kind not in _KINDS:
        raise ValueError(f"policy.kind ({policy.kind!r}) is not one of {', '.join(_KINDS)}")
    return _abi.PolicyArgs(kind=_KINDS[policy.kind], sink_pages=_arrays.count("policy.sink_pages", policy.sink_pages),
                           ttl_ms=_arrays.count("policy.ttl_ms", policy.ttl_ms, 64))


def cache_args(prefixes):
    """Fields of CacheArgs; ctypes keeps the policy alive with the struct that points at it."""
    return {"model_id": prefixes.model_id.encode(), "rope": prefixes.rope.encode(),
            "policy": c.pointer(policy_args(prefixes.policy))}


def token_ids(name, tokens):
    ids = np.asarray(tokens)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"{name} has shape {ids.shape} and dtype {ids.dtype}; expected a list of whole numbers")
    if ids.size and (ids.min() < -2**31 or ids.max() >= 2**31):
        raise ValueError(f"{name} holds {ids.min()} to {ids.max()}; expected 32-bit token ids")
    return np.ascontiguousarray(ids, np.int32)


def sequence_args(tokens, salt, leave, priority, ttl_ms, flags=0):
    """SequenceArgs, and the array that must live as long as it is used."""
    ids = token_ids("tokens", tokens)
    args = _abi.SequenceArgs(tokens=ids.ctypes.data if len(ids) else None, token_count=len(ids), salt=salt, salt_size=len(salt),
                             leave_tokens=_arrays.count("leave", leave, 64), priority=_arrays.count("priority", priority),
                             ttl_ms=_arrays.count("ttl_ms", ttl_ms, 64), flags=flags)
    return args, ids
