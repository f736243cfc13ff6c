"""Sparse autoencoders: which one (`ref`, `hooks`), load and check it (`load`), train one (`lens`, `recipe`), import the
paper's (`checkpoint`), measure how well it reconstructs (`quality`).

Every SAE is a folder in SAELens' inference format, whoever made it, beside it `fac.json`, the record of how. Does not
know: pooling and coverage (`fac.features`).
"""
