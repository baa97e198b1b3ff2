"""Scenarios of llama-server: parallel slots, slots saved and restored, context shift, reuse of moved pieces of a prompt, a draft model."""
import concurrent.futures
import math
import os
import re

from llama_context import CPU, DEVICE, TYPES, require_cache_on
from llama_scenarios import Failed, Scenario, require_same
from llama_server import most_at_once

PROMPTS = ["And it came to pass", "In the beginning", "The Lord said unto", "Blessed are the"]
EXACT = ("f32", "f16", "bf16")  # types that round little enough for the CPU's very text
# Of a context whose keys are turned: ggml's CPU backend has no ROPE for bf16 and aborts, so that bf16 is judged beside f32 there.
EXACT_TURNED, TURNED_AS = ("f32", "f16"), {"bf16": "f32"}
# Of other types: how far the log-probabilities of a given text may be from the CPU's (root of the mean square, nats). Roundings are seen to
# make up to 0.11; keys moved without being turned make 1.6.
MOST_NATS, GIVEN_TOKENS = 0.25, 100
# The same between a prompt among others in one stream and alone, on one device. The order of sums differs, and the CPU's products of weights round what comes of
# it to 8 bits: seen are 0.006.
MOST_NATS_ALONE = 0.05
SHIFT_CONTEXT, SHIFT_TOKENS = 256, 400


def cache(k, v=None):
    return ["-fa", "on", "-ctk", k, "-ctv", v or k]


def literal_grammar(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'root ::= "{escaped}"'


def forced(server, prompt, text, **more):
    """The server's answer when it may say nothing but a text, and the log-probability that the model gave each of its tokens."""
    answer = server.complete(prompt, len(text), grammar=literal_grammar(text), n_probs=1, **more)
    if answer["content"] != text:
        raise Failed(f"{answer['content'][:40]!r} instead of the text that the grammar leaves")
    return answer, log_probabilities(answer)


def log_probabilities(answer):
    return [one["logprob"] for one in answer["completion_probabilities"]]


def judge_forced(here, there, whose="the CPU's", most=MOST_NATS):
    """Of two lists of log-probabilities of one text: how far they are apart. A greedy text may part from another at any near tie where a
    type rounds much, and tell nothing; this does not."""
    if not here or len(here) != len(there):
        raise Failed(f"log-probabilities of {len(here)} tokens, {len(there)} are {whose}")
    apart = math.sqrt(sum((one - other) ** 2 for one, other in zip(here, there)) / len(here))
    if not apart <= most:  # also of a value that is no number
        raise Failed(f"the log-probabilities of a given text are {apart:.3f} nats from {whose}: not within {most}")
    return f"{len(here)} tokens of a given text are within {apart:.3f} nats of {whose}"


def continued(server, exact, prompt, count, text):
    """What is compared with the CPU's, beside the server's answer: a greedy text where the type is exact, else log-probabilities of a text."""
    if not exact:
        return forced(server, prompt, text[:count])
    answer = server.complete(prompt, count)
    return answer, answer["content"]


def judge(exact, here, there):
    return require_same(here, there, "the CPU's") if exact else judge_forced(here, there)


def slots(context, name, kind, *words, holders=(DEVICE,)):
    # Streams of their own are computed alike whatever is beside them; in one stream sums have another order.
    same_text = kind in EXACT or "-kvu" not in words
    with context.server(name, DEVICE, *cache(kind), "-c", 2048, "-np", 4, *words) as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda prompt: server.complete(prompt, 64, n_probs=1), PROMPTS))
        if same_text:
            alone = [server.complete(prompt, 64, cache_prompt=False)["content"] for prompt in PROMPTS]
        else:
            alone = [forced(server, prompt, one["content"], cache_prompt=False)[1] for prompt, one in zip(PROMPTS, together)]
    require_cache_on(server.log(), holders)
    busy = most_at_once(server.log())
    if busy != len(PROMPTS):
        raise Failed(f"{busy} slots were at work at once instead of {len(PROMPTS)}")
    if not same_text:
        return [judge_forced(log_probabilities(one), other, "those of that prompt alone", MOST_NATS_ALONE) for one, other in zip(together, alone)][-1]
    for one, other in zip(together, alone):
        require_same(one["content"], other, "the text of that prompt alone")
    note = "four texts are those of each prompt alone"
    if kind not in EXACT:
        return note
    with context.server(name, CPU, *cache(kind), "-c", 2048, "-np", 4, *words) as server:
        for prompt, one in zip(PROMPTS, alone):
            require_same(one, server.complete(prompt, 64)["content"], "the CPU's")
    return f"{note} and the CPU's"


