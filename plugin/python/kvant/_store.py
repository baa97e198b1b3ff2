"""A cache as a store of whole tensors by (prefix, layer)."""
import ctypes as c
from typing import NamedTuple

import numpy as np

from . import _abi_manager as _abi
from . import _arrays, _prefixes
from ._managed import Managed


class StoreStats(NamedTuple):
    """Counts since store_open; see kvant_store_stats in kvant_ext_manager.h."""
    puts: int
    lookups: int
    hits: int
    prefixes: int
    cold_prefixes: int
    evicted: int
    demoted: int
    promoted: int


class Store(Managed):
    """The store of a Cache with a prefix cache. `tokens` is one prefix [count], or a batch [rows][count] of them; tensors are
    [count][kv_heads][head_dim], or [rows][count][kv_heads][head_dim], read in place where the last axis is contiguous:
    [rows][kv_heads][count][head_dim] comes as its transpose(0, 2, 1, 3). A prefix is found by exactly its tokens and salt."""

    def store_open(self, cold=None, policy=None, promote_uses=0):
        """Once a cache. cold: a Cache of narrower formats and the same device, for nothing else, where prefixes go that there is
        no room for, until they have been used promote_uses times (0: 2). policy: which leave first; None: "lru"."""
        args = _abi.StoreOptions(promote_uses=_arrays.count("promote_uses", promote_uses))
        if cold is not None:
            args.cold_cache = cold._handle
        if policy is not None:
            args.policy = c.pointer(_prefixes.policy_args(policy))
        self._ask("store_open", c.byref(args))
        self._cold = cold  # lives as long as this cache

    def store_put(self, tokens, layer, k, v, salt=b""):
        """Stores a layer of a prefix, or of each prefix of a batch; what is there already is not written again."""
        ids, index, spec = self._store_place(tokens, layer)
        args = self._store_args(ids, index, salt)
        k, v = (_rows(name, array, ids, spec.kv_heads, spec.dim(name)) for name, array in (("k", k), ("v", v)))
        args.k, args.k_batch_stride = _batch(k)
        args.v, args.v_batch_stride = _batch(v)
        self._ask("store_put", c.byref(args))

    def store_get(self, tokens, layer, salt=b"", dtype=np.float32):
        """(found, k, v) of a layer, as float32, float16 or uint16 (bfloat16 bits). found: a bool, or one a row of the batch; rows
        that were not found are zeros."""
        ids, index, spec = self._store_place(tokens, layer)
        args = self._store_args(ids, index, salt)
        k, v = (np.zeros((*ids.shape, spec.kv_heads, spec.dim(side)), dtype) for side in "kv")
        _arrays.tensor_output("k", k[0], *k.shape[1:])
        args.k, args.k_batch_stride = _batch(k)
        args.v, args.v_batch_stride = _batch(v)
        found = np.zeros(len(ids), np.uint32)
        self._ask("store_get", c.byref(args), found.ctypes.data)
        found = found.astype(bool)
        return (bool(found[0]), k[0], v[0]) if np.ndim(tokens) == 1 else (found, k, v)

    def store_find(self, tokens, salt=b""):
        """How many layers are there: of a prefix, or [rows] of a batch. Counts as no use."""
        ids, index, _ = self._store_place(tokens, 0)
        layers = np.zeros(len(ids), np.uint32)
        self._ask("store_find", c.byref(self._store_args(ids, index, salt)), layers.ctypes.data)
        return int(layers[0]) if np.ndim(tokens) == 1 else layers

    def store_erase(self, tokens, salt=b""):
        """Lets a prefix go, or each of a batch; those that are not there are no error."""
        ids, index, _ = self._store_place(tokens, 0)
        self._ask("store_erase", c.byref(self._store_args(ids, index, salt)))

    def store_clear(self):
        """Lets all prefixes of the store go."""
        self._ask("store_clear")

    def store_stats(self):
        """StoreStats since store_open."""
        stats = _abi.StoreStats()
        self._ask("store_stats", c.byref(stats))
        return StoreStats(*(getattr(stats, name) for name in StoreStats._fields))

    def _store_place(self, tokens, layer):
        """Ids as [rows][count], the layer's index and its Layer."""
        index, _, spec = self._place(layer, "k")
        ids = np.asarray(tokens)
        if ids.ndim not in (1, 2):
            raise ValueError(f"tokens has shape {ids.shape}; expected (count,) or (rows, count)")
        shape = (1, *ids.shape)[-2:]
        return _prefixes.token_ids("tokens", ids.reshape(-1)).reshape(shape), index, spec

    @staticmethod
    def _store_args(ids, index, salt):
        args = _abi.StoreArgs(tokens=ids.ctypes.data, token_count=ids.shape[1], salt=salt, salt_size=len(salt),
                              batch=ids.shape[0], layer=index)
        args.kept = ids  # the ids live as long as what points at them
        return args


def _rows(name, values, ids, heads, dim):
    """[rows][count][heads][dim], in place where the library can read it so."""
    array = np.asarray(values)
    if array.ndim == 3 and len(ids) == 1:
        array = array[None]
    expected = (*ids.shape, heads, dim)
    if array.shape != expected:
        raise ValueError(f"{name} has shape {np.shape(values)}; expected {expected[len(ids) == 1:]}")
    if not array.size:
        return array.astype(np.float32)
    first = _arrays.tensor_input(name, array[0], *expected[1:])
    in_place = first.dtype == array.dtype and first.ctypes.data == array.ctypes.data
    if in_place and (len(array) == 1 or (array.strides[0] > 0 and array.strides[0] % array.itemsize == 0)):
        return array
    return np.ascontiguousarray(array, first.dtype)


def _batch(array):
    """kvant_tensor of the first row, reaching to the end of the last one, and the stride of rows in elements."""
    tensor = _arrays.tensor(array[0])
    stride = array.strides[0] if len(array) > 1 else 0
    tensor.contents.size += stride * (len(array) - 1)
    return tensor, stride // array.itemsize
