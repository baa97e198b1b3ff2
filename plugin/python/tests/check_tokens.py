"""Tokens outside of steps, context shift, and trees of drafts."""
import numpy as np
from served import LAYERS, PREFIXES, holds, layers, prompt, rows
from support import DIM, Q_HEADS, attention, close, refused

import kvant
from kvant import ErrorCode


def write(cache, sequence, tokens, begin=0):
    for layer in range(LAYERS):
        cache.write(sequence, layer, begin, rows(tokens, layer, "k", begin), rows(tokens, layer, "v", begin))


def check_write(cache):
    tokens = prompt(1)
    sequence = cache.sequence()
    write(cache, sequence, tokens)
    holds(cache, sequence, tokens)
    assert cache.find(tokens) == 0
    cache.identify(sequence, tokens)
    assert cache.find(tokens) == 48
    refused(ErrorCode.INVALID_ARGUMENT, "begin (99)", write, cache, sequence, tokens, 99)
    refused(ErrorCode.INVALID_ARGUMENT, "count (49)", cache.identify, sequence, tokens + [1])
    refused(ValueError, "v has shape (1, 2, 64); expected (2, 2, 64)", cache.write, sequence, 0, 0, np.zeros((2, 2, 64)),
            np.zeros((1, 2, 64)))
    refused(ValueError, "k has shape ()", cache.write, sequence, 0, 0, 1.0, 1.0)
    return sequence, tokens


def check_keep(cache, sequence, tokens):
    """The first four and the newest; their codes as they were."""
    held = cache.read(sequence, 1, "v")
    places = [0, 1, 2, 3, *range(30, 48)]
    cache.keep(sequence, places)
    assert np.array_equal(cache.read(sequence, 1, "v"), held[places])
    refused(ErrorCode.INVALID_ARGUMENT, "places[1] (0) is not greater", cache.keep, sequence, [0, 0])
    refused(ValueError, "places holds -1", cache.keep, sequence, [-1])
    keys = cache.read(sequence, 0, "k")
    frequencies = 10000.0 ** (-np.arange(DIM // 2) / (DIM // 2))
    cache.shift(sequence, 4, 18, -26, kvant.Rotation(frequencies, halves=True))
    angle = -26 * frequencies
    a, b = keys[4:, :, :DIM // 2], keys[4:, :, DIM // 2:]
    turned = np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=2)
    found = cache.read(sequence, 0, "k")
    assert np.array_equal(found[:4], keys[:4])
    close(found[4:], turned, bound=5e-3)  # f16 once more
    assert np.abs(turned - keys[4:]).max() > 1
    cache.shift(sequence, 4, 18, 26, kvant.Rotation(frequencies, halves=True))
    close(cache.read(sequence, 0, "k"), keys, bound=1e-2)
    refused(ErrorCode.INVALID_ARGUMENT, "rotation.pair_count (33)", cache.shift, sequence, 0, 1, 1, kvant.Rotation([1.0] * 33))
    refused(ErrorCode.INVALID_ARGUMENT, "rotation.frequencies[0] (nan)", cache.shift, sequence, 0, 1, 1,
            kvant.Rotation([float("nan")]))
    refused(ValueError, "rotation.frequencies has shape (1, 1)", cache.shift, sequence, 0, 1, 1, kvant.Rotation([[1.0]]))
    refused(ValueError, "positions (9223372036854775808)", cache.shift, sequence, 0, 1, 1 << 63, kvant.Rotation([1.0]))


def check_tree(cache, random):
    """Two alternatives, each continued: one attention call sees each path alone; the accepted one stays."""
    parents = [-1, -1, 0, 1, 2]
    mask = kvant.tree_mask(parents)
    assert mask.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    assert kvant.tree_depths(parents).tolist() == [0, 0, 1, 1, 2]
    assert kvant.tree_places(parents, 4, 3).tolist() == [0, 1, 2, 3, 5, 7]
    assert kvant.tree_places(parents, -1, 2).tolist() == [0, 1] and kvant.tree_mask([]).shape == (0, 0)
    refused(ValueError, "parents[1] (1) is not an earlier node", kvant.tree_mask, [-1, 1])
    refused(ValueError, "parents has shape (1,) and dtype float64", kvant.tree_mask, [0.5])
    refused(ValueError, "leaf (5) is not one of the tree's 5", kvant.tree_places, parents, 5, 3)

    begin, target = 20, cache.sequence()
    write(cache, target, prompt(2, begin))
    draft = cache.fork(target)  # a cache of its own, as far as the target is concerned
    drafted = prompt(3, 5)
    k, v = rows(drafted, 0, "k", begin), rows(drafted, 0, "v", begin)
    q = random.standard_normal((5, Q_HEADS, DIM)).astype(np.float32)
    with cache.step([kvant.Entry(target, 5, 5, mask=mask, mask_begin=begin)]) as step:
        out = [step.run(layer, k=k, v=v, q=q, invariant=True) for layer in range(LAYERS)][0]
    keys, values = (np.concatenate([rows(prompt(2, begin), 0, side), x]) for side, x in (("k", k), ("v", v)))
    visible = np.hstack([np.ones((5, begin), bool), mask])
    close(out, attention(q, keys, values, np.arange(begin, begin + 5), visible=visible)[0])
    cache.keep(target, kvant.tree_places(parents, 3, begin))
    assert np.array_equal(cache.read(target, 0, "k", begin), k[[1, 3]])
    assert cache.length(draft) == begin
    cache.destroy(draft)


def check_tokens(device, random):
    with device.cache(layers(), capacity=256, prefixes=PREFIXES) as cache:
        check_keep(cache, *check_write(cache))
        check_tree(cache, random)
        assert cache.clear_all() == 2 and cache.stats().used_pages == 0
        with cache.step([(cache.sequence(), 1, 0)]) as step:
            refused(ErrorCode.FAILED_PRECONDITION, "a step of the cache is open", cache.clear_all)
            step.abort()
