"""Ready networks with their data: what the demo, the tutorials and the benchmarks run on."""
