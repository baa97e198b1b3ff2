"""Scenarios in bad company: graphs of which the device can run a part or nothing, other devices beside it, no driver, too little memory, an
older ggml. None may abort, and the text is the CPU's."""
import dataclasses
import os
import re

from llama_context import CPU, DEVICE, file_name, require_cache_on
from llama_scenarios import Failed, Scenario, Skipped, complaints, require_same
from llama_server import Server

PROMPT, COUNT = "In the beginning", 48
NO_DRIVER = {"VK_DRIVER_FILES": "/nonexistent.json", "VK_ICD_FILENAMES": "/nonexistent.json"}
MEMORY_LIMIT = 16 << 30  # of addresses, lest a machine's memory fill with a cache that was to be refused
# One more in the last character but one and 33 less in the last: the ELF hash of names (h * 33 + character) is the same.
OLD_SYMBOL, HIDDEN_SYMBOL = b"\0ggml_backend_buft_alloc_buffer_n\0", b"\0ggml_backend_buft_alloc_buffer`M\0"


@dataclasses.dataclass(frozen=True)
class Company:
    name: str
    what: str
    words: tuple
    holders: tuple                 # devices that the KV cache must be on
    device: str | None = DEVICE
    least: int | None = None       # characters that must be the CPU's; None: all
    variables: tuple = ()
    bounded: bool = True


COMPANIES = [
    Company("no-flash-attention", "cache on the device, attention elsewhere", ("-fa", "off"), (DEVICE,)),
    Company("no-flash-attention-q4_0", "the same with K of q4_0", ("-fa", "off", "-ctk", "q4_0"), (DEVICE,), least=16),
    Company("no-flash-attention-slots", "the same with four streams", ("-fa", "off", "-np", 4), (DEVICE,), bounded=False),
    Company("attention-auto", "llama.cpp chooses flash attention itself", ("-fa", "auto"), (DEVICE,)),
    Company("cache-on-cpu", "-nkvo: the device has nothing to do", ("-fa", "on", "-nkvo"), ("CPU",)),
    Company("cache-on-cpu-no-flash-attention", "the same without flash attention", ("-fa", "off", "-nkvo"), ("CPU",), bounded=False),
    Company("some-layers", "-ngl 3: a part of the layers on the device", ("-fa", "on", "-ngl", 3), ("CPU", DEVICE)),
    Company("no-layers", "-ngl 0: no layer on the device", ("-fa", "on", "-ngl", 0), ("CPU",), bounded=False),
    Company("chosen-by-itself", "no --device: llama.cpp takes the device itself", (), (DEVICE,), device=None),
    Company("weights-on-device", "-ot .*=KVANT0: weights where no MUL_MAT is", ("-fa", "on", "-ot", ".*=KVANT0"), (DEVICE,)),
    Company("no-host-buffers", "--no-host --no-op-offload", ("-fa", "on", "--no-host", "--no-op-offload"), (DEVICE,), bounded=False),
    Company("rope-scaling", "YaRN on a plain cache", ("-fa", "on", "--rope-scaling", "yarn", "--rope-scale", 2), (DEVICE,), bounded=False),
    Company("beside-vulkan", "layers on the device and on ggml's Vulkan backend", ("-fa", "on", "-ts", "1,1"), (DEVICE, "Vulkan0"),
            device=f"{DEVICE},Vulkan0", least=24, variables=(("GGML_VK_VISIBLE_DEVICES", "0"),), bounded=False),
]


def reference_words(words):
    """The same for the CPU: words on layers, tensors and devices have no meaning there."""
    kept, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word in ("-ngl", "-ot", "-ts"):
            skip = 1
        elif word != "-nkvo":
            kept.append(word)
    return kept


def in_company(context, one):
    name = f"company/{one.name}"
    with context.server(name, one.device, *one.words, "-c", 1024, **dict(one.variables)) as server:
        text = server.complete(PROMPT, COUNT)["content"]
    require_cache_on(server.log(), one.holders)
    with context.server(name, CPU, *reference_words(one.words), "-c", 1024) as server:
        there = server.complete(PROMPT, COUNT)["content"]
    return require_same(text, there, "the CPU's", one.least)


