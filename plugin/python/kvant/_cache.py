"""A cache that keeps the page tables itself: sequences, and steps that append to them and attend."""
import ctypes as c
import json
from typing import Any, NamedTuple, Optional

import numpy as np

from . import _abi, _arrays, _prefixes
from ._mass import Mass
from ._memory import Memory
from ._pool import Pool
from ._state import State
from ._step import Step
from ._store import Store
from ._tiers import Tiers
from ._tokens import Tokens
from ._watching import Watching


class Entry(NamedTuple):
    """One sequence of a step: `append` fresh tokens go to its end, then `queries` queries attend to all of its tokens.

    query_position: position of the first query; None: the last query stands at the last token. mask: bool
    [queries][tokens - mask_begin], True where the query may attend to token mask_begin + column, fresh tokens included;
    earlier tokens follow the causal rule. Rows of bits (uint32 [queries][words]) are taken as they are."""
    sequence: int
    append: int
    queries: int
    query_position: Optional[int] = None
    mask: Any = None
    mask_begin: int = 0
    tokens: Any = None  # ids of the fresh tokens, for the prefix cache; None: unknown, or told by Cache.open


class Cache(Pool, Watching, Memory, Mass, Tiers, State, Store, Tokens):
    """From Device.cache(), configure() or config_apply(). Sequences are plain integers, never reused. KvantError NOT_FOUND: no such
    sequence; RESOURCE_EXHAUSTED: no page or no device memory is left. A call that fails changes nothing."""

    def __init__(self, device, layers, capacity, page_tokens=0, prefixes=None, slab_bytes=0, config=None, mass=False, protection=None):
        flags, args = (0, {}) if prefixes is None else (_abi.CACHE_PREFIXES, _prefixes.cache_args(prefixes))
        flags |= _abi.CACHE_MASS if mass else 0
        self._config, self._callbacks, self._cold = config, [], None
        super().__init__(device, layers, capacity, page_tokens, flags, keep=self._callbacks,
                         slab_bytes=_arrays.count("slab_bytes", slab_bytes, 64), protection=protection, **args)
        if config is not None:
            self._read_config()

    def _create(self, device, args):
        if self._config is None:
            return super()._create(device, args)
        if isinstance(self._config, str):
            return self._make(self._slot("cache_configure"), device._handle, c.byref(args), self._config.encode())
        return self._make(self._slot("config_apply"), device._handle, c.byref(args), c.byref(self._config))

    def config(self):
        """The configuration that this cache was made of, complete, as a dict. KvantError FAILED_PRECONDITION: it was made without
        one."""
        text = c.c_char_p()
        self._ask("config_text", c.byref(text))
        return json.loads(text.value)

    def _read_config(self):
        config = self.config()
        self.page_tokens = config["page_tokens"]
        if config["window"]:
            window = {name: config[name] for name in ("window", "window_sinks")}
            self.layers = [layer._replace(**window) for layer in self.layers]
        self._read_formats()

    def _read_formats(self):
        """What a layer's formats are may change by calls that name no layer."""
        for index, now in enumerate(self.statistics()["layers"]):
            self.layers[index] = self.layers[index]._replace(format_k=now["format_k"], format_v=now["format_v"])

    def sequence(self):
        """A new, empty sequence."""
        return self._number(self._api.sequence_create, self._handle)

    def open(self, tokens, salt=b"", leave=0, priority=0, ttl_ms=0, near_tiers=False):
        """A new sequence that holds the longest prefix of `tokens` that the cache has: (sequence, reused tokens). Append the
        tokens from there on. leave: so many of the last tokens are not taken from the cache. near_tiers: wait for no tier but the
        nearest one."""
        flags = _abi.SEQUENCE_NEAR_TIERS if near_tiers else 0
        args, kept = _prefixes.sequence_args(tokens, salt, leave, priority, ttl_ms, flags)
        sequence, reused = c.c_uint64(), c.c_uint64()
        self._call(self._api.sequence_open, self._handle, c.byref(args), c.byref(sequence), c.byref(reused))
        del kept
        return sequence.value, reused.value

    def find(self, tokens, salt=b"", leave=0):
        """How many tokens open() would share now."""
        args, kept = _prefixes.sequence_args(tokens, salt, leave, 0, 0)
        found = self._number(self._api.prefix_find, self._handle, c.byref(args))
        del kept
        return found

    def clear_prefixes(self):
        """Lets go every page that no sequence holds; gives their number."""
        return self._number(self._api.prefix_clear, self._handle)

    def set_policy(self, policy):
        """Another eviction Policy from now on."""
        self._call(self._api.prefix_policy, self._handle, c.byref(_prefixes.policy_args(policy)))

    def prefix_stats(self):
        """PrefixStats since the cache was made."""
        stats = _abi.PrefixStats()
        self._call(self._api.prefix_stats, self._handle, c.byref(stats))
        return _prefixes.PrefixStats(*(getattr(stats, name) for name in _prefixes.PrefixStats._fields))

    def destroy(self, sequence):
        """Gives back a sequence and the pages that no other one shares."""
        self._call(self._api.sequence_destroy, self._handle, _arrays.count("sequence", sequence, 64))

    def fork(self, parent, tokens=None):
        """A new sequence that holds the parent's first `tokens` tokens (None: all) and shares their full pages."""
        tokens = self.length(parent) if tokens is None else _arrays.count("tokens", tokens, 64)
        return self._number(self._api.sequence_fork, self._handle, _arrays.count("parent", parent, 64), tokens)

    def truncate(self, sequence, tokens):
        """Keeps the first `tokens` tokens."""
        self._call(self._api.sequence_truncate, self._handle, _arrays.count("sequence", sequence, 64),
                   _arrays.count("tokens", tokens, 64))

    def length(self, sequence):
        """Committed tokens."""
        return self._number(self._api.sequence_length, self._handle, _arrays.count("sequence", sequence, 64))

    def read(self, sequence, layer, side, begin=0, count=None, dtype=np.float32):
        """Dequantized tokens [count][kv_heads][head_dim] of one side ("k" or "v"), as float32, float16 or uint16 (bfloat16
        bits). count None: all from `begin` on. KvantError FAILED_PRECONDITION: the tokens have left the layer's window."""
        index, side_id, spec, begin, count = self._range(sequence, layer, side, begin, count)
        out = _arrays.tensor_output("out", np.empty((count, spec.kv_heads, spec.dim(side)), dtype), count, spec.kv_heads,
                                    spec.dim(side))
        self._call(self._api.sequence_read, self._handle, sequence, index, side_id, begin, count, _arrays.tensor(out))
        return out

    def export(self, sequence, layer, side, begin=0, count=None):
        """The same as canonical bytes: uint8 [count][kv_heads][row_bytes]."""
        index, side_id, spec, begin, count = self._range(sequence, layer, side, begin, count)
        row = self._context.row_bytes(spec.format(side), spec.dim(side))
        out = np.empty((count, spec.kv_heads, row), np.uint8)
        self._call(self._api.sequence_export, self._handle, sequence, index, side_id, begin, count, out.ctypes.data, out.nbytes)
        return out

    def _range(self, sequence, layer, side, begin, count):
        place = self._place(layer, side)
        begin, length = _arrays.count("begin", begin, 64), self.length(sequence)
        count = max(0, length - begin) if count is None else _arrays.count("count", count, 64)
        if begin + count > length:  # before memory for it is taken
            raise ValueError(f"begin ({begin}) plus count ({count}) is beyond the sequence's {length} tokens")
        return (*place, begin, count)

    def step(self, entries):
        """Plans a Step over `entries`, each an Entry or a tuple (sequence, append, queries, ...). One step per cache at a time
        (KvantError FAILED_PRECONDITION)."""
        entries = [Entry(*entry) for entry in entries]
        if not entries:
            raise ValueError("entries is empty; expected at least one (sequence, append, queries)")
        masks = []  # packed rows and token ids, alive during the call
        array = (_abi.StepEntry * len(entries))(*[self._entry(f"entries[{i}]", e, masks) for i, e in enumerate(entries)])
        args = _abi.StepArgs(entry_count=len(entries), entries=array)
        handle = self._make(self._api.step_plan, self._handle, c.byref(args))
        return Step(self, handle, sum(entry.append for entry in entries), sum(entry.queries for entry in entries))

    def _entry(self, name, entry, masks):
        counts = {"sequence": _arrays.count(f"{name}.sequence", entry.sequence, 64),
                  "append": _arrays.count(f"{name}.append", entry.append),
                  "queries": _arrays.count(f"{name}.queries", entry.queries)}
        if entry.query_position is not None:
            counts["flags"] = _abi.ENTRY_QUERY_POSITION
            counts["query_position"] = _arrays.count(f"{name}.query_position", entry.query_position, 31)
        if entry.mask is not None:
            begin = counts["mask_begin"] = _arrays.count(f"{name}.mask_begin", entry.mask_begin, 64)
            tokens = self.length(entry.sequence) + entry.append
            if begin > tokens:
                raise ValueError(f"{name}.mask_begin ({begin}) is greater than the sequence's {tokens} tokens")
            words = _arrays.mask_words(f"{name}.mask", entry.mask, entry.queries, tokens - begin)
            masks.append(words)
            counts.update(mask=words.ctypes.data, mask_row_words=words.shape[1])
        elif entry.mask_begin:
            raise ValueError(f"{name}.mask_begin ({entry.mask_begin}) is given without a mask")
        if entry.tokens is not None:
            ids = _prefixes.token_ids(f"{name}.tokens", entry.tokens)
            if len(ids) != entry.append:
                raise ValueError(f"{name}.tokens has {len(ids)} ids; expected {entry.append}, one a fresh token")
            if len(ids):
                masks.append(ids)
                counts["tokens"] = ids.ctypes.data
        return _abi.StepEntry(**counts)
