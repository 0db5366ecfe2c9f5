"""The laboratory and toolkit for large-batch training.

Public names are resolved on first use, so that what only prints or plans does not load torch.
"""