def without_driver(context, name):
    """With the library but no Vulkan driver: the CPU serves, and the device is refused as unknown."""
    with context.server(name, CPU, "-fa", "on", "-c", 1024) as server:
        there = server.complete(PROMPT, COUNT)["content"]
    with Server(context.root, f"{context.logs}/{file_name(name, 'CPU-with-library')}", context.words(CPU, ["-fa", "on", "-c", 1024]),
                variables=NO_DRIVER, expected="ggml_kvant: error: creating a Vulkan instance failed") as server:
        text = server.complete(PROMPT, COUNT)["content"]
    log = refused(context, name, "invalid device", variables=NO_DRIVER)
    if "ggml_kvant: error: creating a Vulkan instance failed" not in log:
        raise Failed("the log does not say that there is no Vulkan driver")
    return "KVANT0 is refused with a reason; on the CPU " + require_same(text, there, "the CPU's")


def refused(context, name, reason, *words, variables=None):
    """The log of a server that must end by itself, not by a signal, for a reason that it tells."""
    path = f"{context.logs}/{file_name(name, DEVICE)}"
    try:
        with Server(context.root, path, context.words(DEVICE, words), variables=variables, memory_limit=MEMORY_LIMIT):
            pass
    except Failed as failure:
        with open(path, encoding="utf-8", errors="replace") as file:
            log = file.read()
        if "exit status 1" not in str(failure):
            raise
        if reason not in log:
            raise Failed(f"refused, but without {reason!r}: {failure}") from None
        return log
    raise Failed("llama-server started where it must refuse")


def too_large(context, name, *words):
    log = refused(context, name, "failed to allocate", "-fa", "on", "-c", 8 << 20, "-ctk", "f32", "-ctv", "f32", *words)
    said = [line for line in complaints(log) if "larger than" in line]
    return f"refused: {said[0] if said else 'failed to allocate'}"


def hide_symbol(library):
    """A library of ggml's with the function renamed by which version 3 of the backend API is known, as an older one lacks it. The new name
    has the old one's hash, so that the library still finds it where it calls itself."""
    found = list(re.finditer(re.escape(OLD_SYMBOL), library))
    if len(found) != 1:
        raise Skipped(f"ggml's library names ggml_backend_buft_alloc_buffer_n {len(found)} times instead of once")
    return library.replace(OLD_SYMBOL, HIDDEN_SYMBOL)


def older_ggml(context, name):
    program = os.path.join(os.path.dirname(os.path.dirname(context.root.plugin)), "bin", "ggml_older_api")
    if not os.path.exists(program):
        raise Skipped(f"{program} is not built")
    folder = f"{context.root.scratch}/older"
    os.makedirs(folder, exist_ok=True)
    with open(f"{context.root.library_folder}/libggml-base.so.0", "rb") as file:
        library = hide_symbol(file.read())
    with open(f"{folder}/libggml-base.so.0", "wb") as file:
        file.write(library)
    loader = [context.root.loader, "--library-path"]
    context.executed(name, "present", [*loader, context.root.libraries, program, context.root.plugin, "3"])
    return context.executed(name, "older", [*loader, f"{folder}:{context.root.libraries}", program, context.root.plugin, "2"])


def scenarios(context):
    made = [Scenario(f"company/{one.name}", one.what, lambda one=one: in_company(context, one), one.bounded) for one in COMPANIES]
    made.append(Scenario("company/no-driver", "the library without a Vulkan driver", lambda: without_driver(context, "company/no-driver")))
    made.append(Scenario("company/too-large", "a cache larger than the device has",
                         lambda: too_large(context, "company/too-large", "-fit", "off")))
    made.append(Scenario("company/too-large-fit", "the same where llama.cpp measures first", lambda: too_large(context, "company/too-large-fit")))
    made.append(Scenario("company/older-ggml", "a ggml of backend API version 2", lambda: older_ggml(context, "company/older-ggml")))
    return made
