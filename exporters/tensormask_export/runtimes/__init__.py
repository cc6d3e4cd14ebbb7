"""Whatever computes a file, behind one session."""
