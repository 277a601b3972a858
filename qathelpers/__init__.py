"""Helpers for a hands-on course on training low-bit neural networks with Brevitas and PyTorch."""
