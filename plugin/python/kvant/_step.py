"""A planned step: run every layer, then commit or abort."""
import ctypes as c

import numpy as np

from . import _abi, _arrays
from ._object import Object


class Step(Object):
    """From Cache.step() or PagedCache.step(). As a context manager it commits at its end and aborts on an exception."""

    def __init__(self, pool, handle, fresh, queries):
        super().__init__(pool._api, handle, pool._api.step_abort, parent=pool)
        self._layers, self.fresh_tokens, self.queries = pool.layers, fresh, queries

    def run(self, layer, k=None, v=None, q=None, *, scale=0.0, soft_cap=0.0, causal=True, sinks=None, alibi_slopes=None,
            out=None, lse=False, invariant=False, mass=False):
        """Appends k and v, then attends: softmax(scale * q k^T + bias) v. Returns out, or None if the step has no query.

        k [fresh tokens][kv_heads][head_dim], v [fresh tokens][kv_heads][head_dim_v], of one type; None if nothing is appended.
        q [queries][q_heads][head_dim]; q_heads is a multiple of kv_heads. Rows stand in the order of the step's entries.
        All are float32, float16 or uint16 (bfloat16 bits), read in place if the last axis is contiguous.
        scale: 0 is 1 / sqrt(head_dim). soft_cap: 0 is off, else logits are cap * tanh(logit / cap). causal False: every query
        sees every key. sinks [q_heads]: a logit that joins the softmax's denominator; -inf: none for that head.
        alibi_slopes [q_heads]: slope * (key position - query position) is added to a logit.
        out: an array of one of the three types to fill, instead of a new one of float32; [queries][q_heads][head_dim_v].
        lse True: returns (out, lse), lse float32 [queries][q_heads], the natural log-sum-exp of each row's logits, sinks
        included; -inf for a row that sees nothing, whose out is zeros.
        invariant True: of at most 32 queries a sequence, each result is to the bit what its query would get alone in its step:
        verified drafts then are the target's own text. Slower.
        mass True: what each key weighs in the softmax of these queries is added to its token's mass (Cache.mass). Costs about
        one more reading of K.
        ValueError and TypeError name the argument that does not fit; KvantError is the library's refusal."""
        index = _arrays.count("layer", layer)
        if index >= len(self._layers):
            raise ValueError(f"layer ({index}) is not less than the {len(self._layers)} layers of the cache")
        spec = self._layers[index]
        k = self._given("k", k, self.fresh_tokens, "appends", spec.kv_heads, spec.dim("k"))
        v = self._given("v", v, self.fresh_tokens, "appends", spec.kv_heads, spec.dim("v"))
        if k is not None and k.dtype != v.dtype:
            raise TypeError(f"v has dtype {v.dtype} and k {k.dtype}; expected the same")
        q = self._given("q", q, self.queries, "asks", None, spec.dim("k"))
        heads, sums = 0, None
        if q is None:
            named = {"out": out, "sinks": sinks, "alibi_slopes": alibi_slopes, "lse": lse or None}
            if surplus := [name for name, value in named.items() if value is not None]:
                raise ValueError(f"{surplus[0]} is given although the step asks no queries")
        else:
            heads = q.shape[1]
            if heads == 0 or heads % spec.kv_heads:
                raise ValueError(f"q has {heads} heads; expected a multiple of the layer's {spec.kv_heads} KV heads")
            out = _arrays.tensor_output("out", out, self.queries, heads, spec.dim("v"))
            sums = np.empty((self.queries, heads, 1), np.float32) if lse else None
            sinks, alibi_slopes = _arrays.floats("sinks", sinks, heads), _arrays.floats("alibi_slopes", alibi_slopes, heads)
        arrays = {"k": k, "v": v, "q": q, "out": out, "lse": sums}
        flags = (0 if causal else _abi.RUN_NON_CAUSAL) | (_abi.RUN_INVARIANT if invariant else 0)
        flags |= _abi.RUN_MASS if mass else 0
        args = _abi.RunArgs(q_heads=heads, flags=flags, scale=scale, soft_cap=soft_cap,
                            sinks=_arrays.pointer(sinks), alibi_slopes=_arrays.pointer(alibi_slopes),
                            **{name: _arrays.tensor(array) for name, array in arrays.items() if array is not None})
        self._call(self._api.step_run, self._handle, index, c.byref(args))
        return (out, sums[:, :, 0]) if lse else out

    @staticmethod
    def _given(name, values, rows, verb, heads, dim):
        """The checked array, or None where the step calls for none (no rows are as good as None)."""
        if values is None:
            if rows:
                raise ValueError(f"{name} is None although the step {verb} {rows} {'tokens' if verb == 'appends' else 'queries'}")
            return None
        array = _arrays.tensor_input(name, values, rows, heads, dim)
        return array if rows else None

    def commit(self):
        """Ends the step: its tokens belong to their sequences. Every layer must have been run if it appends; on an error the
        step stays open."""
        self._call(self._api.step_commit, self._handle)
        self._finalizer.detach()

    def abort(self):
        """Ends the step; the cache is as it was before. Nothing happens if the step has ended already."""
        self.close()

    def __exit__(self, failure, *_):
        try:
            if failure is None and self._finalizer.alive:
                self.commit()
        finally:
            self.close()
