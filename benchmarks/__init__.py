"""How fast the claims of speed are here: each beside its peer, in the same process and in turns.

`python -m benchmarks [training] [bf16] [interpolation] [startup]` writes `benchmarks/results/<name>.json`.
"""
