"""Benchmarks on real data, beside peers, void when the answers differ."""
