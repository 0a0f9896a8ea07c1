"""Random valid command images by seed, and their comparison on two simulators."""

from .case import Access, Case
from .generator import Plan, plan_program, random_program

__all__ = ["Access", "Case", "Plan", "plan_program", "random_program"]
