"""End-to-end load benchmark: heartwire and its peers, in turn, in one run. See benchmarks/README.md."""
