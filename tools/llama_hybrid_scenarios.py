"""Scenarios of models with recurrent state: a hybrid one, whose layers have either a KV cache or the state of a convolution, and one with
states alone. The states lie on the device too, and llama.cpp clears, gathers and replaces them there."""
import dataclasses
import os
import re
import typing

import llama_hybrid
import llama_server_scenarios as ways
import llama_texts
from llama_context import CPU, DEVICE, require_cache_on
from llama_scenarios import Failed, Scenario, require_same

PROMPT_END = 300  # of the held-out text, in several batches, so that states go from one to the next


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    make: typing.Callable
    states: tuple      # layers with a state
    holders: tuple     # of the KV cache


HYBRID = Model("lfm2", llama_hybrid.hybrid, tuple(layer for layer, attends in enumerate(llama_hybrid.ATTENTION_LAYERS) if not attends), (DEVICE,))
RECURRENT = Model("mamba", llama_hybrid.recurrent, tuple(range(llama_hybrid.RECURRENT_LAYERS)), ())


def prepared(context, model):
    """The context with a model that is written anew, as it takes a part of a second."""
    path = f"{context.root.scratch}/{model.name}.gguf"
    os.makedirs(context.root.scratch, exist_ok=True)
    llama_hybrid.write_model(path, model.make, context.model)
    return context.with_model(path)


def require_states_on(log, places):
    """Fails unless the state of each layer is on the device that places has for it, and buffers of states are on these devices alone. Their
    sizes tell nothing: of one sequence a small model's are 0.00 MiB."""
    seen = {int(layer): device for layer, device in re.findall(r"llama_memory_recurrent, layer\s+(\d+): dev = (\S+)", log)}
    if seen != places:
        raise Failed(f"the states of layers are on {seen or 'no device'} instead of {places}")
    buffers = set(re.findall(r"(\S+) RS buffer size =", log))
    if buffers != set(places.values()):
        raise Failed(f"buffers of states are on {', '.join(sorted(buffers)) or 'no device'} instead of {', '.join(sorted(set(places.values())))}")


def text(context, name, model):
    context = prepared(context, model)
    note = llama_texts.greedy(context, name, "-v", "-b", 128, "-ub", 64, prompt=context.text(0, PROMPT_END))
    log = context.log(name, DEVICE)
    require_cache_on(log, model.holders)
    require_states_on(log, dict.fromkeys(model.states, DEVICE))
    return note


def some_layers(context, name):
    """The output and the last two layers, one of each kind, on the device."""
    context = prepared(context, HYBRID)
    note = llama_texts.greedy(context, name, "-v", "-ngl", 3, prompt=context.text(0, PROMPT_END))
    log = context.log(name, DEVICE)
    require_cache_on(log, ("CPU", DEVICE))
    require_states_on(log, {0: "CPU", 2: DEVICE})
    return note


def served(context, name, model, way, kind):
    """A scenario of the server's with another model."""
    context = prepared(context, model)
    note = way(context, name, kind, holders=model.holders)
    require_states_on(context.log(name, DEVICE), dict.fromkeys(model.states, DEVICE))
    return note


def checkpoint(context, name, kind, holders):
    """A prompt that parts from the one before near its end: a state cannot go back, and llama.cpp puts back a copy that it took on the way."""
    first, texts = context.text(0, PROMPT_END), []
    for device in (DEVICE, CPU):
        with context.server(name, device, *ways.cache(kind), "-c", 1024, "-np", 1) as server:
            server.complete(first, 24)
            answer = server.complete(first + context.text(1000, 1020), 64)
        texts.append(answer["content"])
        if device == DEVICE:
            log = server.log()
            require_cache_on(log, holders)
            ways.require_reused(answer, PROMPT_END // 2)
            restored = re.search(r"restored context checkpoint \(pos_min = (\d+)", log)
            if not restored:
                raise Failed("the log tells of no checkpoint that was restored")
    return f"back to position {restored[1]}; " + require_same(*texts, "the CPU's")


def scenarios(context):
    made = []

    def add(name, what, run, *arguments, bounded=False):
        made.append(Scenario(f"hybrid/{name}", what, lambda: run(context, f"hybrid/{name}", *arguments), bounded))

    add("lfm2-f16", "convolutions and attention: greedy text is the CPU's", text, HYBRID, bounded=True)
    add("mamba", "states alone: greedy text is the CPU's", text, RECURRENT, bounded=True)
    add("lfm2-some-layers", "half of the layers on the device", some_layers)
    for model in (HYBRID, RECURRENT):
        add(f"{model.name}-slots", "four slots at once", served, model, ways.slots, "f16", bounded=model is HYBRID)
        add(f"{model.name}-save", "a slot saved and restored", served, model, ways.save, "f16")
        add(f"{model.name}-checkpoint", "a prompt that parts from the one before", served, model, checkpoint, "f16")
    add("lfm2-shift", "text beyond the context, K shifted", served, HYBRID, ways.shift, "f16")
    for kind in ("q8_0", "q4_0"):
        add(f"lfm2-save-{kind}", "a slot saved and restored, log-probabilities", served, HYBRID, ways.save, kind)
    return made
