"""Scenarios of one sequence: perplexity by the types of K and V, and greedy text, each against the CPU backend."""
import re

from llama_context import CPU, DEVICE, TYPES, require_cache_on
from llama_scenarios import Failed, Scenario, require_same

BOUNDED = [(t, t) for t in TYPES] + [("q8_0", "q4_0"), ("f16", "q8_0"), ("q4_0", "f16")]
MOST_DIFFERENCE = 0.003
TRIES = 16  # of a program whose last lines may be lost, on a busy machine every other time
LEAST_JUDGED = 30  # characters of a text of 48 tokens
PROMPT = "The"


def read_perplexity(output, chunks):
    """The last running value or the final one: llama.cpp logs from a thread of its own, and may leave before the last lines are out."""
    found = re.findall(rf"\[{chunks}\]([0-9.]+),|Final estimate: PPL = ([0-9.]+)", output)
    return float(found[-1][0] or found[-1][1]) if found else None


def judge_perplexity(here, there):
    if here is None or there is None:
        raise Failed(f"no perplexity: {DEVICE} {here}, CPU {there}")
    note = f"{here:.4f}, CPU {there:.4f}, {100 * (here / there - 1):+.3f} %"
    if not abs(here / there - 1) <= MOST_DIFFERENCE:  # also of a value that is no number
        raise Failed(f"{note}: not within {100 * MOST_DIFFERENCE} %")
    return note


def perplexity(context, name, k, v):
    values = []
    for device in (DEVICE, CPU):
        for _ in range(TRIES):
            printed, log = context.program(name, device, "llama-perplexity", "-f", f"{context.models}/heldout.txt", "--chunks", context.chunks,
                                           "-fa", "on", "-c", 1024, "-b", 1024, "-ub", 512, "-ctk", k, "-ctv", v, "-v")
            value = read_perplexity(printed + log, context.chunks)
            if value is not None:
                break
        if device == DEVICE:
            require_cache_on(log, [DEVICE])
        values.append(value)
    return judge_perplexity(*values)


def read_text(run):
    """A text whose last words are lost, for the reason told above, is written once more while it is too short to be judged."""
    text = ""
    for _ in range(TRIES):
        text = max(text, run().strip(), key=len)
        if len(text) > LEAST_JUDGED:
            break
    return text


def greedy(context, name, *words, prompt=PROMPT, least=None):
    texts = [read_text(lambda device=device: context.program(
        name, device, "llama-completion", "-p", prompt, "-n", 48, "--temp", 0, "-no-cnv", "-fa", "on", "-c", 512,
        "--no-display-prompt", *words)[0]) for device in (DEVICE, CPU)]
    common = min(len(text) for text in texts)
    if common <= LEAST_JUDGED:
        raise Failed(f"texts of {len(texts[0])} and {len(texts[1])} characters are too short to be judged")
    return require_same(texts[0][:common], texts[1][:common], "the CPU's", least)


def scenarios(context):
    made = [Scenario(f"perplexity/{k}-{v}", "perplexity within 0.3 % of the CPU's",
                     lambda k=k, v=v: perplexity(context, f"perplexity/{k}-{v}", k, v), (k, v) in BOUNDED)
            for k in TYPES for v in TYPES]
    return made + [Scenario("greedy/f16", "llama-completion's greedy text is the CPU's", lambda: greedy(context, "greedy/f16"))]
