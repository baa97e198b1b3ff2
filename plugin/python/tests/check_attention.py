"""Masks, ALiBi, soft-cap, sinks, log-sum-exp, windows and element types against numpy. Few kinds of run: each compiles a
pipeline or two. Keys and values are f16, so that what the cache holds is known."""
import json
import os
import tempfile

import numpy as np
from support import DIM, KV_HEADS, Q_HEADS, attention, close, differ, random_rows, refused

import kvant

TOKENS, QUERIES = 45, 3


def filled(device, random, **layer):
    """A cache with one sequence of TOKENS committed tokens, and those."""
    cache = device.cache([kvant.Layer(KV_HEADS, DIM, "f16", "f16", **layer)], capacity=128)
    k, v = (x.astype(np.float16) for x in random_rows(random, (TOKENS, KV_HEADS), (TOKENS, KV_HEADS)))
    v = v[:, :, :cache.layers[0].dim("v")]
    sequence = cache.sequence()
    with cache.step([(sequence, TOKENS, 0)]) as step:
        step.run(0, k=k, v=v)
    for side, rows in (("k", k), ("v", v)):
        assert np.array_equal(cache.read(sequence, 0, side, dtype=np.float16), rows)
    return cache, sequence, k, v


def check_mask(cache, sequence, k, v, q, random):
    """A tree mask over the newest tokens: earlier ones follow the causal rule."""
    begin = 7
    mask = random.random((QUERIES, TOKENS - begin)) < 0.3
    visible = np.hstack([np.ones((QUERIES, begin), bool), mask])
    positions = np.arange(TOKENS - QUERIES, TOKENS)
    expected = attention(q, k, v, positions, visible=visible)[0]
    entry = kvant.Entry(sequence, 0, QUERIES, mask=mask, mask_begin=begin)
    with cache.step([entry]) as step:
        close(step.run(0, q=q), expected)
    words = np.packbits(np.pad(mask, ((0, 0), (0, 64 - mask.shape[1]))), axis=1, bitorder="little").view("<u4")
    with cache.step([entry._replace(mask=words)]) as step:
        close(step.run(0, q=q), expected)
    differ(expected, attention(q, k, v, positions)[0])
    refused(ValueError, "entries[0].mask has shape (3, 38); expected (3, 39)", cache.step, [entry._replace(mask_begin=6)])
    refused(ValueError, "mask_begin (7) is given without a mask", cache.step, [entry._replace(mask=None)])


def check_logits(cache, sequence, k, v, q, random):
    """Scale, soft-cap, ALiBi, sinks and the log-sum-exp at once, then without each: the others must not stand in for it."""
    options = {"scale": 0.3, "soft_cap": 2.0, "sinks": random.standard_normal(Q_HEADS).astype(np.float32) + 2,
               "alibi_slopes": 2.0 ** -np.arange(1, Q_HEADS + 1)}
    options["sinks"][3] = -np.inf
    position = 20  # not at the end: the queries see 21, 22 and 23 keys
    positions = position + np.arange(QUERIES)
    with cache.step([kvant.Entry(sequence, 0, QUERIES, query_position=position)]) as step:
        out, lse = step.run(0, q=q, lse=True, **options)
    expected, sums = attention(q, k, v, positions, **options)
    close(out, expected)
    close(lse, sums)
    for name in options:
        rest = {key: value for key, value in options.items() if key != name}
        differ(attention(q, k, v, positions, **rest)[1], sums)


def check_window(device, random):
    """A window with sinks, and values of another head size than the keys'."""
    cache, sequence, k, v = filled(device, random, head_dim_v=40, window=8, window_sinks=2)
    q, = random_rows(random, (QUERIES, Q_HEADS))
    positions = np.arange(TOKENS - QUERIES, TOKENS)
    with cache.step([(sequence, 0, QUERIES)]) as step:
        out = step.run(0, q=q)
    expected = attention(q, k, v, positions, window=8, window_sinks=2)[0]
    close(out, expected)
    refused(kvant.ErrorCode.FAILED_PRECONDITION, "window", cache.read, sequence, 0, "v", 16, 4)
    differ(expected, attention(q, k, v, positions, window=8)[0])
    differ(expected, attention(q, k, v, positions)[0])
    cache.close()


