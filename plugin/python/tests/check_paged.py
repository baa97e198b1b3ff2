"""The raw paged calls: slots with holes, shuffled and unmapped pages, masks, copies; against numpy."""
import numpy as np
from support import DIM, KV_HEADS, Q_HEADS, attention, close, differ, random_rows, refused

import kvant
from kvant import ErrorCode

PAGE = 16
KEYS = [37, 5]             # tokens of two sequences
PAGES = [[6, 0, 3], [5]]   # their pages, in no order
QUERIES = [3, 1]
TABLE = {"qo_indptr": [0, 3, 4], "kv_indptr": [0, 3, 4], "kv_indices": [6, 0, 3, 5], "kv_last_page_len": [5, 5]}


def slots_of(pages, tokens):
    return [pages[token // PAGE] * PAGE + token % PAGE for token in range(tokens)]


def expected(q, k, v, **named):
    """Both sequences by numpy, out and log-sum-exp, one below the other; visible: per sequence."""
    visible = named.pop("visible", [None, None])
    parts, keys, rows = [], 0, 0
    for i in range(2):
        part = slice(keys, keys + KEYS[i])
        positions = np.arange(KEYS[i] - QUERIES[i], KEYS[i])
        parts.append(attention(q[rows:rows + QUERIES[i]], k[part], v[part], positions, visible=visible[i], **named))
        keys, rows = keys + KEYS[i], rows + QUERIES[i]
    return [np.concatenate(column) for column in zip(*parts)]


def causal(i):
    return np.arange(KEYS[i])[None, :] <= np.arange(KEYS[i] - QUERIES[i], KEYS[i])[:, None]


def check_tables(cache, k, v, q, random):
    slots = np.array(slots_of(PAGES[0], KEYS[0]) + slots_of(PAGES[1], KEYS[1]))
    # Fresh tokens that go nowhere stand between those that do.
    holes = np.insert(slots, [0, 20], -1)
    rows = np.flatnonzero(holes >= 0)
    fresh_k, fresh_v = (np.full((holes.size, KV_HEADS, DIM), np.float16(9)) for _ in range(2))
    fresh_k[rows], fresh_v[rows] = k, v
    with cache.step(slot_mapping=holes, **TABLE) as step:
        assert (step.fresh_tokens, step.queries) == (44, 4)
        out, lse = step.run(0, k=fresh_k, v=fresh_v, q=q, lse=True)
    whole, sums = expected(q, k, v)
    close(out, whole)
    close(lse, sums)
    read = cache.read(0, "k", np.insert(slots, 2, -1), dtype=np.float16)
    assert np.array_equal(np.delete(read, 2, axis=0), k) and not read[2].any()
    assert np.array_equal(cache.read(0, "v", slots[::-1]), v[::-1].astype(np.float32))

    # A page that is unmapped is not seen; a query that sees nothing gives zeros.
    unmapped = {**TABLE, "kv_indices": [6, -1, 3, -1]}
    with cache.step(**unmapped) as step:
        out, lse = step.run(0, q=q, lse=True)
    seen = [causal(0) & (np.arange(KEYS[0]) // PAGE != 1), causal(1) & False]
    partly, sums = expected(q, k, v, visible=seen)
    close(out, partly)
    close(lse, sums)
    assert not out[3].any() and np.isneginf(lse[3]).all()
    differ(partly, whole)

    mask = [random.random((QUERIES[i], KEYS[i])) < 0.5 for i in range(2)]
    mask[1][0, 2] = True
    with cache.step(mask=mask, **TABLE) as step:
        out, lse = step.run(0, q=q, lse=True)
    masked, sums = expected(q, k, v, visible=mask)
    close(out, masked)
    close(lse, sums)
    differ(masked, whole)

    # Explicit positions, and a sequence without queries or pages.
    few = {"qo_indptr": [0, 0, 2], "kv_indptr": [0, 0, 3], "kv_indices": PAGES[0], "kv_last_page_len": [0, 5]}
    with cache.step(query_positions=[0, 11], **few) as step:
        out, lse = step.run(0, q=q[:2], lse=True)
    early, sums = attention(q[:2], k[:KEYS[0]], v[:KEYS[0]], [11, 12])
    close(out, early)
    close(lse, sums)

    cache.copy([6, 0], [1, 7])
    assert np.array_equal(cache.read(0, "k", slots_of([1, 7], 32), dtype=np.float16), k[:32])


def check_refusals(cache):
    step = cache.step
    refused(ValueError, "qo_indptr has 1 elements", step, qo_indptr=[0])
    refused(ValueError, "without kv_indptr, kv_indices and kv_last_page_len", step, qo_indptr=[0, 1])
    refused(ValueError, "qo_indptr is None although", step, slot_mapping=[0], kv_indices=[0])
    refused(ValueError, "kv_indptr has shape (2,); expected (3,)", step, **{**TABLE, "kv_indptr": [0, 4]})
    refused(ValueError, "kv_indptr[2] (5) is greater than the 4 elements", step, **{**TABLE, "kv_indptr": [0, 3, 5]})
    refused(ValueError, "qo_indptr ([0, 5, 4]) does not begin with 0 or falls", step, **{**TABLE, "qo_indptr": [0, 5, 4]})
    refused(ValueError, "kv_last_page_len has shape (1,)", step, **{**TABLE, "kv_last_page_len": [5]})
    refused(TypeError, "slot_mapping has dtype float64", step, slot_mapping=[0.5])
    refused(ValueError, "mask holds 1 arrays; expected 2", step, mask=[np.ones((3, 37), bool)], **TABLE)
    refused(ValueError, "mask[1] has shape (1, 4); expected (1, 5)", step,
            mask=[np.ones((3, 37), bool), np.ones((1, 4), bool)], **TABLE)
    refused(ErrorCode.INVALID_ARGUMENT, "args.kv_indices[2] (8)", step, **{**TABLE, "kv_indices": [6, 0, 8, 5]})
    refused(ErrorCode.INVALID_ARGUMENT, "args.kv_last_page_len[0] (17)", step, **{**TABLE, "kv_last_page_len": [17, 5]})
    refused(ErrorCode.INVALID_ARGUMENT, "args.slot_mapping[1] (3) is also", step, slot_mapping=[3, 3])
    refused(ErrorCode.INVALID_ARGUMENT, "slots[0] (128)", cache.read, 0, "k", [128])
    refused(ErrorCode.INVALID_ARGUMENT, "destination_pages[0] (2) is also source_pages[0]", cache.copy, [2], [2])
    refused(ValueError, "destination_pages has shape (2,); expected (1,)", cache.copy, [2], [3, 4])


def check_paged(device, random):
    cache = device.paged_cache([kvant.Layer(KV_HEADS, DIM, "f16", "f16")], capacity=128)
    assert cache.stats().total_pages == 8 and cache.page_tokens == PAGE
    k, v = (x.astype(np.float16) for x in random_rows(random, (sum(KEYS), KV_HEADS), (sum(KEYS), KV_HEADS)))
    q, = random_rows(random, (sum(QUERIES), Q_HEADS))
    check_tables(cache, k, v, q, random)
    check_refusals(cache)
    cache.close()
