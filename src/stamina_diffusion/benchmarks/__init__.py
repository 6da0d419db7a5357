"""Benchmarks: every method in one harness, on streams of tasks, resumable, on many processors, with the same results.

`grid` runs cells and knows nothing of what they do; `customization` teaches text-to-image models concepts.
"""
