"""Whatever can compute an exported file, behind one session."""
