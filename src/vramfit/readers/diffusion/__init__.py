"""Diffusion pipelines, component by component: denoisers, autoencoders, text encoders."""
