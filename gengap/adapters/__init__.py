"""The noise scale, ghost batch norm and learning rates that follow the batch, for trainers that others wrote.

Each module needs the package that it is named after, and only that one; nothing else of gengap imports it.
"""
