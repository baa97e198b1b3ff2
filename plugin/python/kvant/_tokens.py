"""Tokens of a cache's sequences outside of steps: written, dropped, named, turned."""
import ctypes as c
from typing import Any, NamedTuple

import numpy as np

from . import _abi_manager as _abi
from . import _arrays, _prefixes
from ._managed import Managed


class Rotation(NamedTuple):
    """How positions turn keys (RoPE)."""
    frequencies: Any      # [pairs] radians that pair i turns a position: theta^(-2i / rotary dimensions), as the model scales it
    halves: bool = False  # pair i is (i, i + pairs); else (2i, 2i + 1)


class Tokens(Managed):
    """What a Cache does to tokens that are there. No step may be open."""

    def write(self, sequence, layer, begin, k, v):
        """Writes K and V of one layer, [tokens][kv_heads][head_dim] each, as tokens [begin, begin + tokens) of the sequence,
        which grows if it is shorter; begin is at most its length. Every layer of a token must be written before it is attended
        to. Token ids from `begin` on are forgotten, see identify()."""
        index, _, spec = self._place(layer, "k")
        tokens = np.shape(k)[0] if np.ndim(k) else 0
        k = _arrays.tensor_input("k", k, tokens, spec.kv_heads, spec.dim("k"))
        v = _arrays.tensor_input("v", v, tokens, spec.kv_heads, spec.dim("v"))
        self._ask("sequence_write", _arrays.count("sequence", sequence, 64), index, _arrays.count("begin", begin, 64), tokens,
                  _arrays.tensor(k), _arrays.tensor(v))

    def keep(self, sequence, places):
        """Keeps the tokens at these places, ascending, and closes the gaps, codes as they are: the accepted path of a tree of
        drafts, or a full context's first and newest tokens. Keys keep the rotation they were stored with, see shift()."""
        places = _arrays.integers("places", places, np.uint64)
        self._ask("sequence_keep", _arrays.count("sequence", sequence, 64), places.size, places.ctypes.data)

    def identify(self, sequence, tokens):
        """Tells the ids of the sequence's first tokens, whose K and V are those of exactly these ids in this order: their full
        pages may be shared from now on."""
        ids = _prefixes.token_ids("tokens", tokens)
        self._ask("sequence_identify", _arrays.count("sequence", sequence, 64), ids.size, ids.ctypes.data)

    def shift(self, sequence, begin, count, positions, rotation):
        """Turns the keys of tokens [begin, begin + count), stored after RoPE, by `positions` (negative: back), in all layers."""
        frequencies = np.ascontiguousarray(rotation.frequencies, np.float64)
        if frequencies.ndim != 1:
            raise ValueError(f"rotation.frequencies has shape {frequencies.shape}; expected (pairs,)")
        if not -2**63 <= positions < 2**63:
            raise ValueError(f"positions ({positions}) is not a 64-bit integer")
        args = _abi.Rotation(frequencies=frequencies.ctypes.data, pair_count=frequencies.size,
                             flags=_abi.ROTATION_HALVES if rotation.halves else 0)
        self._ask("sequence_shift", _arrays.count("sequence", sequence, 64), _arrays.count("begin", begin, 64),
                  _arrays.count("count", count, 64), c.byref(args), positions)

    def clear_all(self):
        """Destroys all sequences and lets the whole prefix cache go; gives the number of sequences."""
        count = c.c_uint64()
        self._ask("clear_all", c.byref(count))
        return count.value