def save(context, name, kind, holders=(DEVICE,)):
    folder = f"{context.root.scratch}/slots"
    os.makedirs(folder, exist_ok=True)
    words = [*cache(kind), "-c", 1024, "-np", 1, "--slot-save-path", folder]
    file = {"filename": f"{kind}.bin"}
    text = context.text(0, 300)
    with context.server(name, DEVICE, *words) as server:
        text += server.complete(text, 1)["content"]
        saved = server.post("/slots/0?action=save", file)
        before = server.complete(text, 48)
        server.post("/slots/0?action=erase", {})
        server.complete(context.text(2000, 2100), 24)
        restored = server.post("/slots/0?action=restore", file)
        after = server.complete(text, 48)
        server.post("/slots/0?action=restore", file)
        _, here = continued(server, kind in EXACT, text, GIVEN_TOKENS, context.text(301, 600))
    log = server.log()
    with context.server(name, CPU, *words) as server:
        server.post("/slots/0?action=restore", file)
        answer, there = continued(server, kind in EXACT, text, GIVEN_TOKENS, context.text(301, 600))
    os.remove(f"{folder}/{kind}.bin")
    for one in (after, answer):
        require_reused(one, saved.get("n_saved", 0))
    if restored.get("n_restored") != saved.get("n_saved"):
        raise Failed(f"{saved.get('n_saved')} tokens saved and {restored.get('n_restored')} restored")
    require_same(after["content"], before["content"], "the text before")
    require_cache_on(log, holders)
    return f"{restored['n_restored']} tokens back; the text is the one before; from the same file " + judge(kind in EXACT, here, there)


def require_reused(answer, least):
    count = answer.get("timings", {}).get("cache_n", 0)
    if least <= 0 or count < least:
        raise Failed(f"{count} tokens of the prompt came from the cache instead of {least}")


def shift(context, name, kind, *words, holders=(DEVICE,)):
    texts, prompt, first = [], context.text(0, 20), SHIFT_CONTEXT - 20  # bytes are tokens: here the first shift comes
    exact = kind in EXACT_TURNED
    for device, held in ((DEVICE, kind), (CPU, TURNED_AS.get(kind, kind))):
        with context.server(name, device, *cache(held), "-c", SHIFT_CONTEXT, "-np", 1, "--context-shift", *words) as server:
            answer, text = continued(server, exact, prompt, SHIFT_TOKENS, context.text(20, 20 + SHIFT_TOKENS))
        texts.append(text if exact else text[first:])
        if device == DEVICE:
            require_cache_on(server.log(), holders)
            shifts = judge_shift(answer, server.log())
    return f"{shifts} shifts; " + judge(exact, *texts)


def judge_shift(answer, log):
    """The number of shifts that the log tells of; fails where there was none or the text ended within the context."""
    shifts = len(re.findall(r"slot context shift, n_keep = \d+", log))
    if answer.get("tokens_predicted", 0) < SHIFT_TOKENS:
        raise Failed(f"{answer.get('tokens_predicted', 0)} tokens instead of {SHIFT_TOKENS}")
    if shifts == 0 or "applying K-shift" not in log:
        raise Failed("the log tells of no context shift")
    return shifts


