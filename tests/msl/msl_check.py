#!/usr/bin/env python3
"""Translates every SPIR-V module that a Metal device could use to the Metal shading language, as MoltenVK does when it makes a
pipeline, and fails when one cannot be. Modules that Metal cannot use are listed with the reason. A module that is cut in half must be
refused, so that the check is seen to work. The result is not compiled: that takes Apple's compiler.
usage: msl_check.py KERNELS.DEF MODULES PROBES [--strict] -- SPIRV-CROSS..."""
import pathlib
import re
import subprocess
import sys
import tempfile

# What MoltenVK does not offer, by the needs of kernels.def. It offers the rest: subgroups, fp16, integer dot product (1.2.8).
NOT_ON_METAL = {"coopmat": "MoltenVK has no VK_KHR_cooperative_matrix", "coopmat2": "MoltenVK has no VK_NV_cooperative_matrix2"}
# Metal 2.3 (macOS 11, iOS 14) is the first with SIMD-group functions on all of Apple's own GPUs.
MODES = [["--msl-version", "20300"], ["--msl-version", "20300", "--msl-argument-buffers"]]
# Words that the translation of a need must hold, so that nothing was dropped on the way.
TRACES = {"subgroup": r"\bsimd_\w+\(", "fp16": r"\bhalf\d?\b"}


def rows(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("KVANT_KERNEL("):
            fields = [field.strip() for field in line[line.index("(") + 1:line.rindex(")")].split(",")]
            yield fields[0], [] if fields[4] == "none" else fields[4].split("|")


def translate(command, module, mode):
    """The Metal source, and what the translator complained of."""
    process = subprocess.run([*command, "--msl", *mode, str(module)], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        return "", (process.stderr or process.stdout).strip().splitlines()[-1:] or [f"status {process.returncode}"]
    if "kernel void main0" not in process.stdout:
        return "", ["the translation has no kernel"]
    return process.stdout, []


def main(argv):
    split = argv.index("--")
    command, words = argv[split + 1:], argv[:split]
    strict = "--strict" in words
    definitions, modules, probes = [pathlib.Path(word) for word in words if word != "--strict"]
    failures, translated, refused_features = [], 0, {}
    for feature in ("subgroup", "fp16", "int_dot"):
        probe = probes / f"probe_{feature}.spv"
        if probe.exists() and translate(command, probe, MODES[0])[1]:
            refused_features[feature] = "this spirv-cross cannot translate it (tools/sysroot brings one that can)"
    for name, needs in rows(definitions):
        module = modules / f"{name}.spv"
        reasons = [NOT_ON_METAL[need] for need in needs if need in NOT_ON_METAL]
        lacking = [f"{need}: {refused_features[need]}" for need in needs if need in refused_features]
        if reasons:
            print(f"{name:<20} left out: {', '.join(reasons)}")
        elif not module.exists():
            print(f"{name:<20} left out: this build's shader compiler cannot make it")
        elif lacking and not strict:
            print(f"{name:<20} left out: {', '.join(lacking)}")
        else:
            for mode in MODES:
                source, complaint = translate(command, module, mode)
                for need in needs:
                    if not complaint and need in TRACES and not re.search(TRACES[need], source):
                        complaint = [f"the translation has no trace of '{need}'"]
                if complaint:
                    failures.append(f"{name}: {complaint[0]}")
            if not failures or not failures[-1].startswith(f"{name}:"):
                print(f"{name:<20} translated")
                translated += 1
    whole = next(iter(sorted(modules.glob("*.spv"))), None)
    if whole is None:
        failures.append(f"there is no module in {modules}")
    else:
        with tempfile.TemporaryDirectory() as folder:
            half = pathlib.Path(folder) / "half.spv"
            data = whole.read_bytes()
            half.write_bytes(data[:len(data) // 8 * 4])
            if not translate(command, half, MODES[0])[1]:
                failures.append(f"half of {whole.name} was translated: this check sees nothing")
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{translated} modules translated, {len(failures)} failures")
    return 1 if failures or translated == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
