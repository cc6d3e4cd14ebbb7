"""The paper's tables in miniature: which idea earns what, in minutes."""
