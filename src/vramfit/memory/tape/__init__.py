"""What autograd keeps: blocks of a model written in operators, run forward and backward over sizes alone."""
