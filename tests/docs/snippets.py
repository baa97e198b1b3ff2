#!/usr/bin/env python3
"""The C snippets of the documentation compile without a warning. One that is taken from an example program, line by line, has been
compiled there; a whole program is compiled as it is; any other becomes a function's body behind snippet_prelude.h.
Usage: snippets.py SOURCE_FOLDER COMPILER [--self-test]"""
import pathlib
import re
import subprocess
import sys

FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_DEFAULT_SOURCE", "-fsyntax-only", "-x", "c", "-"]
BLOCK = re.compile(r"^```c\n(.*?)^```$", re.M | re.S)


def pages(root):
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def lines_of(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_part_of(snippet, program):
    wanted, lines = lines_of(snippet), lines_of(program)
    return any(lines[at:at + len(wanted)] == wanted for at in range(len(lines) - len(wanted) + 1))


def complaint(snippet, root, compiler):
    """What the compiler says; empty: nothing."""
    program = snippet
    if "int main(" not in snippet:
        prelude = (root / "tests/docs/snippet_prelude.h").read_text()
        program = f'{prelude}\nint snippet(void);\nint snippet(void) {{\n#line 1 "snippet"\n{snippet}\n  return 1;\n}}\n'
    run = subprocess.run([compiler, *FLAGS, f"-I{root / 'plugin/include'}"], input=program, text=True, capture_output=True)
    return run.stderr if run.returncode != 0 else ""


def self_test(root, compiler):
    good = "kvant_state_args what = {.struct_size = sizeof what};\nerror = manager->state_save_file(cache, &what, NULL);"
    assert not complaint(good, root, compiler), complaint(good, root, compiler)
    assert "missing initializer" in complaint(good.replace(".struct_size = ", ""), root, compiler)
    assert "no member" in complaint("error = manager->no_such_call(cache);", root, compiler)
    assert is_part_of("b;\n  c;", "a;\n\nb;\nc;\nd;") and not is_part_of("b;\nd;", "a;\nb;\nc;\nd;")


def main():
    root, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
    if "--self-test" in sys.argv:
        return self_test(root, compiler)
    programs = [path.read_text() for path in sorted((root / "plugin/examples").glob("*.c"))]
    copied = compiled = 0
    failures = []
    for page in pages(root):
        text = page.read_text()
        for block in BLOCK.finditer(text):
            if any(is_part_of(block.group(1), program) for program in programs):
                copied += 1
                continue
            compiled += 1
            if said := complaint(block.group(1), root, compiler):
                failures.append(f"{page.relative_to(root)}:{text.count(chr(10), 0, block.start()) + 1}:\n{said}")
    print("\n".join(failures))
    print(f"{copied} snippets are parts of example programs, {compiled} were compiled, {len(failures)} of them with complaints")
    # Fewer would mean that they are not found any more.
    return 1 if failures or copied < 15 or compiled < 5 else 0


if __name__ == "__main__":
    sys.exit(main())
