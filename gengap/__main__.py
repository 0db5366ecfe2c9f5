"""python -m gengap."""

from gengap.cli import main

main()
