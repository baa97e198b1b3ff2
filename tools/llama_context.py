"""What every scenario of tools/llama-e2e runs in: the root, the model, the folder of logs, and one way to start a program or a server."""
import copy
import os
import re
import subprocess

from llama_scenarios import Failed, complaints
from llama_server import Server, reason_of_end

DEVICE, CPU = "KVANT0", "none"
TYPES = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
PROGRAM_SECONDS = 1200


def file_name(scenario, device):
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{scenario}.{device}") + ".log"


def cache_sizes(log):
    """MiB of KV cache by the device that holds it; llama.cpp says 0 while it only measures."""
    sizes = {}
    for device, size in re.findall(r"(\S+) KV buffer size =\s+([0-9.]+) MiB", log):
        sizes[device] = max(sizes.get(device, 0.0), float(size))
    return {device: size for device, size in sizes.items() if size > 0}


def require_cache_on(log, devices):
    held = cache_sizes(log)
    if sorted(held) != sorted(devices):
        raise Failed(f"the KV cache is on {', '.join(sorted(held)) or 'no device'} instead of {', '.join(sorted(devices))}")


class Context:
    def __init__(self, root, models, checks, chunks):
        self.root, self.checks, self.chunks = root, checks, chunks
        self.models = os.path.abspath(models)
        self.model = f"{self.models}/tiny.gguf"
        self.logs = f"{root.scratch}/logs"
        os.makedirs(self.logs, exist_ok=True)

    def with_model(self, path):
        other = copy.copy(self)
        other.model = path
        return other

    def log(self, scenario, device):
        with open(f"{self.logs}/{file_name(scenario, device)}", encoding="utf-8", errors="replace") as file:
            return file.read()

    def text(self, begin, end):
        with open(f"{self.models}/heldout.txt", encoding="ascii") as file:
            return file.read()[begin:end]

    def words(self, device, words):
        # On few cores a software driver and llama.cpp's busy threads would wait for each other.
        chosen = [] if device is None else ["--device", device]
        return ["-m", self.model, "-t", "1", *chosen, "-ngl", "99", *[str(word) for word in words]]

    def server(self, scenario, device, *words, plugin=None, **variables):
        plugin = device != CPU if plugin is None else plugin
        return Server(self.root, f"{self.logs}/{file_name(scenario, device)}", self.words(device, words), plugin,
                      {**(self.checks if plugin else {}), **variables})

    def program(self, scenario, device, name, *words):
        """What a program printed, and its log, which is kept. An exit status that is not 0 and a complaint are failures."""
        plugin = device != CPU
        try:
            status, printed, log = self.root.run(name, *self.words(device, words), plugin=plugin, timeout=PROGRAM_SECONDS,
                                                 **(self.checks if plugin else {}))
        except subprocess.TimeoutExpired:
            raise Failed(f"{name} on {device} did not end within {PROGRAM_SECONDS} s") from None
        with open(f"{self.logs}/{file_name(scenario, device)}", "w", encoding="utf-8") as file:
            file.write(f"$ {name} {' '.join(self.words(device, words))}\n{printed}\n{log}\n")
        if status != 0:
            raise Failed(f"{name} on {device} ended with {reason_of_end(status, log)}")
        if said := complaints(log):
            raise Failed(said[0])
        return printed, log

    def executed(self, scenario, variant, command):
        """What a program other than llama.cpp's printed in the root, with the same judgement."""
        done = subprocess.run(command, cwd=self.root.backends, env=self.root.environment(True, **self.checks), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_SECONDS, check=False)
        printed = done.stdout.decode("utf-8", "replace")
        with open(f"{self.logs}/{file_name(scenario, variant)}", "w", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{printed}\n")
        if done.returncode != 0:
            raise Failed(reason_of_end(done.returncode, printed))
        if said := complaints(printed):
            raise Failed(said[0])
        return printed.strip()
