"""Speed, as ratios within one run: see ``benchmarks/README.md``."""
