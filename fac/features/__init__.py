"""Texts to features: g_i(x) for every text and feature, and each feature's top spans (`Extractor`).

Texts are batched by a token budget (`batches`) and pooled over their content tokens (`pooling`; paper §5.1, App. D
eq. 30). What is held is a window of token ids and one batch of activations, so memory does not depend on the length of
the corpus. Thresholds and coverage (`fac.coverage`) read the pooled values, so one pass serves every threshold.
"""
