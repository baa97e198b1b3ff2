"""Attention by the textbook, in double: what the binding's results are compared with."""
import numpy as np


def attention(q, k, v, positions, *, visible=None, causal=True, window=0, window_sinks=0, scale=None, soft_cap=0.0, sinks=None,
              alibi_slopes=None):
    """q [queries][q_heads][dim], k and v [keys][kv_heads][dim], positions [queries]. visible: bool [queries][keys] instead of
    the causal rule. Returns out and the log-sum-exps."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group, keys = q.shape[1] // k.shape[1], np.arange(k.shape[0])
    distance = np.asarray(positions)[:, None] - keys
    allowed = np.ones(distance.shape, bool)
    if visible is not None:
        allowed = np.array(visible)
    elif causal:
        allowed = distance >= 0
    if window:
        allowed &= (distance < window) | (keys < window_sinks)
    out, sums = np.zeros((*q.shape[:2], v.shape[2])), np.full(q.shape[:2], -np.inf)
    for head in range(q.shape[1]):
        logits = q[:, head] @ k[:, head // group].T * (scale or 1 / np.sqrt(q.shape[2]))
        if soft_cap:
            logits = soft_cap * np.tanh(logits / soft_cap)
        if alibi_slopes is not None:
            logits -= alibi_slopes[head] * distance
        weights = np.where(allowed, np.exp(logits), 0)
        total = weights.sum(axis=1) + (0 if sinks is None else np.exp(sinks[head]))
        seen = total > 0
        out[seen, head] = weights[seen] / total[seen, None] @ v[:, head // group]
        sums[seen, head] = np.log(total[seen])
    return out, sums
