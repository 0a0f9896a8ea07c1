"""Networks: the graph the compiler reads, importers that build it, and packages that hold ready-made networks."""
