"""Tables of the matrix: on the terminal, in docs/matrix.md between its markers, and docs/amd-statistics.*"""
import csv
import io

BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
COLUMNS = ["row", "device", "list", "subgroups", "cases", "pass", "warnings", "not supported", "expected", "fail",
           "messages", "worst error, of its bound", "time", "commit", "outcome"]
STATISTICS = ["family", "kernel", "shape", "config", "role", "head_dim", "vgprs", "sgprs", "spilled_vgprs",
              "spilled_sgprs", "lds", "scratch", "waves", "instructions", "code_bytes", "latency", "inverse_throughput",
              "within_budget"]


def cells(result, selection, commit):
    """One row of the table, as texts."""
    row, counts, title = result.row, result.counts, result.row.title
    if result.not_run:
        return [row.name, title, "", ""] + ["0"] * 6 + ["-", "-", "-", commit, f"not run: {result.not_run}"]
    numbers = [result.cases, counts["pass"], counts["quality_warning"], counts["not_supported"],
               counts["expected_fail"] + counts["waived"], result.failed_cases]
    end = [f"{result.seconds:.0f} s", commit, result.outcome]
    if row.driver == "radv":
        return [row.name, title, "pipelines", "-"] + [str(n) for n in numbers] + ["-", "-"] + end
    device = result.header.get("device", {})
    if not row.profile:
        title += ": " + (device.get("driver_info") or device.get("name", ""))
    messages = str(result.messages) if result.header.get("validation_layers") else "no layers"
    return ([row.name, title, selection, str(device.get("subgroup_size", "-"))] + [str(n) for n in numbers] +
            [messages, "beyond" if result.worst >= 1e30 else f"{result.worst:.2f}"] + end)


def terminal_table(rows):
    """The table without its longest columns, aligned."""
    shown = [i for i, name in enumerate(COLUMNS) if name not in ("device", "list", "commit")]
    texts = [[COLUMNS[i] for i in shown]] + [[row[i] for i in shown] for row in rows]
    widths = [max(len(line[i]) for line in texts) for i in range(len(shown) - 1)]
    lines = []
    for line in texts:
        middle = [text.rjust(width) for text, width in zip(line, widths)][1:]
        lines.append("  ".join([line[0].ljust(widths[0])] + middle + [line[-1]]))
    return "\n".join(lines)


def markdown_row(texts):
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def updated_table(document, rows, order):
    """`document` with the rows put between its markers. Rows of earlier runs that were not run now stay; a row that ran whole takes the
    place of its shards ("name I/N")."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"the document has no pair of markers {BEGIN} and {END}")
    head, rest = document.split(BEGIN)
    old, tail = rest.split(END)
    kept = {}
    for line in old.splitlines():
        parts = [part.strip() for part in line.strip().strip("|").split(" | ")]
        if len(parts) == len(COLUMNS) and parts[0].split(" ")[0] in order:
            kept[parts[0]] = line
    for texts in rows:
        if " " not in texts[0]:
            kept = {name: line for name, line in kept.items() if name.split(" ")[0] != texts[0]}
        kept[texts[0]] = markdown_row(texts)

    def place(name):
        row, _, shard = name.partition(" ")
        return order.index(row), [int(number) for number in shard.split("/")] if shard else []
    align = "|---|---|---|" + "---:|" * (len(COLUMNS) - 5) + "---|---|"
    rendered = "\n".join([markdown_row(COLUMNS), align] + [kept[name] for name in sorted(kept, key=place)])
    return f"{head}{BEGIN}\n{rendered}\n{END}{tail}"


def statistics_csv(pipelines):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(STATISTICS)
    for p in pipelines:
        writer.writerow([int(p[k]) if isinstance(p[k], (bool, float)) else p[k] for k in STATISTICS])
    return out.getvalue()


def table(columns, rows):
    """Markdown lines; columns whose name begins with '#' stand on the right."""
    lines = [markdown_row([column.lstrip("#") for column in columns])]
    lines.append("|" + "|".join("---:" if column.startswith("#") else "---" for column in columns) + "|")
    return lines + [markdown_row(row) for row in rows]


def most(members, key):
    return f"{max(p[key] for p in members):.0f}"


def grouped(pipelines, key):
    groups = {}
    for p in pipelines:
        groups.setdefault(key(p), []).append(p)
    return groups


def spills_to_memory(p):
    return p["spilled_vgprs"] or p["scratch"]


def spill_section(pipelines):
    """Counts by family, then what spills, by kernel and format."""
    counts, named = [], []
    for family, members in grouped(pipelines, lambda p: p["family"]).items():
        memory = [p for p in members if spills_to_memory(p)]
        lanes = [p for p in members if p["spilled_sgprs"] and not spills_to_memory(p)]
        over = [p for p in members if not p["within_budget"]]
        counts.append([family] + [str(len(group)) for group in (members, memory, lanes, over)])
        for (kernel, name), group in grouped(memory + lanes, lambda p: (p["kernel"], p["shape"].split()[0])).items():
            dims = ", ".join(str(dim) for dim in sorted({int(p["head_dim"]) for p in group}))
            named.append([family, kernel, name, str(len(group))] +
                         [most(group, key) for key in ("spilled_vgprs", "spilled_sgprs", "scratch")] + [dims])
    lines = ["## Spills", ""] + table(["family", "#pipelines", "#of these, vectors or scratch",
                                       "#of these, scalars alone, into lanes of a vector register", "#over budget"], counts)
    if named:
        lines += ["", "What spills:", ""]
        lines += table(["family", "kernel", "format", "#pipelines", "#most vectors", "#most scalars", "#most scratch",
                        "head sizes"], named)
    return lines


def family_section(family, pipelines):
    rows = []
    held = [p for p in pipelines if p["family"] == family]
    for (kernel, dim), members in sorted(grouped(held, lambda p: (p["kernel"], int(p["head_dim"]))).items()):
        figures = [most(members, key) for key in ("vgprs", "sgprs", "spilled_vgprs", "spilled_sgprs", "lds", "scratch")]
        ends = [most(members, key) for key in ("latency", "inverse_throughput")]
        rows.append([kernel, str(dim), str(len(members))] + figures + [f"{min(p['waves'] for p in members):.0f}"] + ends)
    return ["", f"## {family}", ""] + table(["kernel", "#head size", "#pipelines", "#VGPRs", "#SGPRs", "#spilled V",
                                             "#spilled S", "#LDS", "#scratch", "#least waves per SIMD", "#latency",
                                             "#inverse throughput"], rows)


def statistics_markdown(pipelines, drivers, commit):
    """By family, kernel and head size, the worst of each figure over formats, groups and configs."""
    lines = ["# AMD machine code", "",
             "Made by `tools/matrix --rows 'radv-*' --update-docs`: RADV's null device compiles what tuning chooses for head",
             "sizes 64 to 256, every format, decode and prefill, groups of 4 (five formats: 1, 4 and 8), the `score` kernel for the",
             "same shapes, and the page kernels of every format. Nothing runs. Budgets: `tests/isa`. Every pipeline: `amd-statistics.csv`.",
             ""]
    lines += [f"- {driver}" for driver in drivers] + [f"- commit {commit}", ""] + spill_section(pipelines)
    lines += ["", "The tables below have the worst figure of the pipelines of a kernel and head size. Bytes: LDS, scratch.",
              "Latency and inverse throughput are the compiler's own estimates, in its units."]
    for family in grouped(pipelines, lambda p: p["family"]):
        lines += family_section(family, pipelines)
    return "\n".join(lines) + "\n"
