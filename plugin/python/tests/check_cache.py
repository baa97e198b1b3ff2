"""Sequences, steps, conversion, statistics and the life of handles."""
import numpy as np
from support import DIM, KV_HEADS, Q_HEADS, attention, close, random_rows, refused

import kvant
from kvant import ErrorCode


def check_sequences(device, random):
    cache = device.cache([kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")], capacity=256)
    sequence = cache.sequence()
    k, v, q = random_rows(random, (50, KV_HEADS), (50, KV_HEADS), (1, Q_HEADS))
    with cache.step([(sequence, 50, 1)]) as step:
        assert (step.fresh_tokens, step.queries) == (50, 1)
        out = step.run(0, k=k, v=v, q=q)
    held_k, held_v = cache.read(sequence, 0, "k"), cache.read(sequence, 0, "v")
    assert 0 < np.abs(held_k - k).max() < 0.03 and 0 < np.abs(held_v - v).max() < 0.4
    close(out, attention(q, held_k, held_v, [49])[0], 1e-4)
    exported = cache.export(sequence, 0, "k", 3, 4)
    assert exported.shape == (4, KV_HEADS, 68)
    assert np.array_equal(device.dequantize("q8_0", exported.reshape(-1, 68), DIM).reshape(4, KV_HEADS, DIM), held_k[3:7])

    child = cache.fork(sequence, 20)
    cache.truncate(sequence, 10)
    assert (cache.length(child), cache.length(sequence)) == (20, 10)
    assert cache.length(cache.fork(child)) == 20
    assert np.array_equal(cache.read(child, 0, "k"), held_k[:20])
    refused(ErrorCode.INVALID_ARGUMENT, "tokens (99)", cache.truncate, sequence, 99)
    refused(ValueError, "tokens (-1)", cache.truncate, sequence, -1)
    refused(ValueError, "begin (9) plus count (2) is beyond the sequence's 10 tokens", cache.read, sequence, 0, "k", 9, 2)
    refused(ValueError, "side ('x') is not", cache.read, sequence, 0, "x")
    refused(ValueError, "layer (1) is not less than the 1 layers", cache.read, sequence, 1, "k")
    refused(TypeError, "out is float64", cache.read, sequence, 0, "k", dtype=np.float64)
    cache.destroy(child)
    refused(ErrorCode.NOT_FOUND, "sequence (0x", cache.length, child)
    stats = cache.stats()
    assert (stats.sequence_tokens, stats.sequence_count) == (30, 2)
    assert stats.used_pages == 2  # the first one is shared
    assert stats.total_pages == 16 and 0 < stats.used_bytes < stats.pool_bytes

    cache.convert(0, "v", "q8_0")
    assert cache.layers[0].format_v == "q8_0" and cache.export(sequence, 0, "v").shape == (10, KV_HEADS, 68)
    assert np.abs(cache.read(sequence, 0, "v") - held_v[:10]).max() < 0.03
    return cache, sequence


def check_steps(cache, sequence, random):
    k, v, q = random_rows(random, (2, KV_HEADS), (2, KV_HEADS), (2, Q_HEADS))
    try:
        with cache.step([(sequence, 2, 0)]) as step:
            step.run(0, k=k, v=v)
            raise KeyError
    except KeyError:
        assert cache.length(sequence) == 10  # aborted
    step = cache.step([kvant.Entry(sequence, append=2, queries=2)])
    refused(ErrorCode.FAILED_PRECONDITION, "already open", cache.step, [(sequence, 1, 0)])
    refused(ErrorCode.FAILED_PRECONDITION, "layer 0 of 1 was not run", step.commit)
    refused(ValueError, "k is None although the step appends 2 tokens", step.run, 0, v=v, q=q)
    refused(ValueError, "q is None although the step asks 2 queries", step.run, 0, k=k, v=v)
    refused(ValueError, "k has shape (1, 2, 64); expected (2, 2, 64)", step.run, 0, k=k[:1], v=v, q=q)
    refused(TypeError, "v has dtype float16 and k float32", step.run, 0, k=k, v=v.astype(np.float16), q=q)
    refused(ValueError, "q has 3 heads; expected a multiple of the layer's 2", step.run, 0, k=k, v=v, q=q[:, :3])
    refused(ValueError, "sinks has shape (2,); expected (8,)", step.run, 0, k=k, v=v, q=q, sinks=[0.0, 1.0])
    refused(ErrorCode.INVALID_ARGUMENT, "args.scale", step.run, 0, k=k, v=v, q=q, scale=-1.0)
    step.abort()
    refused(ValueError, "the Step is closed", step.run, 0, k=k, v=v, q=q)
    with cache.step([(sequence, 2, 0)]) as step:
        refused(ValueError, "alibi_slopes is given although the step asks no queries", step.run, 0, k=k, v=v,
                alibi_slopes=[0.0] * 8)
        assert step.run(0, k=k, v=v, q=q[:0]) is None  # no rows are as good as None
        step.commit()
    assert cache.length(sequence) == 12
    refused(ValueError, "entries[0].append (-1)", cache.step, [(sequence, -1, 0)])
    refused(ValueError, "entries is empty", cache.step, [])


def check_prefixes(device, random):
    """A second prompt finds the first one's pages."""
    prefixes = kvant.Prefixes("model", "theta 10000", kvant.Policy("adaptive", ttl_ms=60000))
    cache = device.cache([kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")], capacity=128, prefixes=prefixes)
    prompt = np.arange(50, dtype=np.int64) * 3
    first, reused = cache.open(prompt)
    assert reused == 0
    k, v = random_rows(random, (50, KV_HEADS), (50, KV_HEADS))
    with cache.step([(first, 40, 0)]) as step:
        step.run(0, k=k[:40], v=v[:40])
    with cache.step([kvant.Entry(first, 10, 0, tokens=prompt[40:])]) as step:
        step.run(0, k=k[40:], v=v[40:])
    assert cache.find(prompt) == 48 and cache.find(prompt[:48], leave=1) == 47 and cache.find(prompt, b"other") == 0
    second, reused = cache.open(list(prompt))
    assert reused == 48 and np.array_equal(cache.read(second, 0, "k"), cache.read(first, 0, "k", 0, 48))
    stats = cache.prefix_stats()
    assert (stats.lookups, stats.hits, stats.hit_tokens, stats.pages) == (2, 1, 48, 3)
    cache.set_policy(kvant.Policy("window", sink_pages=1))
    cache.destroy(first)
    cache.destroy(second)
    assert cache.clear_prefixes() == 3 and cache.stats().used_pages == 0
    refused(ValueError, "policy.kind ('fifo')", cache.set_policy, kvant.Policy("fifo"))
    refused(ValueError, "tokens has shape (2, 2)", cache.open, [[1, 2], [3, 4]])
    refused(ValueError, "expected 32-bit token ids", cache.open, [2**31])
    refused(ErrorCode.INVALID_ARGUMENT, "priority (101)", cache.open, [1], priority=101)
    plain = device.cache([kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")], capacity=32)
    refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_PREFIXES", plain.find, [1])
    refused(ValueError, "entries[0].tokens has 1 ids", plain.step, [kvant.Entry(plain.sequence(), 2, 0, tokens=[1])])


def check_lives(device, log):
    """Handles go with their parents and with the last reference, and nothing is destroyed out of order."""
    said = len(log)
    cache = device.cache([kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")], capacity=32)
    step = cache.step([(cache.sequence(), 1, 0)])
    cache.close()
    cache.close()
    refused(ValueError, "the Step is closed", step.commit)
    refused(ValueError, "the Cache is closed", cache.stats)
    cache = device.cache([kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")], capacity=32)
    cache.step([(cache.sequence(), 1, 0)])  # nobody keeps it: aborted
    cache.step([(cache.sequence(), 1, 0)])
    del cache
    assert log[said:] == [], log[said:]
    refused(ErrorCode.INVALID_ARGUMENT, "head_dim_k (20)", device.cache, [kvant.Layer(1, 20, "f16", "f16")], 32)
    refused(ErrorCode.NOT_FOUND, "q9_9", device.cache, [kvant.Layer(1, 64, "q9_9", "f16")], 32)
    refused(ErrorCode.INVALID_ARGUMENT, "window_sinks (4)", device.cache, [kvant.Layer(1, 64, "f16", "f16", 0, 0, 4)], 32)


def check_cache(device, random, log):
    cache, sequence = check_sequences(device, random)
    check_steps(cache, sequence, random)
    cache.close()
    check_prefixes(device, random)
    check_lives(device, log)
