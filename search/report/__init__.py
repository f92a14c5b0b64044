"""report.html: what a run searched, whether it worked, what matters, and what the best model does."""
