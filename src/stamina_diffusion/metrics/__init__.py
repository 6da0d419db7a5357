"""Measures as pure functions: `continual` of a matrix of scores over time, `images` of arrays of features."""
