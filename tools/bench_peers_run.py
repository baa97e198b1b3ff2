"""Cases, processes and turns of tools/bench-peers."""
import dataclasses
import subprocess
import time

DEVICE = "KVANT0"
TYPES = ["f16", "q8_0", "q4_0", "q4_1", "q5_0", "iq4_nl"]
VISIBLE = {"GGML_VK_VISIBLE_DEVICES": "0"}  # ggml's backend leaves out drivers in software unless it is told
# ggml's device, whether kvant's library is loaded, variables. Tensors of kvant lie in pages, as those of llama.cpp's cache do from their first
# SET_ROWS on. ggml's Vulkan backend is quicker with or without cooperative matrices, by driver and case: the better one counts.
PEERS = {DEVICE: (DEVICE, True, {"KVANT_GGML_PLANAR": "always"}),
         "Vulkan0": ("Vulkan0", False, VISIBLE),
         "Vulkan0-nocm": ("Vulkan0", False, {**VISIBLE, "GGML_VK_DISABLE_COOPMAT": "1", "GGML_VK_DISABLE_COOPMAT2": "1"}),
         "CPU": ("CPU", False, {})}
WARM_UPS = 2
PAUSE = 0.05  # seconds before a run: threads of the CPU backend spin on for milliseconds after an answer, on cores that the next one needs


@dataclasses.dataclass(frozen=True)
class Case:
    """A shape: queries are the last tokens of each sequence."""
    name: str
    head_dim: int
    kv_heads: int
    group: int
    kv: int
    queries: int = 1
    sequences: int = 1

    @property
    def prefill(self):
        return self.queries > 8

    def title(self):
        return (f"d {self.head_dim}, {self.kv_heads} KV heads, GQA {self.group}, {self.kv} tokens"
                + (f" in each of {self.sequences} sequences" if self.sequences > 1 else "") + (f", {self.queries} queries" if self.queries > 1 else ""))

    def words(self, kind):
        return f"{kind} {self.head_dim} {self.kv_heads} {self.group} {self.kv} {self.queries} {self.sequences}"


CASES = [
    Case("decode-4k", 128, 8, 4, 4096),
    Case("decode-16k", 128, 8, 4, 16384),
    Case("decode-d64", 64, 8, 4, 4096),
    Case("decode-mha", 128, 16, 1, 4096),
    Case("decode-4x2k", 128, 8, 4, 2048, 1, 4),
    Case("decode-d256", 256, 4, 8, 4096),
    Case("verify-2", 128, 8, 4, 4096, 2),
    Case("verify-4", 128, 8, 4, 4096, 4),
    Case("verify-8", 128, 8, 4, 4096, 8),
    Case("prefill-512", 128, 4, 4, 512, 512),
    Case("prefill-64-of-2k", 128, 4, 4, 2048, 64),
    Case("prefill-512-of-8k", 128, 4, 4, 8192, 512),
]
SHORT = [Case("decode-short", 64, 2, 4, 256, 1, 2), Case("prefill-short", 64, 2, 4, 128, 32)]


class Ended(Exception):
    """A process has ended that should not have."""


class Peer:
    """A process of bench_peer, which answers each line with one."""

    def __init__(self, root, program, name, threads):
        self.name = name
        device, plugin, variables = PEERS.get(name, (name, False, {}))
        self.log = f"{root.scratch}/{name}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(root.command(program, device, threads), cwd=root.backends, env=root.environment(plugin, **variables),
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def ask(self, line):
        """(first word of the answer, the rest)."""
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its output says so as well
        answer = self.process.stdout.readline()
        if not answer:
            raise Ended(f"{self.name} ended with status {self.process.wait()} at '{line}'; its words are in {self.log}")
        word, _, rest = answer.strip().partition(" ")
        return word, rest


def measure(case, kind, peers, truth, reference, rounds, devices):
    """One line of the record: {case, type, peers: {name: {ms: [...], error}}}; who does not support it is left out."""
    entry = {"case": case.name, "type": kind, "title": case.title(), "prefill": case.prefill, "peers": {}, "problems": {}}
    truth.ask(f"case {case.words(kind)}")
    word, rest = truth.ask(f"reference {reference}")
    if word != "written":
        raise Ended(f"the reference of {case.name} with {kind}: {word} {rest}")
    able = []
    for name, peer in peers.items():
        word, rest = peer.ask(f"case {case.words(kind)}")
        if word == "ready":
            devices[name] = rest
            able.append(name)
        else:
            entry["problems"][name] = f"{word} {rest}".strip()

    def run(name):
        word, rest = peers[name].ask("run")
        if word == "ms":
            return float(rest)
        entry["problems"][name] = f"{word} {rest}"
        able.remove(name)
        entry["peers"].pop(name, None)
        return None

    for name in list(able):
        for _ in range(WARM_UPS):
            if name in able:
                run(name)
        if name in able:
            word, rest = peers[name].ask(f"compare {reference}")
            entry["peers"][name] = {"ms": [], "error": float(rest) if word == "error_of" else float("nan")}
    for number in range(rounds):
        for name in able[::-1] if number % 2 else list(able):
            time.sleep(PAUSE)
            if name in able and (passed := run(name)) is not None:
                entry["peers"][name]["ms"].append(passed)
    return entry
