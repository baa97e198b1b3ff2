"""Runs one row of the matrix and judges what came of it."""
import collections
import glob
import json
import os
import re
import subprocess
import time

BAD = ("unexpected_pass", "fail", "resource_error", "crash", "timeout", "device_lost", "validation_error",
       "internal_error")
MANIFESTS = {
    "lavapipe": "/usr/share/vulkan/icd.d/lvp_icd*.json",
    "swiftshader": "/usr/lib/chromium/vk_swiftshader_icd.json",
    "radv": "/usr/share/vulkan/icd.d/radeon_icd*.json",
}
LIBRARIES = {"lavapipe": "libvulkan_lvp.so", "radv": "libvulkan_radeon.so"}


class Result:
    """What a row came to. `problems` is empty only if everything that ran was right and every absence is explained."""

    def __init__(self, row):
        self.row = row
        self.not_run = ""          # why, when it did not
        self.problems = []
        self.header = {}
        self.counts = collections.Counter()
        self.reasons = collections.Counter()   # of not-supported cases
        self.bad_cases = []
        self.cases = 0
        self.worst = 0.0
        self.messages = 0
        self.seconds = 0.0
        self.pipelines = []        # RADV rows

    @property
    def outcome(self):
        return "not run" if self.not_run else "FAILED" if self.problems else "passed"

    @property
    def failed_cases(self):
        return sum(self.counts[status] for status in BAD)


def unexplained(row, reasons):
    return [f"{count} cases are not supported for a reason that this row does not explain: {reason}"
            for reason, count in sorted(reasons.items())
            if not any(re.fullmatch(pattern, reason) for pattern in row.allowed)]


def judge(result, lines, exit_code, commit="unknown"):
    """Fills `result` from the lines of a conformance run's JSON file. Every doubt is a problem. `commit`: of the tree."""
    row, problems = result.row, result.problems
    summary = None
    names = collections.Counter()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            problems.append("a line of the results is cut short")
            continue
        kind = entry.get("type")
        if kind == "header":
            result.header = entry
        elif kind == "summary":
            summary = entry
        elif kind == "case":
            names[entry["name"]] += 1
            status = entry["status"]
            result.counts[status] += 1
            result.seconds += entry.get("ms", 0.0) / 1000
            if status == "not_supported":
                result.reasons[entry.get("message", "no reason given")] += 1
            elif status in BAD:
                result.bad_cases.append((entry["name"], status, entry.get("message", "")))
            result.worst = max(result.worst, entry.get("fraction", 0.0))
    result.cases = sum(result.counts.values())
    if not result.header:
        problems.append("no device was opened" + (f": {summary['error']}" if summary and summary.get("error") else ""))
        return
    if summary is None:
        problems.append("the run was cut short: it has no summary")
    else:
        result.messages = summary.get("validation_messages", 0)
        if summary.get("error"):
            problems.append(summary["error"])
        if summary.get("executed", 0) == 0:
            problems.append("no case was executed")
    if result.cases != result.header.get("case_count"):
        problems.append(f"{result.cases} of {result.header.get('case_count')} cases have a result")
    if any(count > 1 for count in names.values()):
        problems.append("a case has more than one result")
    built, commit = result.header.get("commit", "unknown"), commit.rstrip("+")
    if "unknown" not in (built, commit) and not built.startswith(commit):
        problems.append(f"the build is of commit {built}, the tree is at {commit}: configure and build again")
    if result.failed_cases:
        problems.append(f"{result.failed_cases} cases failed")
    if result.messages:
        problems.append(f"{result.messages} validation messages")
    if row.validation and not result.header.get("validation_layers"):
        problems.append("it ran without validation layers")
    problems += unexplained(row, result.reasons)
    device = result.header.get("device", {})
    if device.get("driver_name") != row.says:
        problems.append(f"it ran on '{device.get('driver_name')}', not on '{row.says}'")
    if device.get("subgroup_size") != row.subgroups:
        problems.append(f"subgroups have size {device.get('subgroup_size')}, not {row.subgroups}")
    forced = [quirk[1:] for quirk in row.quirks.split(",") if quirk]
    missing = [quirk for quirk in forced if quirk not in result.header.get("quirks", [])]
    if missing:
        problems.append(f"quirks are not active: {', '.join(missing)}")
    if bool(row.profile) != bool(result.header.get("overrides")):
        problems.append("the profile did not reach the device" if row.profile else "something else narrowed the device")
    if exit_code != 0 and not problems:
        problems.append(f"kvant conform ended with status {exit_code}")


