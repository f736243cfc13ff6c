"""Benchmarks: what takes how long, on which machine. Each is a script that writes its figures under results/."""
