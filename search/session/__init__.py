"""One call of `search.run`, checked before anything starts."""
