"""The raw paged calls: the caller keeps the page tables, as FlashInfer and vLLM do."""
import ctypes as c

import numpy as np

from . import _abi, _arrays
from ._pool import Pool
from ._step import Step


class PagedCache(Pool):
    """From Device.paged_cache(). Pages are 0 .. stats().total_pages - 1; slot = page * page_tokens + offset."""

    def __init__(self, device, layers, capacity, page_tokens=0):
        super().__init__(device, layers, capacity, page_tokens, _abi.CACHE_EXTERNAL_PAGES)

    def step(self, slot_mapping=None, qo_indptr=None, kv_indptr=None, kv_indices=None, kv_last_page_len=None,
             query_positions=None, mask=None):
        """Plans a Step that writes fresh tokens to slots and lets a batch of sequences attend. All arrays hold integers.

        slot_mapping [tokens]: where each fresh token goes; negative: skipped; no slot twice.
        qo_indptr [batch + 1]: sequence i has the queries qo_indptr[i] .. qo_indptr[i + 1] - 1; None: no attention.
        kv_indptr [batch + 1], kv_indices: its pages are kv_indices[kv_indptr[i] : kv_indptr[i + 1]]; -1: unmapped, masked out.
        kv_last_page_len [batch]: tokens of its last page, 1 .. page_tokens; all other pages are full.
        query_positions [batch]: position of its first query; None: its last query stands at its last token.
        mask, instead of the causal rule: a list with a bool array [queries][keys] per sequence, or rows over all queries of
        the batch, bool [queries][keys] or bits, uint32 [queries][words]."""
        arrays = {"slot_mapping": _arrays.integers("slot_mapping", slot_mapping, np.int64),
                  "qo_indptr": _arrays.integers("qo_indptr", qo_indptr, np.int32)}
        slots, queries = arrays["slot_mapping"], arrays["qo_indptr"]
        batch = 0
        if queries is not None:
            batch = queries.size - 1
            if batch < 1:
                raise ValueError(f"qo_indptr has {queries.size} elements; expected batch + 1, at least 2")
            if kv_indptr is None or kv_indices is None or kv_last_page_len is None:
                raise ValueError("qo_indptr is given without kv_indptr, kv_indices and kv_last_page_len; expected all four")
        elif any(x is not None for x in (kv_indptr, kv_indices, kv_last_page_len, query_positions, mask)):
            raise ValueError("qo_indptr is None although other arrays of the attention are given")
        arrays["kv_indptr"] = _arrays.integers("kv_indptr", kv_indptr, np.int32, batch + 1)
        arrays["kv_indices"] = _arrays.integers("kv_indices", kv_indices, np.int32)
        arrays["kv_last_page_len"] = _arrays.integers("kv_last_page_len", kv_last_page_len, np.int32, batch)
        arrays["query_positions"] = _arrays.integers("query_positions", query_positions, np.int32, batch)
        if queries is not None:
            # Their last elements are the lengths of other arrays, so that the library reads no further than these go.
            if arrays["kv_indptr"][-1] > arrays["kv_indices"].size:
                raise ValueError(f"kv_indptr[{batch}] ({arrays['kv_indptr'][-1]}) is greater than the "
                                 f"{arrays['kv_indices'].size} elements of kv_indices")
            _rising("qo_indptr", queries)
            _rising("kv_indptr", arrays["kv_indptr"])
        words = None if mask is None else self._mask(mask, arrays)
        args = _abi.PagedArgs(batch=batch, token_count=0 if slots is None else slots.size, mask=_arrays.pointer(words),
                              mask_row_words=0 if words is None else words.shape[1],
                              **{name: _arrays.pointer(array) for name, array in arrays.items()})
        handle = self._make(self._api.paged_plan, self._handle, c.byref(args))
        return Step(self, handle, args.token_count, 0 if queries is None else int(queries[-1]))

    def read(self, layer, side, slots, dtype=np.float32):
        """Dequantized tokens [slots][kv_heads][head_dim] as float32, float16 or uint16 (bfloat16 bits); a negative slot gives
        a row of zeros. What a slot holds that was never written is undefined."""
        index, side_id, spec = self._place(layer, side)
        slots = _arrays.integers("slots", slots, np.int64)
        shape = slots.size, spec.kv_heads, spec.dim(side)
        out = _arrays.tensor_output("out", np.empty(shape, dtype), *shape)
        self._call(self._api.paged_read, self._handle, index, side_id, slots.size, slots.ctypes.data, _arrays.tensor(out))
        return out

    def copy(self, source_pages, destination_pages):
        """Copies whole pages, all layers and both sides. No page is destination twice, none is source and destination."""
        source = _arrays.integers("source_pages", source_pages, np.int32)
        destination = _arrays.integers("destination_pages", destination_pages, np.int32, source.size)
        self._call(self._api.paged_copy, self._handle, source.size, source.ctypes.data, destination.ctypes.data)

    def _mask(self, mask, arrays):
        """Bits of all rows, as wide as the widest sequence needs."""
        qo_indptr = arrays["qo_indptr"]
        if isinstance(mask, np.ndarray):
            return _arrays.mask_words("mask", mask, int(qo_indptr[-1]))
        counts, pages = np.diff(qo_indptr), np.diff(arrays["kv_indptr"])
        keys = np.where(pages > 0, (pages - 1) * self.page_tokens + arrays["kv_last_page_len"], 0)
        if len(mask) != counts.size:
            raise ValueError(f"mask holds {len(mask)} arrays; expected {counts.size}, one per sequence")
        parts = [_arrays.mask_words(f"mask[{i}]", part, int(counts[i]), int(keys[i])) for i, part in enumerate(mask)]
        words = np.zeros((int(qo_indptr[-1]), max(part.shape[1] for part in parts)), np.uint32)
        for begin, part in zip(qo_indptr, parts):
            words[begin:begin + part.shape[0], :part.shape[1]] = part
        return words


def _rising(name, indptr):
    if indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise ValueError(f"{name} ({indptr.tolist()}) does not begin with 0 or falls")
