"""Scratchpad, weight ring, AXI reader and writer, and the engines that move data between them and DDR."""
