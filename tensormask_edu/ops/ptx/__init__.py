"""The GPU's own code, PTX, executed on a CPU: every access checked, every instruction counted.

NVRTC makes PTX of the very source that a driver is given, without a driver and without a GPU
(`text`). It becomes rows of numbers, or is refused by line (`program`). A C++ library runs them
warp by warp (`execute`). What was counted says how long a GPU would take at least (`estimate`).
"""
