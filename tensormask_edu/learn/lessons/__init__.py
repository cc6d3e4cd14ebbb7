"""The lessons' exercises: per lesson a module of functions and a text file of sentences.

A module is found by its place in this folder. It holds what is right, what is tried and which
mistakes are known, and lists its exercises as `EXERCISES`; the file of the same name, `.md`
instead of `.py`, holds every sentence, in the format of `texts.py`.
"""