def judge_support(row, supported, reasons):
    """What is wrong with the support that a row tells for the whole list."""
    problems = unexplained(row, reasons)
    problems += [f"no case of the whole list needs the allowance '{pattern}'" for pattern in row.allowed
                 if not any(re.fullmatch(pattern, reason) for reason in reasons)]
    if supported < row.least:
        problems.append(f"{supported} cases of the whole list are supported; this row asks for {row.least}")
    return problems


def root_command(root, driver, binary):
    """The binary through the root's own loader and libraries (no chroot, no privileges), and the driver's path."""
    loaders = glob.glob(f"{root}/usr/lib64/ld-linux-*.so.*") + glob.glob(f"{root}/usr/lib/*-linux-gnu/ld-linux-*.so.*")
    libraries = glob.glob(f"{root}/usr/lib/*-linux-gnu")
    drivers = glob.glob(f"{root}/usr/lib/*-linux-gnu/{LIBRARIES[driver]}")
    vulkan = glob.glob(f"{root}/usr/lib/*-linux-gnu/libvulkan.so.1")
    if not (loaders and libraries and drivers and vulkan):
        return None, None
    return [loaders[0], "--library-path", ":".join(libraries), binary], os.path.abspath(drivers[0])


class Runner:
    def __init__(self, source, build, root, out, options):
        self.source, self.build, self.root, self.out, self.options = source, build, root, out, options

    def base(self, row):
        """Where a row's files lie, less their suffix."""
        shard = self.options.shard
        return f"{self.out}/{row.name}" + (f"-{shard.replace('/', '-of-')}" if shard else "")

    def run(self, row):
        result = Result(row)
        started = time.monotonic()
        arguments = self.isa_arguments(row) if row.driver == "radv" else self.conform_arguments(row)
        command, environment, reason = self.prepare(row, arguments)
        if reason:
            result.not_run = reason
            return result
        base = self.base(row)
        for suffix in ["md", "html", "log"] + ([] if "--resume" in arguments else ["jsonl"]):
            if os.path.exists(f"{base}.{suffix}"):
                os.remove(f"{base}.{suffix}")
        with open(f"{base}.log", "w", encoding="utf-8") as log:
            log.write(" ".join(command) + "\n")
            log.flush()
            process = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.source,
                                     check=False)
        lines = []
        if os.path.exists(f"{base}.jsonl"):
            with open(f"{base}.jsonl", encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        if row.driver == "radv":
            self.judge_isa(result, lines, process.returncode)
        else:
            judge(result, lines, process.returncode, self.options.commit)
        result.seconds = result.seconds or time.monotonic() - started
        return result

    def support(self, row):
        """What the row lacks for the whole list, and what is wrong with that. Nothing is executed."""
        command, environment, reason = self.prepare(row, ["conform", "--support", *self.device_arguments(row)])
        if reason:
            return {}, []
        process = subprocess.run(command, env=environment, capture_output=True, text=True,
                                 cwd=self.source, check=False)
        reasons = {}
        for line in process.stdout.splitlines():
            count, reason = line.split(maxsplit=1)
            reasons[reason] = int(count)
        supported = reasons.pop("supported", 0)
        if process.returncode != 0 or not supported:
            return {}, [f"what it supports cannot be told: {(process.stderr.strip().splitlines() or ['no words'])[-1]}"]
        return reasons, judge_support(row, supported, reasons)

    def prepare(self, row, arguments):
        """Command, environment, and why the row cannot run (or nothing)."""
        tool = "isa_check" if row.driver == "radv" else "kvant"
        binary = f"{self.build}/bin/{tool}"
        if not os.access(binary, os.X_OK):
            return None, None, f"{binary} is not built"
        environment = {k: v for k, v in os.environ.items()
                       if not k.startswith(("KVANT_", "VK_", "LP_", "RADV_", "GALLIVM_", "MESA_"))}
        # lavapipe's cache does not tell vector widths apart: machine code of one would run in the row of another. Rows of one width share theirs.
        environment["XDG_CACHE_HOME"] = f"{self.build}/cache/{row.driver}{row.root}-{row.vector_bits or 'own'}"
        environment["MESA_SHADER_CACHE_MAX_SIZE"] = "16G"
        environment["KVANT_REQUIRE_DEVICE"] = "1"
        command = [binary]
        if row.root:
            command, driver = root_command(self.root + ("" if row.root == "--full" else row.root[1:]), row.driver, binary)
            if command is None:
                return None, None, f"its root is not there; tools/sysroot {row.root} makes it"
            manifest = f"{self.out}/{row.name}.icd.json"
            with open(manifest, "w", encoding="utf-8") as file:
                icd = {"library_path": driver, "api_version": "1.3.0"}
                json.dump({"file_format_version": "1.0.0", "ICD": icd}, file)
        else:
            found = sorted(glob.glob(MANIFESTS[row.driver]))
            if not found:
                return None, None, f"there is no {row.driver} on this machine; tools/setup installs it"
            manifest = found[0]
        environment["VK_ICD_FILENAMES"] = environment["VK_DRIVER_FILES"] = manifest
        if row.vector_bits:
            environment["LP_NATIVE_VECTOR_WIDTH"] = str(row.vector_bits)
        if row.family:
            environment["RADV_FORCE_FAMILY"] = row.family
        return command + arguments, environment, ""

    def isa_arguments(self, row):
        return [row.family] + ([] if self.options.short else ["--all"]) + ["--json", f"{self.out}/{row.name}.jsonl"]

    def device_arguments(self, row):
        # Paths of the source tree stay relative: reports repeat the command line.
        arguments = ["--capabilities", f"tests/profiles/{row.profile}.json"] if row.profile else []
        return arguments + ([f"--quirks={row.quirks}"] if row.quirks else [])

    def conform_arguments(self, row):
        options, base = self.options, self.base(row)
        arguments = ["conform", "--subset", options.subset, "--jobs", str(options.jobs),
                     "--timeout", str(options.timeout), "--expectations", "tests/expectations",
                     "--json", f"{base}.jsonl", "--report", f"{base}.md", "--html", f"{base}.html"]
        for pattern in options.filter:
            arguments += ["--filter", pattern]
        if options.shard:
            arguments += ["--shard", options.shard]
        elif options.short and row.name in options.shards:
            arguments += ["--shard", options.shards[row.name]]
        if options.resume and os.path.exists(f"{base}.jsonl"):
            arguments.append("--resume")
        if row.validation:
            arguments.append("--validation")
        arguments += self.device_arguments(row)
        previous = f"{options.previous}/{row.name}.jsonl" if options.previous else ""
        if previous and os.path.exists(previous):
            arguments += ["--previous", previous]
        return arguments

    def judge_isa(self, result, lines, exit_code):
        if exit_code == 77:
            with open(f"{self.out}/{result.row.name}.log", encoding="utf-8") as log:
                result.not_run = log.read().strip().splitlines()[-1]
            return
        result.pipelines = [json.loads(line) for line in lines]
        result.cases = len(result.pipelines)
        over = sum(1 for p in result.pipelines if not p["within_budget"])
        result.counts["pass"] = result.cases - over
        if over:
            result.counts["fail"] = over
            result.problems.append(f"{over} pipelines are over budget")
        if result.cases == 0:
            result.problems.append("no pipeline was compiled")
        if exit_code != 0 and not result.problems:
            result.problems.append(f"isa_check ended with status {exit_code}")
