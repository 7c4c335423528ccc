"""One file per kind of quantiser; ``vramfit.readers.quantization`` says which reads a ``quant_method``."""
