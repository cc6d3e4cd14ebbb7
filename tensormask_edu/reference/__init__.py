"""The definitions, NumPy only: loops that can be read, the oracle of every faster form."""
