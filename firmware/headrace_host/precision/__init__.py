"""Post-training choice of INT8 or INT4 for each layer of a quantised network."""
