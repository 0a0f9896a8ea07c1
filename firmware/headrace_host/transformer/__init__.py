"""Transformer layers of the Llama family as command images: one image serves every position."""
