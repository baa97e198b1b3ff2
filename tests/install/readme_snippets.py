#!/usr/bin/env python3
"""Writes the README's C and Python programs into a folder, so that a test can build and run them as a reader would."""
import pathlib
import re
import sys

readme, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for language, suffix in (("c", "c"), ("python", "py")):
    programs = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.M | re.S)
    if not programs:
        sys.exit(f"{readme} holds no {language} program")
    for number, program in enumerate(programs):
        (folder / f"readme_{number}.{suffix}").write_text(program, encoding="utf-8")
