"""cocotb benches: the machine at bus level, against the golden model."""
