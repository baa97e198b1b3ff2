#!/usr/bin/env python3
"""The house's own rules, checked on the source tree: who may include whom, where vendors may be asked for, how long a file
may be, which words stay out, and that the two lists and their files agree. `--self-test` shows that each rule can fail."""
import argparse
import os
import pathlib
import re
import subprocess
import sys

MAX_LINES = 500
SOURCE_SUFFIXES = {".cpp", ".hpp", ".c", ".h", ".comp", ".glsl", ".def", ".py", ".cmake", ".txt", ".md", ".in", ".map", ".sh"}
# Data, not text that somebody reads from top to bottom.
DATA_FOLDERS = ("models/", "tests/golden/", "tests/snapshots/", "tests/expectations/", "tests/conformance/mustpass", "docs/reports/")

# Folder -> folders whose headers it may include, besides its own. Longest match wins.
LAYERS = {
    "shaders/params": [],
    "backend": ["shaders"],
    "host": ["backend", "shaders"],
    "plugin/include": [],
    "plugin/examples": ["plugin/include"],
    "plugin": ["plugin/include", "host", "backend", "shaders"],
    "tools/cmake": ["shaders"],
    "tools/engine": ["plugin/include", "tools"],
    "tools/conform": ["plugin/include", "tools", "tests", "host", "backend", "shaders"],
    "tools/replay": ["tools", "host", "backend"],
    "tools/tune_device": ["tools", "backend"],
    "tools/stats": ["plugin/include", "tools"],
    "tools": ["plugin/include", "tools/engine", "tools/replay", "tools/stats"],
    "tests/reference": ["host", "backend", "shaders"],
    "tests/abi": ["plugin/include", "tests"],
    "tests/baseline": ["plugin/include", "tests"],
    "tests": ["tests", "plugin/include", "host", "backend", "shaders", "tools/engine", "tools/replay", "tools/stats"],
}
GENERATED_HEADERS = {"build_facts.hpp", "shader_set_hash.inc"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
VULKAN_HEADER = re.compile(r"^(vulkan/|vk_video/|volk\.h|vk_mem_alloc\.h)")
# A host that brings its own VkDevice has to know Vulkan; such hosts live in these places.
VULKAN_FOLDERS = ("backend/", "tests/abi/", "tests/baseline/", "tests/fault/")
PUBLIC_HEADER_INCLUDES = re.compile(r"^(stddef\.h|stdint\.h|kvant/kvant\w*\.h|kvant\w*\.h)$")

VENDOR_FILES = {"backend/quirks.cpp", "backend/tuning.cpp"}
# Reading the id into the snapshot and writing it down is no decision; comparing it with a vendor's number is one.
VENDOR_TEST = re.compile(r"(vendor|driver)_?id\w*\W{0,3}\s*(==|!=)\s*(0x|k[A-Z]|\d|VK_)|switch\s*\([^)]*(vendor|driver)_?id|"
                         r"(==|!=)\s*(0x10de|0x1002|0x8086|0x13b5|0x5143|0x106b|0x1010)\b", re.I)
FORBIDDEN = [
    (re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"), "an open end"),
    (re.compile(r"(?<![\w.$}*-])/(wo" r"rk|ho" r"me|ro" r"ot|t" r"mp)/"), "a path of one machine"),
    (re.compile(r"\bdeb\.deb" r"ian\.org|\bartifact" r"ory|\bpypi\.o" r"rg"), "the name of a package host"),
]


def is_data(path):
    return path.startswith(DATA_FOLDERS)


def read_tree(root):
    """Path (relative, with slashes) -> text of every source file. Folders named build* and hidden ones are none of ours."""
    files = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith(".") or part.startswith("build") and i == 0 for i, part in enumerate(relative.parts[:-1])):
            continue
        if "__pycache__" in relative.parts or not path.is_file() or path.name.startswith("."):
            continue
        script = path.suffix == "" and path.parent.name == "tools"
        if path.suffix in SOURCE_SUFFIXES or script:
            files[relative.as_posix()] = path.read_text(encoding="utf-8", errors="replace")
    return files


def layer_of(path):
    matches = [layer for layer in LAYERS if path.startswith(layer)]
    return max(matches, key=len) if matches else None


def check_includes(files):
    """Quoted includes of a layer resolve to its own folder or to one that it may see; Vulkan headers stay in backend/."""
    for path, text in files.items():
        layer = layer_of(path)
        if layer is None or not path.endswith((".cpp", ".hpp", ".c", ".h")):
            continue
        for line_text in INCLUDE.finditer(text):
            bracket, name = line_text.groups()
            line = text.count("\n", 0, line_text.start()) + 1
            if VULKAN_HEADER.match(name):
                if not path.startswith(VULKAN_FOLDERS):
                    yield f"{path}:{line}: '{name}' is a Vulkan header, and those appear only in backend/"
                continue
            if layer == "plugin/include" and not PUBLIC_HEADER_INCLUDES.match(name):
                yield f"{path}:{line}: a public header includes '{name}', which is neither stddef.h nor stdint.h nor kvant's"
            if bracket == "<" and not name.startswith("kvant/"):
                continue
            if name in GENERATED_HEADERS or name.endswith(".inc"):
                continue
            owners = {layer_of(other) for other in files if other == name or other.endswith("/" + name)}
            owners.discard(None)
            allowed = {layer, *LAYERS[layer]}
            visible = {owner for owner in owners
                       if any(owner == seen or owner.startswith(seen + "/") or seen == "shaders" and owner.startswith(seen)
                              for seen in allowed)}
            if owners and not visible:
                yield f"{path}:{line}: '{name}' belongs to {', '.join(sorted(owners))}, which {layer} must not see"


def check_vendors(files):
    for path, text in files.items():
        if path in VENDOR_FILES or not path.startswith(("backend/", "host/", "plugin/", "tools/", "shaders/")):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if VENDOR_TEST.search(line):
                yield f"{path}:{number}: a vendor is asked for outside of backend/quirks.cpp and backend/tuning.cpp"


def check_length(files):
    for path, text in files.items():
        lines = text.count("\n") + (not text.endswith("\n"))
        if not is_data(path) and lines > MAX_LINES:
            yield f"{path}: {lines} lines, more than {MAX_LINES}"


def check_words(files):
    for path, text in files.items():
        if is_data(path):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, what in FORBIDDEN:
                if match := pattern.search(line):
                    yield f"{path}:{number}: '{match.group()}' is {what}"


def rows(text, macro):
    for match in re.finditer(rf"^{macro}\(([^)]*)\)", text, re.M):
        yield [field.strip() for field in match.group(1).split(",")]


def check_lists(files):
    """A row has its files, and a file has its row."""
    formats = [row[0] for row in rows(files["shaders/formats.def"], "KVANT_FORMAT")]
    for name in formats:
        for needed in (f"shaders/include/format_{name}.glsl", f"host/format_{name}.cpp", f"docs/formats/{name}.md"):
            if needed not in files:
                yield f"shaders/formats.def: the format {name} lacks {needed}"
    sources = {row[1] for row in rows(files["shaders/kernels.def"], "KVANT_KERNEL")}
    for source in sources:
        if f"shaders/{source}.comp" not in files:
            yield f"shaders/kernels.def: shaders/{source}.comp does not exist"
    for path in files:
        if match := re.fullmatch(r"shaders/(\w+)\.comp", path):
            if match.group(1) not in sources:
                yield f"{path}: no row of kernels.def builds it"


CHECKS = [check_includes, check_vendors, check_length, check_words, check_lists]
EXPORTS = ["kvant_get_api"]


def check_exports(library):
    """The dynamic symbols that the library defines, versions of the linker's own aside."""
    output = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    symbols = sorted(line.split()[-1].split("@")[0] for line in output.splitlines() if line.split()[-2] != "A")
    if symbols != EXPORTS:
        yield f"{library}: exports {', '.join(symbols) or 'nothing'} instead of {', '.join(EXPORTS)}"


# The C and C++ run time, and a sanitizer's where there is one: an engine's process has them, or can.
NEEDED = re.compile(r"lib(c|m|gcc_s|stdc\+\+|pthread|dl|rt|asan|ubsan|tsan)\.so\.\d+|ld-linux.*")


def check_needed(library, allowed=()):
    """The shared libraries without which the loader would refuse the plugin."""
    output = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True,
                            env=os.environ | {"LC_ALL": "C"}).stdout
    names = re.findall(r"\(NEEDED\)\s+Shared library: \[(.*)\]", output)
    if not names:
        yield f"{library}: needs nothing, so that nothing was checked"
    for name in names:
        if not NEEDED.fullmatch(name) and name not in allowed:
            yield f"{library}: needs {name}, which an engine's machine may not have"


