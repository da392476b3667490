"""The command line `weightslab`: what a root holds, shown and changed from the shell.

Needs the extra `cli` (typer, rich). Nothing here imports torch unless tensors are asked for. `start` is
the way in; each module with commands is imported when one of them is called.
"""