def reuse(context, name, kind):
    first, removed, last = context.text(0, 100), context.text(100, 200), context.text(200, 400)
    texts, exact = [], kind in EXACT_TURNED
    for device, held in ((DEVICE, kind), (CPU, TURNED_AS.get(kind, kind))):
        with context.server(name, device, *cache(held), "-c", 1024, "-np", 1, "--cache-reuse", 16) as server:
            server.complete(first + removed + last, 4)
            answer, text = continued(server, exact, first + last, GIVEN_TOKENS, context.text(400, 600))
        texts.append(text)
        if device == DEVICE:
            require_cache_on(server.log(), [DEVICE])
            require_reused(answer, len(first) + len(last) - 1)
            moved = re.search(r"reusing chunk with size (\d+), shifting KV cache \[(\d+), (\d+)\) -> \[(\d+), (\d+)\)", server.log())
            if not moved:
                raise Failed("the log tells of no piece that was moved")
    return f"{moved[1]} tokens moved from {moved[2]} to {moved[4]}; " + judge(exact, *texts)


def draft(context, name, kind):
    """The draft is the same model in about two bits: some of its tokens are refused and taken out of the cache again."""
    small = f"{context.root.scratch}/tiny-q2_k.gguf"
    if not os.path.exists(small):
        status, printed, log = context.root.run("llama-quantize", context.model, small, "Q2_K", 1, plugin=False, timeout=120)
        if status != 0:
            raise Failed(f"llama-quantize: {(printed + log)[-200:]}")
    text = context.text(0, 200)
    words = [*cache(kind), "-c", 1024, "-np", 1]
    drafting = ["-md", small, "-devd", DEVICE, "-ngld", 99, "-ctkd", kind, "-ctvd", kind, "--spec-type", "draft-simple", "--spec-draft-n-max", 4]
    with context.server(name, DEVICE, *words, *drafting) as server:
        answer = server.complete(text, 96)
    require_cache_on(server.log(), [DEVICE])
    with context.server(f"{name}-without", DEVICE, *words) as server:
        plain = server.complete(text, 96)
    times = answer.get("timings", {})
    drafted, accepted = times.get("draft_n", 0), times.get("draft_n_accepted", 0)
    if not 0 < accepted < drafted:
        raise Failed(f"{drafted} tokens drafted and {accepted} accepted; some must be accepted and some refused")
    return f"{accepted} of {drafted} drafted tokens accepted; " + require_same(answer["content"], plain["content"], "the one without a draft")


def scenarios(context):
    made = []

    def add(name, what, run, *arguments, bounded=True):
        made.append(Scenario(name, what, lambda: run(context, name, *arguments), bounded))

    for kind in TYPES:
        add(f"server-slots/{kind}", "four slots at once, a stream each", slots, kind, bounded=kind in ("f16", "q4_0"))
    add("server-slots/f16-unified", "four slots at once in one stream", slots, "f16", "-kvu")
    add("server-slots/q8_0-unified", "four slots at once in one stream", slots, "q8_0", "-kvu", bounded=False)
    for kind in TYPES:
        add(f"server-save/{kind}", "a slot saved and restored", save, kind, bounded=kind in ("f16", "q4_0"))
    for kind in TYPES:
        add(f"server-shift/{kind}", "text beyond the context, K shifted", shift, kind, bounded=kind in ("f16", "q8_0", "q4_0"))
    add("server-shift/f16-no-flash-attention", "the same without flash attention", shift, "f16", "-fa", "off", bounded=False)
    for kind in TYPES:
        add(f"server-reuse/{kind}", "a prompt without its middle reuses the end", reuse, kind, bounded=kind in ("f16", "q4_0"))
    for kind in TYPES:
        add(f"server-draft/{kind}", "a draft model on the device too", draft, kind, bounded=kind in ("f16", "q4_0"))
    return made
