"""Figures of what was measured: pure functions of arrays."""
