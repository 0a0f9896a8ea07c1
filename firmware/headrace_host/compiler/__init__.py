"""The compiler: a quantised graph becomes a command image for one machine."""
