"""What asv looks for benchmarks in."""
