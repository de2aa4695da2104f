"""``python -m vitlite`` is the command line, for launchers such as torchrun."""

from vitlite.cli import main

main()
