"""Trees of drafted tokens: the mask that lets each see its own path, and the path that was accepted."""
import numpy as np


def _parents(parents):
    parents = np.asarray(parents)
    if parents.ndim != 1 or (parents.size and parents.dtype.kind not in "iu"):
        raise ValueError(f"parents has shape {parents.shape} and dtype {parents.dtype}; expected a list of whole numbers")
    for node, parent in enumerate(parents):
        if not -1 <= parent < node:
            raise ValueError(f"parents[{node}] ({parent}) is not an earlier node, or -1 for one without")
    return parents


def tree_mask(parents):
    """bool [n][n] for Entry.mask, with mask_begin at the tree's first token: each drafted token sees itself and its ancestors.
    parents[i]: the index of token i's parent in the tree, below i; -1: it follows the sequence's last token."""
    parents = _parents(parents)
    mask = np.eye(parents.size, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


def tree_depths(parents):
    """[n] how many positions behind the sequence's last token each drafted token stands, from 0 on: RoPE turns it by that."""
    return tree_mask(parents).sum(axis=1) - 1


def tree_places(parents, leaf, begin):
    """Places for Cache.keep after the tree's tokens were appended at `begin`: all before it, then the path that ends in `leaf`;
    -1: none of the tree."""
    mask = tree_mask(parents)
    if not -1 <= leaf < len(mask):
        raise ValueError(f"leaf ({leaf}) is not one of the tree's {len(mask)} tokens, or -1 for none")
    path = np.flatnonzero(mask[leaf]) if leaf >= 0 else np.empty(0, np.int64)
    return np.concatenate([np.arange(begin), begin + path]).astype(np.uint64)
