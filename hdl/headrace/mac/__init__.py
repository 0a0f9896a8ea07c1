"""The MAC array: processing elements, operand feeders, and the engine that runs the MAC command."""
