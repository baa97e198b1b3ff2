"""llama-bench on kvant's device, on ggml's Vulkan backend of the same driver with the weights on the CPU, and on the CPU alone: runs in turn,
medians of tokens a second, ratios. Times are printed and never judged."""
import json
import statistics
import subprocess
import sys
import time

from llama_context import CPU, DEVICE, TYPES
from llama_scenarios import Failed, complaints
from llama_server import reason_of_end

PROMPT_TOKENS, TEXT_TOKENS, SAMPLES = 128, 16, 3
RUN_SECONDS = 4 * 3600  # a software driver compiles for minutes and fills a long context slowly
VULKAN = "Vulkan0"
VISIBLE = {"GGML_VK_VISIBLE_DEVICES": "0"}  # ggml's backend leaves out drivers in software unless it is told
# What each column runs: words, whether the library is loaded, variables. With weights on the CPU ggml's backend still takes the matrix
# products of long prompts, and their weights each time, unless told -nopo: of use on a GPU, not with a driver in software.
COLUMNS = {DEVICE: (["-dev", DEVICE], True, {}),
           VULKAN: (["-dev", VULKAN, "-ot", ".*=CPU"], False, VISIBLE),
           "CPU": (["-dev", CPU], False, {}),
           "Vk0-nopo": (["-dev", VULKAN, "-ot", ".*=CPU", "-nopo", 1], False, VISIBLE)}
DEFAULT_COLUMNS = [DEVICE, VULKAN, "CPU"]


def add_arguments(parser):
    bench = parser.add_argument_group("speed")
    bench.add_argument("--bench", action="store_true", help="measure with llama-bench instead of running scenarios; takes hours with the defaults")
    bench.add_argument("--depths", default="0,4096,8192,16384", help="tokens in the context before what is measured")
    bench.add_argument("--types", default="f16,q8_0,q4_0", help="types of K and V")
    bench.add_argument("--columns", default=",".join(DEFAULT_COLUMNS), help=f"what is measured, of {', '.join(COLUMNS)}")
    bench.add_argument("--repetitions", type=int, default=3, help=f"rounds of interleaved runs, each with {SAMPLES} samples a figure")


def check_arguments(parser, options):
    options.depths, options.types, options.columns = (text.split(",") for text in (options.depths, options.types, options.columns))
    if not all(depth.isdigit() for depth in options.depths):
        parser.error(f"--depths {','.join(options.depths)}: whole numbers of tokens with commas between them are expected")
    for name, given, known in (("--types", options.types, TYPES), ("--columns", options.columns, list(COLUMNS))):
        if unknown := [one for one in given if one not in known]:
            parser.error(f"{name}: {unknown[0]} is not one of {', '.join(known)}")
    if options.repetitions < 1:
        parser.error(f"--repetitions ({options.repetitions}) is not 1 or more")
    options.depths = [int(depth) for depth in options.depths]


def read_samples(printed):
    """{(test, depth): tokens a second of each sample} of llama-bench's lines of JSON; the tests are pp (prompt) and tg (text)."""
    found = {}
    for line in printed.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            found.setdefault(("pp" if row["n_prompt"] else "tg", row["n_depth"]), []).extend(row["samples_ts"])
    return found


def medians(samples):
    return {key: statistics.median(values) for key, values in samples.items() if values}


def ratio(one, other):
    return f"{one / other:.2f}" if one and other else "-"


def table(values, types, depths, columns):
    """Lines of the table; values are {(column, type, test, depth): tokens a second}."""
    compared = [column for column in columns if column != DEVICE and DEVICE in columns]
    lines = [f"{'K/V':<7} {'test':<6} {'depth':>6} " + " ".join(f"{column:>9}" for column in columns)
             + "".join(f"  {DEVICE + '/' + column:>15}" for column in compared)]
    for kind in types:
        for test, count in (("tg", TEXT_TOKENS), ("pp", PROMPT_TOKENS)):
            for depth in depths:
                row = {column: values.get((column, kind, test, depth)) for column in columns}
                lines.append(f"{kind:<7} {test + str(count):<6} {depth:>6} "
                             + " ".join(f"{row[column]:>9.2f}" if row[column] else f"{'-':>9}" for column in columns)
                             + "".join(f"  {ratio(row[DEVICE], row[column]):>15}" for column in compared))
    return lines


def run_once(context, column, kind, depths):
    """The samples of one process of llama-bench; its output is kept beside the other logs."""
    words, plugin, variables = COLUMNS[column]
    words = ["-m", context.model, "-t", 1, "-ngl", 99, "-fa", "on", *words, "-ctk", kind, "-ctv", kind, "-p", PROMPT_TOKENS, "-n", TEXT_TOKENS,
             "-d", ",".join(map(str, depths)), "-r", SAMPLES, "-o", "jsonl"]
    try:
        status, printed, log = context.root.run("llama-bench", *words, plugin=plugin, timeout=RUN_SECONDS, **variables)
    except subprocess.TimeoutExpired:
        raise Failed(f"llama-bench did not end within {RUN_SECONDS} s") from None
    with open(f"{context.logs}/bench.{kind}.{column}.log", "a", encoding="utf-8") as file:
        file.write(f"$ llama-bench {' '.join(map(str, words))}\n{printed}\n{log}\n")
    if status != 0:
        raise Failed(f"llama-bench ended with {reason_of_end(status, log)}")
    if said := complaints(log):
        raise Failed(said[0])
    return read_samples(printed)


def measure(context, options):
    """Exit status: 1 if anything was left unmeasured."""
    gathered, failed = {}, {}
    for number in range(1, options.repetitions + 1):
        for kind in options.types:
            for column in options.columns:
                if (column, kind) in failed:
                    continue
                begin = time.monotonic()
                try:
                    for (test, depth), values in run_once(context, column, kind, options.depths).items():
                        gathered.setdefault((column, kind, test, depth), []).extend(values)
                except Failed as failure:
                    failed[column, kind] = str(failure)
                print(f"round {number} of {options.repetitions}, {kind}, {column}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    # On a machine with other work the best sample is the least disturbed one.
    for what, values in (("medians", medians(gathered)), ("best samples", {key: max(samples) for key, samples in gathered.items()})):
        print(f"tokens a second, {what} of {options.repetitions * SAMPLES}; ratios above 1 are in favour of {DEVICE}")
        print("\n".join(table(values, options.types, options.depths, options.columns)))
    for (column, kind), reason in failed.items():
        print(f"llama-e2e: {kind} on {column} was not measured: {reason}")
    return 1 if failed else 0
