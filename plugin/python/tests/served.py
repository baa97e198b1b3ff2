"""A made-up model for the tests of the cache manager: K and V of a token depend on its id and place alone, so that equal prompts
have equal content."""
import numpy as np
from support import DIM, KV_HEADS

import kvant

LAYERS = 2
PREFIXES = kvant.Prefixes("made up", "none")


def layers(name="f16", other=None):
    return [kvant.Layer(KV_HEADS, DIM, name, other or name)] * LAYERS


def rows(tokens, layer, side, begin=0):
    """[tokens][kv_heads][head_dim] float16 values, which every wide format holds exactly."""
    tokens = np.asarray(tokens, np.int64)
    places = np.arange(begin, begin + tokens.size)
    spread = np.arange(KV_HEADS * DIM).reshape(1, KV_HEADS, DIM)
    seed = (tokens * 31 + places * 7 + layer * 5 + (3 if side == "v" else 0)).reshape(-1, 1, 1)
    return ((seed * (spread + 11)) % 257 / 64 - 2).astype(np.float16)


def append(cache, sequence, tokens, begin):
    """tokens[begin:] go to the sequence's end, told by their ids."""
    rest = tokens[begin:]
    with cache.step([kvant.Entry(sequence, len(rest), 0, tokens=rest)]) as step:
        for layer in range(len(cache.layers)):
            step.run(layer, k=rows(rest, layer, "k", begin), v=rows(rest, layer, "v", begin))


def serve(cache, tokens):
    """(sequence, reused tokens) of a prompt whose other tokens are computed."""
    sequence, reused = cache.open(tokens)
    if reused < len(tokens):
        append(cache, sequence, tokens, reused)
    return sequence, reused


def holds(cache, sequence, tokens, bound=0.0):
    """The sequence has these tokens' content, but for `bound`."""
    assert cache.length(sequence) == len(tokens)
    for layer in range(len(cache.layers)):
        for side in "kv":
            error = np.abs(cache.read(sequence, layer, side) - rows(tokens, layer, side)).max()
            assert error <= bound, f"layer {layer}, {side}: differs by {error}, more than {bound}"


def prompt(number, count=48):
    return [(number * 1009 + i * 13) % 5000 for i in range(count)]
