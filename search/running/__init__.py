"""A running search: the driver, the best so far, and what a person sees."""
