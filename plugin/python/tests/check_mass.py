"""Attention mass against the textbook, pruning, and limits that prune."""
import numpy as np
from support import DIM, KV_HEADS, Q_HEADS, attention, close, random_rows, refused

import kvant
from kvant import ErrorCode

LAYERS = 2


def weights(q, k, positions):
    """[kv_heads][keys]: summed over the queries, the mean over the query heads of a KV head."""
    group = q.shape[1] // k.shape[1]
    out = np.zeros((k.shape[1], k.shape[0]))
    for head in range(q.shape[1]):
        logits = q[:, head].astype(np.float64) @ k[:, head // group].astype(np.float64).T / np.sqrt(q.shape[2])
        part = np.where(np.asarray(positions)[:, None] >= np.arange(k.shape[0]), np.exp(logits), 0)
        out[head // group] += (part / part.sum(axis=1, keepdims=True)).sum(axis=0) / group
    return out


def made(device, format_="f32", capacity=256, mass=True, slab_bytes=0):
    return device.cache([kvant.Layer(KV_HEADS, DIM, format_, format_)] * LAYERS, capacity, slab_bytes=slab_bytes, mass=mass)


def feed(cache, sequence, k, v, q=None, mass=True):
    """The same rows in all layers; the last layer's result."""
    with cache.step([(sequence, len(k), 0 if q is None else len(q))]) as step:
        return [step.run(layer, k=k, v=v, q=q, mass=mass) for layer in range(LAYERS)][-1]


def check_masses(device, random):
    with made(device) as cache:
        sequence, (k, v, q) = cache.sequence(), random_rows(random, (90, KV_HEADS), (90, KV_HEADS), (90, Q_HEADS))
        feed(cache, sequence, k[:80], v[:80], q[:80], mass=False)
        assert not cache.mass(sequence).any()
        feed(cache, sequence, k[80:], v[80:], q[80:])
        expected = weights(q[80:], k, range(80, 90))
        for head in range(KV_HEADS):
            close(cache.mass(sequence, 1, head), expected[head], 1e-4)
        close(cache.mass(sequence, 0), expected.mean(axis=0), 1e-4)
        close(cache.mass(sequence), expected.mean(axis=0), 1e-4)
        assert np.array_equal(cache.mass(sequence, begin=70, count=5), cache.mass(sequence)[70:75])
        assert abs(cache.mass(sequence).sum() - 10) < 1e-3 and cache.mass(sequence).dtype == np.float32
        cache.clear_mass(sequence)
        assert not cache.mass(sequence).any()
        refused(ErrorCode.INVALID_ARGUMENT, "layer (2)", cache.mass, sequence, 2)
        refused(ErrorCode.INVALID_ARGUMENT, "kv_head (2)", cache.mass, sequence, 0, 2)
        refused(ErrorCode.INVALID_ARGUMENT, "begin (91)", cache.mass, sequence, begin=91)
        refused(ErrorCode.INVALID_ARGUMENT, "begin (1) for count (90)", cache.mass, sequence, begin=1, count=90)
        refused(ValueError, "count (91) is greater", cache.mass, sequence, count=91)
        refused(ValueError, "layer (-1)", cache.mass, sequence, -1)


def check_cool(device, random):
    with made(device, "q8_0", slab_bytes=4096) as cache:
        tokens = 240
        sequence = cache.sequence()
        feed(cache, sequence, *random_rows(random, (tokens, KV_HEADS), (tokens, KV_HEADS), (tokens, Q_HEADS)))
        held = [(cache.export(sequence, layer, "k"), cache.read(sequence, layer, "v")) for layer in range(LAYERS)]
        pool = cache.stats().pool_bytes
        refused(ErrorCode.RESOURCE_EXHAUSTED, "target_bytes (1) cannot be met", cache.cool, 1)
        refused(ErrorCode.INVALID_ARGUMENT, "formats[1] (t3) is not narrower", cache.cool, pool // 2, ["t2", "t3"])
        refused(ValueError, "sinks (-1)", cache.cool, pool // 2, None, -1)
        pages = cache.cool(pool * 9 // 10, ["q4_0"], recent=20)
        assert pages > 0 and cache.stats().pool_bytes <= pool * 9 // 10
        for layer, (keys, values) in enumerate(held):
            assert np.array_equal(cache.export(sequence, layer, "k"), keys)
            now = cache.read(sequence, layer, "v")
            changed = [page for page in range(tokens // 16) if not np.array_equal(now[page * 16:page * 16 + 16], values[page * 16:page * 16 + 16])]
            assert len(changed) == pages and changed[0] >= 1 and changed[-1] * 16 + 16 <= tokens - 20
            close(now, values, 0.2 * np.abs(values).max())
        assert [event.kind for event in cache.events()[0]][-1] == kvant.EventKind.COOLED


def check_prune(device, random):
    with made(device, "q8_0") as cache:
        sequence, (k, v, q) = cache.sequence(), random_rows(random, (120, KV_HEADS), (120, KV_HEADS), (120, Q_HEADS))
        feed(cache, sequence, k, v, q)
        mass = cache.mass(sequence)
        held = [(cache.export(sequence, layer, "k"), cache.read(sequence, layer, "v")) for layer in range(LAYERS)]
        assert cache.prune(sequence, 120).tolist() == list(range(120)) and cache.prune(sequence, 1 << 60).size == 120
        refused(ErrorCode.INVALID_ARGUMENT, "keep_tokens (67) is less than the 4 sinks and 64 recent", cache.prune, sequence, 67)
        refused(ValueError, "sinks (-1)", cache.prune, sequence, 80, -1)
        places = cache.prune(sequence, 40, sinks=2, recent=10)
        heavy = np.sort(np.argsort(-mass[2:110], kind="stable")[:28] + 2)
        assert places.tolist() == [0, 1, *heavy.tolist(), *range(110, 120)]
        for layer, (keys, values) in enumerate(held):
            assert np.array_equal(cache.export(sequence, layer, "k"), keys[places])
            assert np.array_equal(cache.read(sequence, layer, "v"), values[places])
        assert np.array_equal(cache.mass(sequence), mass[places])
        events = [event for event in cache.events()[0] if event.kind == kvant.EventKind.PRUNED]
        assert [(event.a, event.b, event.sequence) for event in events] == [(120, 40, sequence)]
        # It goes on with what is left.
        new_k, new_v, new_q = random_rows(random, (1, KV_HEADS), (1, KV_HEADS), (1, Q_HEADS))
        out = feed(cache, sequence, new_k, new_v, new_q)
        close(out, attention(new_q, cache.read(sequence, 1, "k"), cache.read(sequence, 1, "v"), [40])[0], 1e-3)
        with cache.step([(sequence, 0, 1)]) as step:
            refused(ErrorCode.FAILED_PRECONDITION, "ALiBi", step.run, 0, q=new_q, alibi_slopes=[0.1] * Q_HEADS)
            refused(ErrorCode.FAILED_PRECONDITION, "a step of the cache is open", cache.prune, sequence, 20, 2, 10)
            step.abort()


def check_limit(device, random):
    with made(device, capacity=512, slab_bytes=1) as cache:
        sequence, (k, v, q) = cache.sequence(), random_rows(random, (512, KV_HEADS), (512, KV_HEADS), (8, Q_HEADS))
        feed(cache, sequence, k, v, q)
        limit = cache.stats().pool_bytes // 20
        refused(ErrorCode.RESOURCE_EXHAUSTED, "cannot be met", cache.memory_limit, limit)
        assert "prune sequence" in cache.memory_plan(limit, prune=True) and cache.length(sequence) == 512
        cache.memory_limit(limit, prune=True, sinks=3, recent=20)
        assert cache.stats().pool_bytes <= limit and 23 <= cache.length(sequence) < 512
        assert cache.layers[0].format_k == "q4_0"


def check_without(device, random):
    with made(device, mass=False) as cache:
        sequence, (k, v, q) = cache.sequence(), random_rows(random, (8, KV_HEADS), (8, KV_HEADS), (8, Q_HEADS))
        refused(ErrorCode.FAILED_PRECONDITION, "counts no attention mass", feed, cache, sequence, k, v, q)
        assert cache.length(sequence) == 0
        for call in (cache.mass, cache.clear_mass):
            refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_MASS", call, sequence)
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_MASS", cache.prune, sequence, 100)
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_MASS", cache.memory_limit, 1 << 20, prune=True)


def check_mass(device, random):
    check_masses(device, random)
    check_cool(device, random)
    check_prune(device, random)
    check_limit(device, random)
    check_without(device, random)
