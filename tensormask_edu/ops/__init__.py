"""The paper's operators in PyTorch: the names of `tensormask_edu.reference`, fast and differentiable."""
