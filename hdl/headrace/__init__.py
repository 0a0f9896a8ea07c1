"""Headrace: the hardware description of an open neural processing unit."""
