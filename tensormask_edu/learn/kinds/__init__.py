"""The kinds of exercise, as a lesson's module declares them.

    @loops("n v u h w, pad -> n v u h w")     write a function; the loops are its reference
    @numbers({"alpha": 0.01})                 fill in a table, each number to a tolerance
    @module(arguments, inputs)                write an nn.Module; outputs and gradients count
    predict("which_wins", ("a", "b"), f)      choose before the run; compared after it
    explain("why", __name__)                  write a line, then unfold ours

Each is found under its name in `EXERCISES` as soon as its module is imported. The sentences
come from the text file beside that module, under the exercise's name.
"""

from .function import Loops, loops
from .network import Module, module
from .registry import EXERCISES, Kind
from .table import Numbers, numbers
from .words import Explain, Predict, Unfolds, explain, predict

__all__ = [
    "EXERCISES",
    "Explain",
    "Kind",
    "Loops",
    "Module",
    "Numbers",
    "Predict",
    "Unfolds",
    "explain",
    "loops",
    "module",
    "numbers",
    "predict",
]
