"""The GPU day: what only a GPU can show, in one run of nine minutes at most.

`run.py` is the clock: steps in their order, each a process that may be cut. `step.py` is such a
process, `task.py` what it is given. What the steps do, as they run: `here.py`, `kernels.py`,
`network.py`, `speed.py` (with `estimates.py`), `model.py`, `engines.py`, `watched.py`.
"""
