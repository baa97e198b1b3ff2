"""What tools/bench-peers found, as lines of a table and as a page with a plot."""
import html as markup
import math
import statistics

from bench_peers_run import DEVICE

# What kvant's output may err beside double precision; queries of integer dot products have 8 bits, which gives a few thousandths.
TOLERANCE = 1e-2
VULKAN, CPU = "Vulkan", "CPU"


def complaint(entry):
    """Why the case is no success of kvant's, or nothing."""
    mine = entry["peers"].get(DEVICE)
    if mine is None:
        return f"{DEVICE}: {entry['problems'].get(DEVICE, 'not measured')}"
    return "" if mine["error"] <= TOLERANCE else f"{DEVICE} errs by {mine['error']:.1e}"


def median(entry, name):
    held = entry["peers"].get(name)
    return statistics.median(held["ms"]) if held and held["ms"] else None


def best_vulkan(entry):
    """The better of the settings of ggml's Vulkan backend."""
    found = [value for name in entry["peers"] if name.startswith("Vulkan") and (value := median(entry, name)) is not None]
    return min(found) if found else None


def times(entry):
    return {DEVICE: median(entry, DEVICE), VULKAN: best_vulkan(entry), CPU: median(entry, CPU)}


def ratio(entry, other):
    held = times(entry)
    return held[other] / held[DEVICE] if held[other] and held[DEVICE] else None


def progress(entry, seconds, number, count):
    return f"[{seconds:5.0f} s] case {number} of {count}: {entry['case']} {entry['type']}: " + (complaint(entry) or "done")


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def summary(record):
    """[(what, geometric mean, least)] of the ratios, by the groups that are compared."""
    groups = [("decode, quantized", lambda e: not e["prefill"] and e["type"] != "f16"), ("decode, f16", lambda e: not e["prefill"] and e["type"] == "f16"),
              ("prefill", lambda e: e["prefill"])]
    lines = []
    for other, title in ((VULKAN, "ggml's Vulkan backend"), (CPU, "ggml's CPU backend")):
        for name, chosen in groups:
            values = [value for entry in record["cases"] if chosen(entry) and (value := ratio(entry, other)) is not None]
            if values:
                lines.append((f"{name}, of {title}", geometric(values), min(values)))
    return lines


def cell(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def rows(record):
    header = ["case", "type", f"{DEVICE} ms", "Vulkan ms", "CPU ms", "Vulkan/kvant", "CPU/kvant", "error", "Vulkan's", "CPU's"]
    body = []
    for entry in record["cases"]:
        held = times(entry)
        errors = {name: peer["error"] for name, peer in entry["peers"].items()}
        vulkan = [error for name, error in errors.items() if name.startswith("Vulkan")]
        body.append([entry["case"], entry["type"]] + [cell(held[name]) for name in (DEVICE, VULKAN, CPU)] + [cell(ratio(entry, o)) for o in (VULKAN, CPU)]
                    + [f"{e:.1e}" if e is not None else "-" for e in (errors.get(DEVICE), max(vulkan, default=None), errors.get(CPU))])
    return header, body


def facts(record):
    devices = "; ".join(f"{name}: {text}" for name, text in record["devices"].items())
    return (f"commit {record['commit']}; {record['processor']}, {record['threads']} threads for the CPU backend; medians of {record['rounds']} runs in turn; "
            f"{devices}. Ratios above 1 are in favour of {DEVICE}; of ggml's Vulkan backend the better setting counts.")


def terminal(record):
    header, body = rows(record)
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    lines = ["  ".join(text.ljust(width) if i < 2 else text.rjust(width) for i, (text, width) in enumerate(zip(line, widths))) for line in [header, *body]]
    lines += ["", facts(record)]
    lines += [f"{name}: {mean:.2f} times as fast, geometric mean; least {least:.2f}" for name, mean, least in summary(record)]
    lines += [f"not right: {entry['case']} {entry['type']}: {text}" for entry in record["cases"] if (text := complaint(entry))]
    return "\n".join(lines)


def plot(record):
    """Bars of milliseconds, on a logarithmic axis: one line a case and backend."""
    colours = {DEVICE: "#1b7f5c", VULKAN: "#b4552d", CPU: "#6b7280"}
    held = [(entry, times(entry)) for entry in record["cases"]]
    values = [value for _, one in held for value in one.values() if value]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    left, width, bar = 210, 640, 6

    def x(value):
        return left + width * (math.log10(value) - low) / max(1, high - low)

    height = 40 + len(held) * (3 * bar + 8)
    parts = [f'<svg viewBox="0 0 {left + width + 60} {height}" role="img" font-family="sans-serif" font-size="11">']
    for power in range(low, high + 1):
        parts.append(f'<line x1="{x(10 ** power):.1f}" y1="20" x2="{x(10 ** power):.1f}" y2="{height}" stroke="#ddd"/>'
                     f'<text x="{x(10 ** power):.1f}" y="14" text-anchor="middle">{10.0 ** power:g} ms</text>')
    y = 28
    for entry, one in held:
        parts.append(f'<text x="{left - 8}" y="{y + 2 * bar}" text-anchor="end">{markup.escape(entry["case"])} {markup.escape(entry["type"])}</text>')
        for number, (name, value) in enumerate(one.items()):
            if value:
                parts.append(f'<rect x="{left}" y="{y + number * bar}" width="{x(value) - left:.1f}" height="{bar - 1}" fill="{colours[name]}">'
                             f'<title>{name} {value:.2f} ms</title></rect>')
        y += 3 * bar + 8
    legend = " ".join(f'<span style="color:{colour}">&#9632;</span> {name}' for name, colour in colours.items())
    return f"<p>{legend}</p>" + "".join(parts) + "</svg>"


def html(record):
    header, body = rows(record)
    table = "".join("<tr>" + "".join(f"<td>{markup.escape(text)}</td>" for text in line) + "</tr>" for line in body)
    means = "".join(f"<tr><td>{markup.escape(name)}</td><td>{mean:.2f}</td><td>{least:.2f}</td></tr>" for name, mean, least in summary(record))
    titles = "".join(f"<li>{markup.escape(name)}: {markup.escape(title)}</li>"
                     for name, title in dict.fromkeys((entry["case"], entry["title"]) for entry in record["cases"]))
    style = ("body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
             "td,th{padding:.15em .6em;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%}")
    return (f'<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>kvant beside ggml</title><style>{style}</style>'
            f"<h1>FLASH_ATTN_EXT: kvant beside ggml</h1><p>{markup.escape(facts(record))}</p>"
            f"<table><tr><th>times as fast</th><th>geometric mean</th><th>least</th></tr>{means}</table><ul>{titles}</ul>{plot(record)}"
            f"<table><tr>{''.join(f'<th>{markup.escape(text)}</th>' for text in header)}</tr>{table}</table>\n")