def self_test():
    """Each rule must complain about a small tree that breaks it, and about no other."""
    good = {"shaders/formats.def": "", "shaders/kernels.def": "", "backend/device.hpp": "#pragma once\n",
            "host/cache.hpp": '#include "device.hpp"\n', "plugin/include/kvant/kvant.h": "#include <stdint.h>\n",
            "tools/engine/model.cpp": "#include <kvant/kvant.h>\n", "backend/api.hpp": "#include <vulkan/vulkan.h>\n"}
    bad = [
        ({"backend/device.cpp": '#include "cache.hpp"\n'}, check_includes),
        ({"host/pool.cpp": "#include <vulkan/vulkan.h>\n"}, check_includes),
        ({"tests/unit/pool.cpp": "#include <vulkan/vulkan.h>\n"}, check_includes),
        ({"tools/main.cpp": '#include "cache.hpp"\n'}, check_includes),
        ({"tools/engine/run.cpp": '#include "device.hpp"\n'}, check_includes),
        ({"plugin/include/kvant/kvant.h": "#include <stdio.h>\n"}, check_includes),
        ({"host/plan.cpp": "if (facts.vendor_id == 0x10de) {}\n"}, check_vendors),
        ({"backend/device.cpp": "switch (properties.vendorID) {}\n"}, check_vendors),
        ({"backend/memory.cpp": "if (s.driver_id == kRadv) {}\n"}, check_vendors),
        ({"host/long.cpp": "\n" * (MAX_LINES + 1)}, check_length),
        ({"host/pool.cpp": "// TO" "DO\n"}, check_words),
        ({"tools/demo": "cd /wo" "rk/kvant\n"}, check_words),
        ({"shaders/formats.def": "KVANT_FORMAT(f32, 0)\n"}, check_lists),
        ({"shaders/kernels.def": "KVANT_KERNEL(append, append)\n"}, check_lists),
        ({"shaders/lost.comp": "\n"}, check_lists),
    ]
    wrong = [f"clean tree: {message}" for check in CHECKS for message in check(good)]
    for change, expected in bad:
        complaining = [check for check in CHECKS if list(check(good | change))]
        if complaining != [expected]:
            wrong.append(f"{change}: {[check.__name__ for check in complaining]} complained instead of {expected.__name__}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--library", help="libkvant.so, to check what it exports and needs")
    parser.add_argument("--may-need", default="", help="a shared library that it may need besides")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        messages = self_test()
    else:
        files = read_tree(arguments.root)
        messages = [message for check in CHECKS for message in check(files)]
        if arguments.library:
            messages += check_exports(arguments.library)
            messages += check_needed(arguments.library, [arguments.may_need])
        print(f"{len(files)} files checked")
    for message in messages:
        print(message)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
