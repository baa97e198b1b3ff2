"""What tools/bench-device measures, as commands, and what it makes of their JSON."""
import dataclasses
import json
import math
import subprocess

HEAD_DIM, KV_HEADS = 128, 8
BITS = {"f16": 16, "q8_0": 8.5, "q4_0": 4.5, "nl4": 4.25, "t4": 4.25}
# Share of a device-to-device copy's bytes per second that decode should reach, by format, where at most four query heads share a KV head.
WANTED_SHARE = {"f16": 0.85, "q8_0": 0.85, "q4_0": 0.75, "nl4": 0.75, "t4": 0.75}
WANTED_GROUP = 4
WANTED_OF_SDPA = 0.5
PREFILL_GROUP = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much a run takes."""
    kv_bytes: float
    decode_tokens: int
    groups: tuple  # query heads of a KV head, for decode
    prefill_tokens: tuple
    rounds: int


FULL = Sizes(2 << 30, 32768, (1, 4, 8), (512, 4096), 7)
SMALL = Sizes(1 << 20, 512, (4,), (128,), 1)  # for a driver in software: does it all work?


def sequences_for(form, sizes, memory_bytes):
    """Sequences of decode_tokens each that hold kv_bytes in this format, but no more than half of the device's memory."""
    each = 2 * KV_HEADS * HEAD_DIM * BITS[form] / 8 * sizes.decode_tokens
    return max(1, min(math.ceil(sizes.kv_bytes / each), int(memory_bytes / 2 / each) if memory_bytes else 1 << 30))


def decode_command(form, group, sizes, memory_bytes):
    return ["bench", "decode", "--formats", form, "--gqa", str(group), "--head-dim", str(HEAD_DIM), "--kv-heads", str(KV_HEADS),
            "--tokens", str(sizes.decode_tokens), "--batch", str(sequences_for(form, sizes, memory_bytes)), "--rounds", str(sizes.rounds)]


def prefill_command(sizes):
    return ["bench", "prefill", "--formats", ",".join(BITS), "--gqa", str(PREFILL_GROUP), "--head-dim", str(HEAD_DIM), "--kv-heads", str(KV_HEADS),
            "--tokens", ",".join(map(str, sizes.prefill_tokens)), "--rounds", str(sizes.rounds)]


SDPA = """
import json, sys
try:
    import torch
except ImportError:
    print(json.dumps({"why": "PyTorch is not installed"})); sys.exit(0)
if not torch.cuda.is_available():
    print(json.dumps({"why": "PyTorch sees no CUDA device"})); sys.exit(0)
d, kv, group, rounds, lengths = (json.loads(word) for word in sys.argv[1:6])
found = {}
for tokens in lengths:
    q = torch.randn(1, kv * group, tokens, d, dtype=torch.float16, device="cuda")
    k, v = (torch.randn(1, kv, tokens, d, dtype=torch.float16, device="cuda").repeat_interleave(group, 1) for _ in range(2))
    times = []
    for _ in range(rounds + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    found[tokens] = sorted(times[3:])[rounds // 2]
print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "seconds": found}))
"""


def sdpa_arguments(sizes):
    return [json.dumps(value) for value in (HEAD_DIM, KV_HEADS, PREFILL_GROUP, sizes.rounds, sizes.prefill_tokens)]


class Failed(Exception):
    """A command ended with an error."""


def run_json(command, path):
    """Runs a command that writes JSON to `path`. Errors: Failed, with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def decode_row(found, form, group):
    """Of the JSON of one `kvant bench decode`."""
    result = found["results"][0]
    wanted = WANTED_SHARE[form] if group <= WANTED_GROUP else None
    return {"format": form, "group": group, "shape": result["shape"], "gib": result["device_bytes"] / 2**30,
            "seconds": result["device_seconds"] or result["wall_seconds"], "bytes_per_second": result["bytes_per_second"],
            "copy_bytes_per_second": 2 * found["copy_bytes_per_second"], "share": result["share_of_copy"], "wanted": wanted}


def prefill_rows(found, sizes, sdpa):
    """Of the JSON of `kvant bench prefill`; `sdpa`: seconds by length, or empty."""
    rows = []
    for index, result in enumerate(found["results"]):
        tokens = sizes.prefill_tokens[index // len(BITS)]
        seconds = result["device_seconds"] or result["wall_seconds"]
        other = sdpa.get(str(tokens))
        rows.append({"format": result["format"], "tokens": tokens, "seconds": seconds, "flops_per_second": result["flops_per_second"],
                     "of_sdpa": other / seconds if other else None, "wanted": WANTED_OF_SDPA if other else None})
    return rows


def verdict(value, wanted):
    if value is None or wanted is None:
        return ""
    return "reached" if value >= wanted else "below"


def share_text(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def table(columns, rows):
    return "\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def markdown(record):
    """The report. Every figure stands under its command."""
    device = record["device"]
    lines = [f"# {device['name']}", "", f"Driver: {device['driver']}. Commit {record['commit']}. `{record['command']}`; medians of {record['rounds']} rounds, device time by timestamps.", ""]
    for title, part in record["parts"].items():
        lines += [f"## {title}", ""]
        if part.get("why"):
            lines += [f"Not measured: {part['why']}", ""]
            continue
        lines += [f"    {command}" for command in part["commands"]] + [""]
        if part.get("text"):
            lines += [part["text"], ""]
        if part.get("columns"):
            lines += [table(part["columns"], part["rows"])]
    return "\n".join(lines)


def decode_part(rows, commands):
    """As a part of the report: bytes of the pool, queries and outputs per second beside those of a copy in the same run, its reads and writes."""
    return {"commands": commands, "columns": ["format", "GQA", "shape", "GiB", "ms", "GB/s", "a copy's GB/s", "of copy", "wanted", ""],
            "rows": [[r["format"], str(r["group"]), r["shape"], f"{r['gib']:.2f}", f"{1e3 * r['seconds']:.3f}", f"{r['bytes_per_second'] / 1e9:.3g}",
                      f"{r['copy_bytes_per_second'] / 1e9:.3g}", share_text(r["share"]), share_text(r["wanted"]), verdict(r["share"], r["wanted"])] for r in rows]}


def prefill_part(rows, commands):
    return {"commands": commands, "columns": ["format", "tokens", "ms", "TFLOP/s", "of SDPA's rate", "wanted", ""],
            "rows": [[r["format"], str(r["tokens"]), f"{1e3 * r['seconds']:.3f}", f"{r['flops_per_second'] / 1e12:.3g}", share_text(r["of_sdpa"]),
                      share_text(r["wanted"]), verdict(r["of_sdpa"], r["wanted"])] for r in rows]}