def check_rotation(device, random):
    """Rotated keys and values: the same attention and the same rows, but for rounding; other bytes in the pages."""
    k, v = random_rows(random, (TOKENS, KV_HEADS), (TOKENS, KV_HEADS))
    q, = random_rows(random, (QUERIES, Q_HEADS))
    positions = np.arange(TOKENS - QUERIES, TOKENS)
    bytes_of = {}
    for rotate in ("", "kv"):
        cache = device.cache([kvant.Layer(KV_HEADS, DIM, "f32", "f32", rotate=rotate)], capacity=64)
        sequence = cache.sequence()
        with cache.step([(sequence, TOKENS, QUERIES)]) as step:
            out = step.run(0, k=k, v=v, q=q)
        close(out, attention(q, k, v, positions)[0])
        for side, rows in (("k", k), ("v", v)):
            close(cache.read(sequence, 0, side), rows)
        bytes_of[rotate] = cache.export(sequence, 0, "k")
        cache.close()
    assert not np.array_equal(bytes_of[""], bytes_of["kv"])
    refused(ValueError, "layers[0].rotate is 'x'", device.cache, [kvant.Layer(1, 64, "f16", "f16", rotate="x")], 32)


def check_centring(device, random):
    """Centred keys and values: the same attention and the same rows, but for rounding; what was measured can be given."""
    k, v = random_rows(random, (TOKENS, KV_HEADS), (TOKENS, KV_HEADS))
    k[..., 3] += 50
    q, = random_rows(random, (QUERIES, Q_HEADS))
    positions = np.arange(TOKENS - QUERIES, TOKENS)
    means = None
    for rotate in ("", "kv", "kv"):
        cache = device.cache([kvant.Layer(KV_HEADS, DIM, "f32", "f32", rotate=rotate, centre="kv", means_k=means)], capacity=64)
        if means is None:
            assert not cache.means(0, "k").any()
        sequence = cache.sequence()
        with cache.step([(sequence, TOKENS, QUERIES)]) as step:
            out = step.run(0, k=k, v=v, q=q)
        assert np.abs(out - attention(q, k, v, positions)[0]).max() < 1e-3
        for side, rows in (("k", k), ("v", v)):
            assert np.abs(cache.read(sequence, 0, side) - rows).max() < 1e-4
        assert np.abs(cache.means(0, "k") - k.mean(0)).max() < 1e-4
        means = cache.means(0, "k") if means is None else means
        cache.close()
    refused(ValueError, "layers[0].centre is 'x'", device.cache, [kvant.Layer(1, 64, "f16", "f16", centre="x")], 32)
    refused(ValueError, "layers[0].means_v has shape (64,); expected (1, 64)", device.cache,
            [kvant.Layer(1, 64, "f16", "f16", centre="v", means_v=np.zeros(64))], 32)
    refused(kvant.ErrorCode.INVALID_ARGUMENT, "means_k is not NULL without", device.cache, [kvant.Layer(1, 64, "f16", "f16", means_k=np.zeros((1, 64)))], 32)


