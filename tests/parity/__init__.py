"""The Rust engine against the plain oracle, and against itself in pieces."""
