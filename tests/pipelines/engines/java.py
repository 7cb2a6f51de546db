"""A check of what engines need on this machine, and a fake Java."""

from pipelines.engines.choose import choose_engine


def check(*words):
    choose_engine(words).check()


def write_java(folder, version):
    """Write a program `java` that prints this version."""
    (folder / "bin").mkdir(exist_ok=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