def check_protection(device, random):
    """The first and the newest tokens are read in f16, the others as they were quantized, and K and V apart."""
    tokens, first, newest = 150, 16, 32
    k, v, q = random_rows(random, (tokens, KV_HEADS), (tokens, KV_HEADS), (1, Q_HEADS))
    pages = np.arange(tokens) // 16
    covered = (pages == 0) | (pages >= (tokens - 2 - newest) // 16)  # what the last step but one found old has gone
    for sides in ("k", "v", "kv"):
        cache = device.cache([kvant.Layer(KV_HEADS, DIM, "q4_0", "t2", protect=sides)], capacity=256,
                             protection=kvant.Protection(first=first, newest=newest))
        sequence = cache.sequence()
        for begin, end in ((0, tokens - 2), (tokens - 2, tokens - 1)):
            with cache.step([(sequence, end - begin, 0)]) as step:
                step.run(0, k=k[begin:end], v=v[begin:end])
        with cache.step([(sequence, 1, 1)]) as step:
            out = step.run(0, k=k[-1:], v=v[-1:], q=q)
        rows = {}
        for side, given in (("k", k), ("v", v)):
            rows[side] = cache.read(sequence, 0, side)
            if side in sides:
                rows[side] = np.where(covered[:, None, None], given.astype(np.float16).astype(np.float32), rows[side])
        assert np.abs(out - attention(q, rows["k"], rows["v"], np.array([tokens - 1]))[0]).max() < 2e-5
        assert np.abs(out - attention(q, cache.read(sequence, 0, "k"), cache.read(sequence, 0, "v"), np.array([tokens - 1]))[0]).max() > 1e-3
        cache.close()
    device.paged_cache([kvant.preset("default", 1, 64)], 32).close()
    refused(ValueError, "no layer has a side to protect", device.cache, [kvant.Layer(1, 64, "f16", "f16")], 32, protection=kvant.Protection())
    refused(ValueError, "layers[0].protect is 'q'", device.cache, [kvant.Layer(1, 64, "f16", "f16", protect="q")], 32)


def check_presets(device, random):
    """Presets and plans name layers that a cache takes; a format with fewer bits errs more."""
    k, v = random_rows(random, (TOKENS, KV_HEADS), (TOKENS, KV_HEADS))
    errors = []
    for name in kvant.PRESETS:
        layer = kvant.preset(name, KV_HEADS, DIM)
        assert layer.rotate == layer.centre == "kv" and layer.protect == ("" if name == "accurate" else "kv")
        cache = device.cache([layer], capacity=64)
        sequence = cache.sequence()
        with cache.step([(sequence, TOKENS, 0)]) as step:
            step.run(0, k=k, v=v)
        errors.append(float(np.square(cache.read(sequence, 0, "v") - v).mean()))
        cache.close()
    assert errors == sorted(errors) and errors[0] < 1e-4 and errors[-1] > 10 * errors[1]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.json")

        def write(layers):
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"plan": 1, "layers": layers}, file)

        write([{"k": "q8h", "v": "t3+r"}, {"k": "t4+cr", "v": "f16+c"}])
        first, second = kvant.plan_layers(path, KV_HEADS, DIM)
        assert (first.format_k, first.format_v, first.rotate, first.centre) == ("q8h", "t3", "v", "")
        assert (second.format_k, second.format_v, second.rotate, second.centre) == ("t4", "f16", "k", "kv")
        write([{"k": "q8h"}])
        refused(ValueError, "is no plan", kvant.plan_layers, path, 1, 64)
        write([{"k": "q8h", "v": "t4+x"}])
        refused(ValueError, "'t4+x' ends with '+x'", kvant.plan_layers, path, 1, 64)
    refused(ValueError, "'best' is not a preset", kvant.preset, "best", 1, 64)


def check_types(cache, sequence, k, v, q):
    """Every element type goes in and comes out; out is the caller's array, a part of a wider one."""
    positions = np.arange(TOKENS - QUERIES, TOKENS)
    for given, read, dtype, bound in ((q, q, np.float32, 2e-5), (q.astype(np.float16),) * 2 + (np.float16, 2e-3),
                                      (kvant.to_bf16(q), kvant.from_bf16(kvant.to_bf16(q)), np.uint16, 1e-2)):
        wide = np.zeros((QUERIES, Q_HEADS + 2, DIM), dtype)
        out = wide[:, 1:-1]
        with cache.step([(sequence, 0, QUERIES)]) as step:
            assert step.run(0, q=given, out=out) is out
        found = kvant.from_bf16(out) if dtype == np.uint16 else out
        close(found, attention(read, k, v, positions)[0], bound)
        assert not wide[:, 0].any() and not wide[:, -1].any()
    with cache.step([(sequence, 0, QUERIES)]) as step:
        refused(ValueError, "out has shape (3, 7, 64); expected (3, 8, 64)", step.run, 0, q=q, out=wide[:, :7])
        refused(kvant.ErrorCode.INVALID_ARGUMENT, "overlap", step.run, 0, q=q, out=q)
        close(step.run(0, q=q, causal=False), attention(q, k, v, positions, causal=False)[0])


def check_attention(device, random):
    cache, sequence, k, v = filled(device, random)
    q, = random_rows(random, (QUERIES, Q_HEADS))
    check_mask(cache, sequence, k, v, q, random)
    check_logits(cache, sequence, k, v, q, random)
    check_types(cache, sequence, k, v, q)
    bits = kvant.to_bf16(k.astype(np.float32))
    with cache.step([(sequence, TOKENS, 0)]) as step:
        step.run(0, k=bits, v=bits)
    assert np.array_equal(cache.read(sequence, 0, "k", TOKENS), kvant.from_bf16(bits).astype(np.float16).astype(np.float32))
    cache.close()
    check_window(device, random)
    check_rotation(device, random)
    check_centring(device, random)
    check_protection(device, random)
    check_presets(device, random)
