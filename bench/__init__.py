"""Benchmarks: they measure and check what they measure, and never assert a speed."""
